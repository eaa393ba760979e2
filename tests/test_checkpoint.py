"""Damaged checkpoints are found, said, and never used.

MNER_DAMAGE_TRIES=5 tries each kind of damage on each file five times.
"""

import itertools
import os
import random
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from mner_jax import checkpoint, files
from mner_jax.config import UserError
from mner_jax.training.step import TrainState
from tests.training.test_loop import ROOT, environment

TRIES = int(os.environ.get("MNER_DAMAGE_TRIES", "1"))
SCORES = {1: 0.9, 2: 0.5, 3: 0.7}  # 1 is the best, 3 the latest


def state_of(step):
  values = np.random.default_rng(step).normal(size=(40, 8)).astype(np.float32)
  params = {"text": {"kernel": jax.numpy.asarray(values)}}
  moments = ({"mu": jax.numpy.asarray(values / 2)}, ())
  key = jax.random.key_data(jax.random.key(step))
  return TrainState(jax.numpy.int32(step), params, moments, key)


def abstract(tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


ABSTRACT = abstract(state_of(0))


def assert_is(state, step):
  jax.tree.map(np.testing.assert_array_equal, state, state_of(step))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("saved")
  for step, f1 in SCORES.items():
    checkpoint.save(workdir, step, state_of(step), f1)
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "run")
  return tmp_path / "run"


def names(saved, step):
  folder = saved / "checkpoints" / str(step)
  return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def damage(path, kind, rng):
  if kind == "delete":
    path.unlink()
  elif not path.stat().st_size:
    path.write_bytes(b"x")  # nothing in it to flip or to cut off
  elif kind == "truncate":
    os.truncate(path, rng.randrange(path.stat().st_size))
  else:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def test_latest_and_best_are_kept(saved):
  checkpoint.save(saved, 4, state_of(4))
  shutil.rmtree(saved / "checkpoints" / "4")
  checkpoint.save(saved, 4, state_of(4))
  kept = {p.name for p in (saved / "checkpoints").iterdir()}
  assert kept == {"1", "3", "4"}
  shutil.rmtree(saved / "checkpoints")
  for step, f1 in SCORES.items():
    checkpoint.save(saved, step, state_of(step), f1)
  assert checkpoint.latest_step(saved) == 3
  assert_is(checkpoint.restore(saved, 3, ABSTRACT), 3)
  step, params = checkpoint.restore_best(saved, ABSTRACT.params)
  assert step == 1
  np.testing.assert_array_equal(
    params["text"]["kernel"], state_of(1).params["text"]["kernel"]
  )


def test_any_damage_to_any_file_is_found(saved, tmp_path, capsys):
  """The step before is used, and one line names the file."""
  rng = random.Random(19)
  tries = 0
  kinds = ("flip", "truncate", "delete")
  for name, kind, _ in itertools.product(names(saved, 3), kinds, range(TRIES)):
    workdir = tmp_path / f"run{tries}"
    shutil.copytree(saved, workdir)
    damage(workdir / "checkpoints" / "3" / name, kind, rng)
    case = f"{name}: {kind}"
    assert checkpoint.latest_step(workdir) == 2, case
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and str(name) in said[0], case
    assert_is(checkpoint.restore(workdir, 2, ABSTRACT), 2)
    assert (workdir / "checkpoints_damaged" / "3").is_dir(), case
    # The run comes by there again.
    if kind == "delete":
      checkpoint.save(workdir, 3, state_of(3), SCORES[3])
      assert checkpoint.latest_step(workdir) == 3
    # The best is used or nothing is.
    name = rng.choice(names(saved, 1))
    damage(workdir / "checkpoints" / "1" / name, kind, rng)
    with pytest.raises(UserError, match=f"/1: damaged: {name}"):
      checkpoint.restore_best(workdir, ABSTRACT.params)
    shutil.rmtree(workdir)
    tries += 1
  with capsys.disabled():
    print(f" {tries} tries", end="")
  assert tries >= 40


def test_a_lost_best_is_said_and_replaced(workdir, capsys):
  damage(
    workdir / "checkpoints" / "1" / names(workdir, 1)[0],
    "flip",
    random.Random(0),
  )
  assert checkpoint.latest_step(workdir) == 3
  assert "best on dev (F1 0.9000)" in capsys.readouterr().err
  assert checkpoint.restore_best(workdir, ABSTRACT.params)[0] == 3


def test_none_left_is_an_error_not_a_new_start(workdir, capsys):
  for step in SCORES:
    (workdir / "checkpoints" / str(step) / "manifest.json").unlink()
  with pytest.raises(UserError, match=r"no whole.*3/manifest.json is missing"):
    checkpoint.latest_step(workdir)
  assert len(capsys.readouterr().err.splitlines()) == 3
  with pytest.raises(UserError, match="no whole checkpoint is left"):
    checkpoint.latest_step(workdir)


def test_a_file_too_many_is_damage(workdir):
  (workdir / "checkpoints" / "3" / "params" / "d" / "more").write_text("x")
  assert checkpoint.latest_step(workdir) == 2


def test_what_a_killed_save_left_is_cleared_away(workdir, monkeypatch, capsys):
  def killed(*_):
    raise KeyboardInterrupt

  folder = workdir / "checkpoints"
  (folder / "4.orbax-checkpoint-tmp").mkdir()
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.integrity, "write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
      checkpoint.save(workdir, 4, state_of(4))
  # Who scores the best meanwhile does not mind.
  assert checkpoint.restore_best(workdir, ABSTRACT.params)[0] == 1
  assert checkpoint.latest_step(workdir) == 3
  assert "4: was not finished" in capsys.readouterr().err
  assert {p.name for p in folder.iterdir()} == {"1", "2", "3"}
  # At the first save of a run there is nothing else: it begins again.
  first = workdir / "first"
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.integrity, "write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
      checkpoint.save(first, 1, state_of(1))
  assert checkpoint.latest_step(first) is None


def test_a_score_is_added_later(workdir):
  checkpoint.save(workdir, 4, state_of(4))
  assert checkpoint.score(workdir, 4) is None
  checkpoint.add_score(workdir, 4, 0.95)
  assert checkpoint.latest_step(workdir) == 4
  assert checkpoint.restore_best(workdir, ABSTRACT.params)[0] == 4


def test_verify_prints_a_line_per_step(workdir, capsys):
  checkpoint.main("verify", str(workdir))
  assert capsys.readouterr().out.splitlines()[0] == "1: ok, dev F1 0.9000"
  path = workdir / "checkpoints" / "2" / names(workdir, 2)[-1]
  damage(path, "truncate", random.Random(0))
  result = subprocess.run(
    [sys.executable, "-m", "mner_jax.checkpoint", "verify", str(workdir)],
    cwd=ROOT, env=environment(), capture_output=True, text=True,
  )  # fmt: skip
  assert result.returncode == 2
  lines = result.stdout.splitlines()
  assert len(lines) == 3 and lines[1].startswith(
    f"2: damaged: {names(workdir, 2)[-1]}"
  )
  assert len(result.stderr.splitlines()) == 1
  with pytest.raises(UserError, match="usage"):
    checkpoint.main("check")


def test_one_run_at_a_time(tmp_path):
  holder = subprocess.Popen(
    [
      sys.executable, "-c",
      "import sys, time; from mner_jax import files\n"
      "with files.lock(sys.argv[1]): print('held', flush=True); time.sleep(60)",
      str(tmp_path),
    ],
    cwd=ROOT, stdout=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert holder.stdout.readline() == "held\n"
  with pytest.raises(UserError, match="another process trains in it"):
    with files.lock(tmp_path):
      pass
  holder.kill()
  holder.communicate()
  with files.lock(tmp_path):
    pass


def test_files_are_whole_or_as_before(tmp_path, monkeypatch):
  path = tmp_path / "config.json"
  files.write(path, "old")

  def full(self, text):
    with open(self, "w") as file:
      file.write(text[:2])
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(type(files.epath.Path(path)), "write_text", full)
    with pytest.raises(UserError, match="config.json: .*No space left"):
      files.write(path, "new text")
  assert path.read_text() == "old"
  with pytest.raises(UserError, match="cannot be written"):
    files.write("/proc/nowhere/config.json", "x")

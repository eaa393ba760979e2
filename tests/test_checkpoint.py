"""Damaged checkpoints are found, reported, and never used.

MNER_DAMAGE_TRIES=5 tries each kind of damage on each file five times.
"""

import argparse
import gc
import itertools
import json
import os
import random
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from mner_jax import checkpoint
from mner_jax.config import Config, UserError, replace, to_json
from mner_jax.data import files
from mner_jax.data import manifest as integrity
from mner_jax.training.step import TrainState
from tests.conftest import LONG, full_disk

TRIES = int(os.environ.get("MNER_DAMAGE_TRIES", "1"))
KINDS = ("flip", "truncate", "delete")
SCORES = {1: 0.9, 2: 0.5, 3: 0.7}  # 1 is the best, 3 the latest
TOKENIZER = "tokenizer/tokenizer.json"


def state_of(step):
  values = np.random.default_rng(step).normal(size=(40, 8)).astype(np.float32)
  params = {"text": {"kernel": jax.numpy.asarray(values)}}
  moments = ({"mu": jax.numpy.asarray(values / 2)}, ())
  key = jax.random.key_data(jax.random.key(step))
  return TrainState(jax.numpy.int32(step), params, moments, key)


ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
SHAPES = jax.eval_shape(lambda: state_of(0))
ABSTRACT = jax.tree.map(lambda x: x.update(sharding=ONE), SHAPES)


def assert_is(state, step):
  jax.tree.map(np.testing.assert_array_equal, state, state_of(step))


def save(workdir, scores):
  saver = checkpoint.Saver(workdir)
  for step, f1 in scores.items():
    saver.save(step, state_of(step), f1)
  saver.seal()


def best(workdir):
  return checkpoint.restore_best(workdir, ABSTRACT.params)[0]


def verify(workdir):
  parser = argparse.ArgumentParser()
  checkpoint.arguments(parser)
  checkpoint.main(parser.parse_args(["verify", str(workdir)]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("saved")
  files.write(workdir / "config.json", to_json(Config()))
  files.write(workdir / TOKENIZER, '{"pieces": ["a"]}')
  save(workdir, SCORES)
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "run")
  return tmp_path / "run"


def names(saved, step):
  folder = saved / "checkpoints" / str(step)
  return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def damage(workdir, step, name, kind, rng):
  path = workdir / "checkpoints" / str(step) / name
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


def test_latest_and_best_are_kept(workdir):
  assert checkpoint.latest_step(workdir) == 3
  assert_is(checkpoint.restore(workdir, 3, ABSTRACT), 3)
  step, params = checkpoint.restore_best(workdir, ABSTRACT.params)
  assert step == 1
  assert_is(state_of(1)._replace(params=params), 1)
  save(workdir, {4: None})
  kept = {p.name for p in (workdir / "checkpoints").iterdir()}
  assert kept == {"1", "3", "4"}
  # A score may come later.
  assert checkpoint.score(workdir, 4) is None
  checkpoint.add_score(workdir, 4, 0.95)
  assert checkpoint.latest_step(workdir) == best(workdir) == 4


def test_a_state_may_be_donated_once_its_save_has_begun(workdir):
  """The bytes on disk are those from before the steps that follow."""

  @jax.jit(donate_argnums=0)
  def update(state):
    return jax.tree.map(lambda x: x * 3 + 1, state)

  large = np.random.default_rng(0).normal(size=(2000, 1000)).astype(np.float32)
  state = state_of(4)._replace(params={"w": jax.numpy.array(large)})
  saver = checkpoint.Saver(workdir)
  saver.save(4, state)
  for _ in range(20):
    before, state = state, update(state)
  assert before.params["w"].is_deleted()
  saver.seal()
  assert checkpoint.latest_step(workdir) == 4
  restored = checkpoint.restore(workdir, 4, state)
  assert_is(restored._replace(params=state_of(4).params), 4)
  np.testing.assert_array_equal(restored.params["w"], large)


@pytest.mark.parametrize("every", [False, LONG(True)])
def test_damage_to_any_file_is_found(saved, tmp_path, capsys, every):
  """The step before is used, and one line names the file."""
  rng = random.Random(19)
  cases = zip(names(saved, 3), itertools.cycle(KINDS))
  if every:
    cases = [*itertools.product(names(saved, 3), KINDS)] * TRIES
    assert len(cases) >= 40
  for i, (name, kind) in enumerate(cases):
    workdir = tmp_path / f"run{i}"
    shutil.copytree(saved, workdir)
    damage(workdir, 3, name, kind, rng)
    case = f"{name}: {kind}"
    assert checkpoint.latest_step(workdir) == 2, case
    reported = capsys.readouterr().err.splitlines()
    assert len(reported) == 1 and str(name) in reported[0], case
    assert_is(checkpoint.restore(workdir, 2, ABSTRACT), 2)
    assert (workdir / "checkpoints_damaged" / "3").is_dir(), case
    # The run reaches this step again.
    if kind == "delete":
      save(workdir, {3: SCORES[3]})
      assert checkpoint.latest_step(workdir) == 3
    # The best is used or nothing is.
    name = names(saved, 1)[i % len(names(saved, 1))]
    damage(workdir, 1, name, kind, rng)
    with pytest.raises(UserError, match=f"/1: damaged: {name}"):
      best(workdir)
    shutil.rmtree(workdir)


def test_a_lost_best_is_said_and_replaced(workdir, capsys):
  damage(workdir, 1, names(workdir, 1)[0], "flip", random.Random(0))
  assert checkpoint.latest_step(workdir) == 3
  assert "the best on dev, now the best of" in capsys.readouterr().err
  assert best(workdir) == 3


def rename(folder):
  (folder / "3").rename(folder / "30")


def add(folder):
  for name in ("more", ".nfs0001"):  # the second is a file system's own
    (folder / "3" / "params" / "d" / name).write_text("x")


def forget_step(folder):
  """Makes the manifest what it was before it named the step."""
  entries, _ = integrity.load(folder / "3")
  integrity.save(folder / "3", {x: entries[x] for x in ("f1", "files")})


CHANGES = {
  rename: "30: damaged: manifest.json is that of step 3",
  add: "3: damaged: params/d/more is not part of it",
  forget_step: "3: damaged: manifest.json is of another version",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_that_is_not_as_saved_here_is_not_used(workdir, capsys, change):
  change(workdir / "checkpoints")
  assert checkpoint.latest_step(workdir) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert CHANGES[change] in line


def test_the_first_array_of_another_shape_is_named(workdir, capfd):
  wide = jax.ShapeDtypeStruct((40, 9), "float32", sharding=ONE)
  model = ABSTRACT._replace(params={"text": {"kernel": wide, "more": wide}})
  named = r"text/kernel is \(40, 8\), in the model \(40, 9\)\)$"
  with pytest.raises(UserError, match=f"checkpoints/3: .*params/{named}"):
    checkpoint.restore(workdir, 3, model)
  del model.params["text"]["kernel"]
  with pytest.raises(UserError, match="kernel is .*, in the model missing"):
    checkpoint.restore_best(workdir, model.params)
  gc.collect()  # when a task that nobody waits for prints its traceback
  assert capfd.readouterr().err == ""


def test_what_an_edited_workdir_holds_is_not_used(workdir):
  """No step may be used, none is moved: the copy of a file mends it."""
  edited = replace(Config(), {"seed": 7})
  with pytest.raises(UserError, match=r"another config \(seed"):
    checkpoint.check_workdir(workdir, edited)
  path = workdir / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text())))  # the same fields
  assert best(workdir) == 1
  before = sorted(workdir.rglob("*"))
  for name, text in ("config.json", to_json(edited)), (TOKENIZER, "{}"):
    kept = (workdir / name).read_text()
    (workdir / name).write_text(text)
    changed = f"{name} of the workdir is not the one that it was saved with"
    for use in (checkpoint.latest_step, best):
      with pytest.raises(UserError, match=changed):
        use(workdir)
    with pytest.raises(UserError, match="3 damaged"):
      verify(workdir)
    assert sorted(workdir.rglob("*")) == before
    (workdir / name).write_text(kept)


def test_a_resume_may_change_what_does_not_matter(workdir):
  fields = {"mesh.data": 2, "data.path": "/elsewhere", "dtype": "bfloat16"}
  changed = replace(Config(), fields)
  checkpoint.check_workdir(workdir, changed)
  (workdir / "config.json").write_text(to_json(changed))
  assert checkpoint.latest_step(workdir) == 3 and best(workdir) == 1


def test_none_left_is_an_error_not_a_new_start(workdir):
  for step in SCORES:
    (workdir / "checkpoints" / str(step) / "manifest.json").unlink()
  for _ in range(2):
    with pytest.raises(UserError, match="no whole .*manifest.json is missing"):
      checkpoint.latest_step(workdir)


def save_and_die(workdir, scores, owner, name):
  """Saves until a function is called: there the process is killed."""

  def killed(*_):
    raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(owner, name, killed)
    with pytest.raises(KeyboardInterrupt):
      save(workdir, scores)


def test_what_a_killed_save_left_is_cleared_away(workdir, capsys):
  folder = workdir / "checkpoints"
  (folder / "5.orbax-checkpoint-tmp").mkdir()
  save_and_die(workdir, {4: None}, integrity, "save")
  assert (folder / "4").is_dir()
  # Scoring the best meanwhile is possible.
  assert best(workdir) == 1
  assert checkpoint.latest_step(workdir) == 3
  assert "4: was not finished" in capsys.readouterr().err
  assert {p.name for p in folder.iterdir()} == {"1", "2", "3"}
  # At the first save of a run there is nothing else: it starts again.
  for step in SCORES:
    shutil.rmtree(folder / str(step))
  save_and_die(workdir, {4: None}, integrity, "save")
  assert checkpoint.latest_step(workdir) is None


def test_a_killed_removal_does_not_pass_for_damage(workdir, capsys):
  """Killed after the manifest of step 2, the oldest that is not the best."""
  save_and_die(workdir, {4: 0.6}, type(epath.Path(workdir)), "rmtree")
  assert (workdir / "checkpoints" / "2").is_dir()
  assert best(workdir) == 1
  assert checkpoint.latest_step(workdir) == 4
  assert "damaged" not in capsys.readouterr().err
  assert not (workdir / "checkpoints" / "2").exists()


def test_verify_prints_a_line_per_step(workdir, capsys):
  verify(workdir)
  assert capsys.readouterr().out.splitlines()[0] == "1: ok, dev F1 0.9000"
  name = names(workdir, 2)[-1]
  damage(workdir, 2, name, "truncate", random.Random(0))
  with pytest.raises(UserError, match="checkpoints: 1 damaged$"):
    verify(workdir)
  _, line, _ = capsys.readouterr().out.splitlines()
  assert line.startswith(f"2: damaged: {name}")
  shutil.rmtree(workdir / "checkpoints")
  with pytest.raises(UserError, match="checkpoints: no checkpoints$"):
    verify(workdir)


def test_files_are_whole_or_as_before(tmp_path):
  path, said = tmp_path / "config.json", r"config.json: .*\(File too large\)"
  files.write(path, "old")
  with full_disk(2), pytest.raises(UserError, match=said):
    files.write(path, "new text")
  assert path.read_text() == "old"

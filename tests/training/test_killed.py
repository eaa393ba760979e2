"""Runs that are killed, and runs that several processes take over."""

import functools
import inspect
import os
import random
import shutil
import time

import pytest

from mner_jax.cli import EXIT_STOPPED
from mner_jax.data import manifest
from tests.conftest import LONG
from tests.training import conftest as runs
from tests.training.conftest import start, steps


def here(function, *arguments):
  """Python that a process of its own executes: function(patch, *arguments)."""
  call = f"{function.__name__}(pytest.MonkeyPatch(), *{arguments!r})"
  return f"import pytest\n\n{inspect.getsource(function)}\n{call}\n"


# (kills, epochs, store).
KILLED = [(1, 8, ""), LONG((20, 80, "")), LONG((1, 8, "gs://bucket"))]


@pytest.mark.parametrize("case", KILLED)
def test_killed_at_random_moments(
  small_config, train, undisturbed, tmp_path, capsys, monkeypatch, case
):
  """SIGKILL while starting, or up to half a second after some save began."""
  kills, epochs, store = case
  rng = random.Random(os.environ.get("MNER_SEED", 6))
  workdir, before = tmp_path / "bucket" / "run", ""
  if store:
    runs.bucket(monkeypatch, str(tmp_path))
    before = here(runs.bucket, str(tmp_path))
  place = f"{store or workdir.parent}/run"
  arguments = place, f"--config.train.epochs={epochs}"
  reached = [0]
  for kill in range(kills):
    process = start(small_config, *arguments, before=before)
    if kill % 5 == 4:
      time.sleep(rng.uniform(0, 10))
    else:
      while process.poll() is None and steps(workdir)[-1:] <= reached[-1:]:
        time.sleep(0.001)
      # A fast machine may have come to the end.
      assert not process.poll(), process.communicate()
      time.sleep(rng.uniform(0, 0.5))
    process.kill()
    process.communicate()
    reached.append(max(steps(workdir), default=0))
  err = train(*arguments, check=True).stderr
  with capsys.disabled():
    print(f" killed after steps {reached[1:]}", end="")
  runs.assert_same(workdir, undisturbed(epochs))
  assert "damaged" not in err
  assert not (workdir / "checkpoints_damaged").exists()


@pytest.mark.slow
def test_stopped_and_started_again_equals_one_go(shared_run, tmp_path):
  """With pictures; the second start reads what the first compiled."""
  folder, stopped = shared_run("images"), tmp_path / "run"

  def run(*arguments):
    kept = f"--compilation_cache={tmp_path / 'kept'}"
    process = start(folder / "tiny.py", stopped, kept, *arguments)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return err

  def programs():
    return {x.name for x in (tmp_path / "kept").glob("*train_step*")}

  run("--stop_at=11")
  assert steps(stopped)[-1] == 11
  first = programs()
  assert "going on after step 11" in run()
  assert first and programs() == first
  runs.assert_same(stopped, folder / "run")


@pytest.mark.slow
def test_two_processes_go_on_and_stop_together(small_config, train, tmp_path):
  """8 devices, one, then 2 x 2; SIGTERM to one of the two processes: both save.

  One of the files is damaged, and only the second process hashes it: both
  go back to the same step.
  """
  places = (tmp_path / name for name in ("run", "alone", "stopped"))
  workdir, alone, stopped = places
  pair = functools.partial(runs.pod, small_config, devices=2, before=("", ""))
  ((code, _, err),) = pair(workdir, "--stop_at=8", devices=8, before=("",))
  assert code == 0, err
  step = workdir / "checkpoints" / "8"
  name = sorted(manifest.load(step)[0]["files"])[1]
  (step / name).write_bytes((step / name).read_bytes() + b"x")
  shutil.copytree(workdir, alone)
  shutil.copytree(workdir, stopped)
  arguments = ("--stop_at=12", "--config.train.log_every=3")
  train(alone, *arguments, check=True)
  ends = pair(workdir, *arguments)
  assert [code for code, _, _ in ends] == [0, 0], ends
  assert f"8: damaged: {name} has changed" in ends[0][2]
  got, want = map(runs.losses, (workdir, alone))
  assert max(got) == max(want) == 12
  # What differs by rounding grows: only the first losses are compared.
  for step in (6, 9):
    assert got[step] == pytest.approx(want[step], rel=1e-5), step

  sent = here(runs.signalled, "sharding.put_batch", 5, 15)
  ends = pair(stopped, *arguments, before=("", sent))
  assert [code for code, _, _ in ends] == [EXIT_STOPPED] * 2, ends
  # It came in step 9; they agree at every third.
  assert all("stopped at step 9;" in out for _, out, _ in ends), ends
  assert steps(stopped)[-1] == 9
  for code, _, err in pair(stopped, *arguments):
    assert code == 0, err
  name = "metrics.jsonl"
  assert (stopped / name).read_bytes() == (workdir / name).read_bytes()
  # One process hashes all files of the two.
  assert runs.array_bytes(stopped) == runs.array_bytes(workdir)

"""Runs that are stopped or starved end with the bytes of one that ran.

They run in this process, on its first device.
"""

import contextlib
import json
import re
import signal

import numpy as np
import pytest

from mner_jax import checkpoint
from mner_jax.cli import EXIT_STOPPED
from mner_jax.data import batches
from mner_jax.training import run as running
from tests.conftest import LONG, full_disk
from tests.training import conftest as runs
from tests.training.conftest import assert_same, lines, steps

# How the lines begin that describe the data and the progress of a run.
START = r"compiling |  |{'tra|(train|valid|test): |step |build"


def error_line(err):
  """The one line about the end of a run, after those of its start."""
  found = [line for line in err.splitlines() if not re.match(START, line)]
  assert len(found) == 1, err
  return found[0]


# Which call of which function the signal comes with.
MOMENTS = {
  "compiling": ("training.step.losses", 1, signal.SIGTERM),
  "stepping": ("sharding.put_batch", 3, signal.SIGINT),
  "evaluating": ("evaluation.evaluate.Evaluator.emissions", 1, signal.SIGTERM),
  "saving": ("data.manifest.hashes", 2, signal.SIGTERM),
  "sealing": ("data.manifest.save", 3, signal.SIGINT),
  "the last save": ("checkpoint.Saver.save", 1, signal.SIGTERM),
  "scoring test": ("evaluation.evaluate.evaluate", 1, signal.SIGTERM),
}
SOME = "stepping", "evaluating", "scoring test"


@pytest.mark.parametrize(
  "store, moments", [("gs://bucket", SOME), LONG("", tuple(MOMENTS))]
)
def test_stopped_at_each_kind_of_moment(
  train, undisturbed, tmp_path, monkeypatch, store, moments
):
  """SIGTERM or Ctrl-C: saved, exit code 75, and the same end later."""
  workdir = tmp_path / "bucket" / "run"
  place = f"{store}/run" if store else workdir
  if store:
    runs.bucket(monkeypatch, str(tmp_path))
  for moment in moments:
    with pytest.MonkeyPatch.context() as patch:
      runs.signalled(patch, *MOMENTS[moment])
      code, out, err = train(place)
    assert code == EXIT_STOPPED, (moment, out, err)
    last = steps(workdir)[-1]
    assert not (workdir / "checkpoints" / "saving.json").exists()
    assert lines(workdir)[-1]["step"] == last
    if moment in ("the last save", "scoring test"):
      assert last == runs.TOTAL
    else:
      assert f"stopped at step {last};" in out, moment
    if moment == "evaluating":
      # Saved without a score; it is evaluated again.
      assert last == 8 and checkpoint.score(workdir, last) is None
  (workdir / "checkpoints" / str(last) / "manifest.json").write_text("{")
  assert "moved to" in train(place, check=True).stderr
  assert_same(workdir, undisturbed())


def test_a_full_disk_is_one_line(train, undisturbed, tmp_path, monkeypatch):
  """It costs no earlier checkpoint, and its time is counted."""
  workdir = tmp_path / "run"
  assert train(workdir, "--stop_at=4")[0] == 0
  before = json.loads((workdir / "run.json").read_text())["seconds"]
  save = checkpoint.Saver.save
  with contextlib.ExitStack() as stack, monkeypatch.context() as patch:

    def full(*args):
      # Too little for the arrays of a step, enough for a line of the logs.
      stack.enter_context(full_disk(20_000))
      save(*args)

    patch.setattr(checkpoint.Saver, "save", full)
    patch.setattr("pwd.getpwuid", None)  # a container's user may have no name
    code, _, err = train(workdir)
  assert code == 2, err
  assert json.loads((workdir / "run.json").read_text())["seconds"] > before
  assert error_line(err).endswith(
    "checkpoints/8: cannot be saved (File too large); what was saved before is"
    " untouched, the same command goes on from there"
  )
  assert "going on after step 4" in train(workdir, check=True).stderr
  assert_same(workdir, undisturbed())


def test_two_runs_in_one_workdir(train, tmp_path):
  with running.lock(tmp_path / "run"):
    code, _, err = train(tmp_path / "run")
  assert code == 2
  assert len(err.splitlines()) == 1 and "another process trains" in err


def test_batches_that_are_not_finite(train, tmp_path, monkeypatch):
  """Batches 5 and 20 are: one too many, also for the next run, then both out."""
  rows = batches.Examples.rows

  def poisoned(self, length, ids, seed=None):
    batch = rows(self, length, ids, seed)
    if seed is not None and seed[1] in (5, 20):
      batch["weight"][:] = np.nan
    return batch

  monkeypatch.setattr(batches.Examples, "rows", poisoned)
  workdir = tmp_path / "run"
  for allowed in (1, 0):
    code, _, err = train(workdir, f"--config.train.skip_nonfinite={allowed}")
    assert code == 2, err
    line = error_line(err)
    assert "step 21: crf is not finite (1 skipped before)" in line
    assert "train.txt:" in line and "windows [" in line
    # What was being saved meanwhile is there.
    assert steps(workdir)[-1] == 20
  train(workdir, "--config.train.skip_nonfinite=2", check=True)
  found = lines(workdir)
  bad = [line for line in found if "skipped" in line]
  assert bad == [{"step": s, "skipped": "crf"} for s in (6, 21)]
  logged = [line["step"] for line in found if "valid_f1" not in line]
  assert logged == list(range(1, runs.TOTAL + 1))

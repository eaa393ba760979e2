"""Runs that are stopped or starved end with the bytes of one that ran.

They run in this process, on its first device.
"""

import resource
import signal

import numpy as np
import pytest

from mner_jax import checkpoint
from mner_jax.cli import EXIT_STOPPED
from mner_jax.data import batches
from mner_jax.training import run as running
from tests.training.conftest import (
  TOTAL,
  assert_same,
  bucket,
  lines,
  signalled,
  steps,
)

# How the lines begin that describe the data and the progress of a run.
START = (
  "compiling ",
  "  ",
  "{'tra",
  "train: ",
  "valid: ",
  "test: ",
  "step ",
  "build",
)


def error_line(err):
  """The one line about the end of a run, after those of its start."""
  lines = [line for line in err.splitlines() if not line.startswith(START)]
  assert len(lines) == 1, err
  return lines[0]


# Which call of which function the signal comes with.
MOMENTS = {
  "compiling": ("training.step.losses", 1, signal.SIGTERM),
  "stepping": ("sharding.put_batch", 3, signal.SIGINT),
  "evaluating": ("evaluation.evaluate.Evaluator.emissions", 1, signal.SIGTERM),
  "saving": ("data.manifest.hashes", 2, signal.SIGTERM),
  "sealing": ("data.manifest.save", 3, signal.SIGINT),
  "scoring test": ("evaluation.evaluate.evaluate", 1, signal.SIGTERM),
}


SOME = ("stepping", "evaluating", "scoring test")


@pytest.mark.parametrize(
  "store, moments",
  [
    ("gs://bucket", SOME),
    pytest.param("", tuple(MOMENTS), marks=pytest.mark.slow),
  ],
)
def test_stopped_at_each_kind_of_moment(
  train, undisturbed, tmp_path, monkeypatch, store, moments
):
  """SIGTERM or Ctrl-C: saved, exit code 75, and the same end later."""
  workdir = tmp_path / "bucket" / "run"
  place = f"{store}/run" if store else workdir
  if store:
    bucket(monkeypatch, str(tmp_path))
  for moment in moments:
    with pytest.MonkeyPatch.context() as patch:
      signalled(patch, *MOMENTS[moment])
      code, out, err = train(place)
    assert code == EXIT_STOPPED, (moment, out, err)
    last = steps(workdir)[-1]
    assert not (workdir / "checkpoints" / "saving.json").exists()
    assert lines(workdir)[-1]["step"] == last
    if moment == "scoring test":
      assert last == TOTAL
    else:
      assert f"stopped at step {last};" in out, moment
    if moment == "evaluating":
      # Saved without a score; it is evaluated again.
      assert last == 8 and checkpoint.score(workdir, last) is None
  code, _, err = train(place)
  assert code == 0, err
  assert_same(workdir, undisturbed())


def test_a_full_disk_is_one_line_and_costs_no_checkpoint(
  train, undisturbed, tmp_path, monkeypatch
):
  """The limit on the size of files stands for a disk that fills up."""
  workdir = tmp_path / "run"
  assert train(workdir, "--stop_at=4")[0] == 0
  save = checkpoint.Saver.save
  before = resource.getrlimit(resource.RLIMIT_FSIZE)

  def full(*args):
    # Too little for the arrays of a step, enough for a line of the logs.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    save(*args)

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.Saver, "save", full)
    try:
      code, _, err = train(workdir)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert code == 2, err
  assert error_line(err).endswith(
    "checkpoints/8: cannot be saved (File too large); what was saved before is"
    " untouched, the same command goes on from there"
  )
  code, _, err = train(workdir)
  assert code == 0 and "going on after step 4" in err
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
  code, _, err = train(workdir, "--config.train.skip_nonfinite=2")
  assert code == 0, err
  found = lines(workdir)
  bad = [line for line in found if "skipped" in line]
  assert bad == [{"step": s, "skipped": "crf"} for s in (6, 21)]
  logged = [line["step"] for line in found if "valid_f1" not in line]
  assert logged == list(range(1, TOTAL + 1))

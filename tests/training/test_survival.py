"""Runs that are killed, stopped or starved end with the bytes of one that ran.

Most are run in this process, on its first device; those that are killed, and
several processes of one run, are processes of their own.
"""

import functools
import inspect
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mner_jax import checkpoint, sharding
from mner_jax.cli import EXIT_STOPPED
from mner_jax.data import batches, manifest
from mner_jax.training import run as running
from tests.conftest import TEXT_ONLY
from tests.training.test_loop import (
  ROOT,
  arrays,
  command,
  environment,
  experiment,
  write_config,
  write_corpus,
)

# One program to compile, and a save at every fourth step.
SMALL = TEXT_ONLY | {
  "data.buckets": (24,),
  "train.batch_size": 8,
  "train.epochs": 8,
  "train.checkpoint_every": 4,
}
TOTAL = 24  # steps, three an epoch
AND_TRAIN = """
import runpy
runpy.run_path("train.py", run_name="__main__")
"""

# How the lines begin that describe the data and the progress of a run.
START = ("first", "{'tra", "train: ", "valid: ", "test: ", "step ", "build")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("survival")
  write_corpus(folder / "data")
  return write_config(folder / "small.py", experiment(folder, SMALL))


@pytest.fixture(scope="module")
def train(config):
  """Returns a function (workdir, *arguments) -> (exit code, out, err)."""

  def train(workdir, *arguments):
    given = (f"--config={config}", f"--workdir={workdir}", *arguments)
    result = command("train.py", *given)
    return result.returncode, result.stdout, result.stderr

  return train


@pytest.fixture(scope="module")
def start(config):
  """Returns a function (workdir, *arguments) -> a process of train.py."""

  def start(workdir, *arguments, before="", **more):
    """`before`: Python that is executed before train.py."""
    words = [sys.executable, "-c", before + AND_TRAIN, f"--config={config}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
      [*words, f"--workdir={workdir}", *arguments],
      env={**environment(), **more},
      cwd=ROOT,
      **pipes,
    )

  return start


def finish(process):
  out, err = process.communicate(timeout=300)
  assert process.returncode == 0, err
  return out, err


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory):
  """Returns a function (epochs) -> the workdir of a whole run."""

  @functools.cache
  def run(epochs=8):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    code, _, err = train(workdir, f"--config.train.epochs={epochs}")
    assert code == 0, err
    return workdir

  return run


def steps(workdir):
  names = [p.name for p in (workdir / "checkpoints").glob("*")]
  return sorted(int(name) for name in names if name.isdecimal())


def error_line(err):
  """The one line about the end of a run, after those of its start."""
  lines = [line for line in err.splitlines() if not line.startswith(START)]
  assert len(lines) == 1, err
  return lines[0]


def lines(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def assert_same(workdir, wanted):
  for name in ("config.json", "metrics.jsonl", "test_metrics.json"):
    assert (workdir / name).read_bytes() == (wanted / name).read_bytes(), name
  for got, want in zip(arrays(workdir), arrays(wanted), strict=True):
    assert got.tobytes() == want.tobytes()
  assert not list((workdir / "checkpoints").glob("*tmp*"))
  assert not (workdir / "checkpoints" / "saving.json").exists()


@pytest.mark.parametrize(
  "kills, epochs", [(1, 8), pytest.param(20, 80, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments(
  start, undisturbed, tmp_path, capsys, kills, epochs
):
  """SIGKILL while starting, or up to half a second after some save began."""
  workdir, rng = tmp_path / "run", random.Random(os.environ.get("MNER_SEED", 6))
  arguments = (workdir, f"--config.train.epochs={epochs}")
  wanted = undisturbed(epochs)
  reached = [0]
  for kill in range(kills):
    process = start(*arguments)
    if kill % 5 == 4:
      time.sleep(rng.uniform(0, 10))
    else:
      while max(steps(workdir), default=0) <= reached[-1]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
      time.sleep(rng.uniform(0, 0.5))
    process.kill()
    process.communicate()
    reached.append(max(steps(workdir), default=0))
  _, err = finish(start(*arguments))
  with capsys.disabled():
    print(f" killed after steps {reached[1:]}", end="")
  assert_same(workdir, wanted)
  assert "damaged" not in err
  assert not (workdir / "checkpoints_damaged").exists()


# Which call of which function the signal comes with.
MOMENTS = {
  "compiling": ("training.step.losses", 1, signal.SIGTERM),
  "stepping": ("sharding.put_batch", 3, signal.SIGINT),
  "evaluating": ("evaluation.evaluate.Evaluator.emissions", 1, signal.SIGTERM),
  "saving": ("data.manifest.hashes", 2, signal.SIGTERM),
  "sealing": ("data.manifest.save", 3, signal.SIGINT),
  "scoring test": ("evaluation.evaluate.evaluate", 1, signal.SIGTERM),
}


def signalled(patch, path, call, number):
  """Sends this process a signal at the given call of a function."""
  import os
  import pkgutil

  owner, _, name = path.rpartition(".")
  owner = pkgutil.resolve_name(f"mner_jax.{owner}")
  function, calls = getattr(owner, name), []

  def wrapped(*args, **kwargs):
    calls.append(1)
    if len(calls) == call:
      os.kill(os.getpid(), number)
    return function(*args, **kwargs)

  patch.setattr(owner, name, wrapped)


def test_stopped_at_each_kind_of_moment(train, undisturbed, tmp_path):
  """SIGTERM or Ctrl-C: saved, exit code 75, and the same end later."""
  workdir = tmp_path / "run"
  for moment, sent in MOMENTS.items():
    with pytest.MonkeyPatch.context() as patch:
      signalled(patch, *sent)
      code, out, err = train(workdir)
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
  code, _, err = train(workdir)
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
  """Batches 5 and 20 are: stopped at, left out, one too many, both."""
  rows = batches.Examples.rows

  def poisoned(self, length, ids, seed=None):
    batch = rows(self, length, ids, seed)
    if seed is not None and seed[1] in (5, 20):
      batch["weight"][:] = np.nan
    return batch

  monkeypatch.setattr(batches.Examples, "rows", poisoned)
  workdir = tmp_path / "run"
  second = "step 21: crf is not finite (1 skipped before)"
  # The third time it goes on after the one that was left out.
  for count, expected in [(0, "step 6: crf"), (1, second), (1, second)]:
    code, _, err = train(workdir, f"--config.train.skip_nonfinite={count}")
    assert code == 2, err
    line = error_line(err)
    assert expected in line and "train.txt:" in line and "windows [" in line
    # What was being saved meanwhile is there.
    assert steps(workdir)[-1] == (20 if count else 4)
  code, _, err = train(workdir, "--config.train.skip_nonfinite=2")
  assert code == 0, err
  found = lines(workdir)
  bad = [line for line in found if "skipped" in line]
  assert bad == [{"step": s, "skipped": "crf"} for s in (6, 21)]
  logged = [line["step"] for line in found if "valid_f1" not in line]
  assert logged == list(range(1, TOTAL + 1))


def test_a_data_folder_that_goes_away_is_one_line(train, tmp_path, monkeypatch):
  """What is open is read to the end; the test split is not found any more."""
  write_corpus(tmp_path / "data")
  put = sharding.put_batch

  def gone(*args):
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    return put(*args)

  monkeypatch.setattr(sharding, "put_batch", gone)
  code, _, err = train(
    tmp_path / "run",
    f"--config.data.path={tmp_path / 'data'}",
    f"--config.data.cache_dir={tmp_path / 'cache'}",
  )
  assert code == 2, err
  expected = f"data.path: {tmp_path / 'data'} is not a folder"
  assert expected in error_line(err)
  assert checkpoint.latest_step(tmp_path / "run") == TOTAL


def bucket(patch, root):
  """Makes gs:// a local folder, without what a bucket store has not: append."""
  import importlib

  import fsspec
  from fsspec.implementations.dirfs import DirFileSystem
  from orbax.checkpoint._src.path import gcs_utils

  class Bucket(DirFileSystem):
    protocol = ("gs", "gcs")

    def __init__(self, **_):
      local = fsspec.filesystem("file", auto_mkdir=True)
      super().__init__(root, local, skip_instance_cache=True)

    @classmethod
    def _strip_protocol(cls, path):
      return str(path).removeprefix("gs://").rstrip("/")

    def _join(self, path):
      if isinstance(path, str):
        path = self._strip_protocol(path)
      return super()._join(path)

    def open(self, path, mode="rb", **options):
      if "a" in mode:
        raise NotImplementedError("append")
      return super().open(path, mode=mode, **options)

    def listdir(self, path, detail=True, **options):
      return self.ls(path, detail=detail)

  def store(path):
    path = path.removeprefix("gs://")
    return {"driver": "file", "path": f"{root}/{path}"}

  registry = importlib.import_module("fsspec.registry")
  for name in Bucket.protocol:
    patch.setitem(registry._registry, name, Bucket)
  # The arrays are written by tensorstore, not by fsspec.
  patch.setattr(gcs_utils, "get_kvstore_for_gcs", store)


def test_a_run_in_a_bucket(train, undisturbed, tmp_path, monkeypatch):
  """Stopped and started again, it leaves what a local one does."""
  bucket(monkeypatch, str(tmp_path))
  code, _, err = train("gs://bucket/run", "--stop_at=10")
  assert code == 0, err
  code, _, err = train("gs://bucket/run")
  assert code == 0 and "going on after step 10" in err
  assert_same(tmp_path / "bucket/run", undisturbed())


def here(function, *arguments):
  """Python that a process of its own executes: function(patch, *arguments)."""
  call = f"{function.__name__}(pytest.MonkeyPatch(), *{arguments!r})"
  return f"import pytest\n\n{inspect.getsource(function)}\n{call}\n"


@pytest.mark.slow
def test_a_workdir_in_a_bucket(start, undisturbed, tmp_path):
  """Killed after a save and started again, it leaves what a local one does."""
  before = here(bucket, str(tmp_path))
  process = start("gs://bucket/run", before=before)
  while not (tmp_path / "bucket/run/checkpoints/12/manifest.json").exists():
    assert process.poll() is None, process.communicate()
    time.sleep(0.01)
  process.kill()
  process.communicate()
  _, err = finish(start("gs://bucket/run", before=before))
  assert "going on after step" in err
  assert_same(tmp_path / "bucket/run", undisturbed())


def pair(start, workdir, *arguments, before=("", "")):
  """Two processes of one run, two devices each: [(exit code, out, err)]."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
  common = [address, "--num_processes=2", *arguments]
  devices = {"JAX_NUM_CPU_DEVICES": "2"}
  processes = [
    start(workdir, *common, f"--process_id={i}", before=code, **devices)
    for i, code in enumerate(before)
  ]
  said = [process.communicate(timeout=300) for process in processes]
  return [(p.returncode, *x) for p, x in zip(processes, said, strict=True)]


def losses(workdir):
  return {x["step"]: x["loss"] for x in lines(workdir) if "loss" in x}


@pytest.mark.slow
def test_two_processes_go_on_with_one_and_stop_together(
  start, undisturbed, tmp_path
):
  """One device -> 2 x 2 devices; SIGTERM to one of the two: both save."""
  workdir, stopped = tmp_path / "run", tmp_path / "stopped"
  finish(start(workdir, "--stop_at=10"))
  shutil.copytree(workdir, stopped)
  arguments = ("--stop_at=21", "--config.train.log_every=3")
  for code, _, err in pair(start, workdir, *arguments):
    assert code == 0, err
  got, want = losses(workdir), losses(undisturbed())
  assert max(got) == 21
  for step, loss in got.items():
    # What differs by rounding grows: only the first losses are compared.
    if step <= 15:
      assert loss == pytest.approx(want[step], rel=1e-5), step
  sent = here(signalled, "sharding.put_batch", 4, 15)
  ends = pair(start, stopped, *arguments, before=("", sent))
  assert [code for code, _, _ in ends] == [EXIT_STOPPED] * 2, ends
  # It came in step 14; they agree at every third.
  assert all("stopped at step 15;" in out for _, out, _ in ends), ends
  assert steps(stopped)[-1] == 15
  for code, _, err in pair(start, stopped, *arguments):
    assert code == 0, err
  name = "metrics.jsonl"
  assert (stopped / name).read_bytes() == (workdir / name).read_bytes()
  for x, y in zip(arrays(stopped), arrays(workdir), strict=True):
    assert x.tobytes() == y.tobytes()


def restored(patch, path):
  """Saves the parameters that a run goes on with."""
  import jax
  import numpy as np

  from mner_jax import checkpoint

  restore = checkpoint.restore

  def seen(*args):
    state = restore(*args)
    np.savez(path, *map(np.asarray, jax.tree.leaves(state.params)))
    return state

  patch.setattr(checkpoint, "restore", seen)


@pytest.mark.slow
def test_two_processes_take_over_from_eight_devices(start, tmp_path):
  """(8, 1, 1) -> 2 x 2 devices: the parameters are equal, the losses too.

  One of the files is damaged, and only the second process hashes it: both
  go back to the same step.
  """
  workdir, alone = tmp_path / "run", tmp_path / "alone"
  finish(start(workdir, "--stop_at=8", JAX_NUM_CPU_DEVICES="8"))
  step = workdir / "checkpoints" / "8"
  name = sorted(manifest.load(step)[0]["files"])[1]
  (step / name).write_bytes((step / name).read_bytes() + b"x")
  shutil.copytree(workdir, alone)
  paths = [str(tmp_path / f"{name}.npz") for name in ("0", "1", "alone")]
  codes = [here(restored, path) for path in paths]
  finish(start(alone, "--stop_at=7", before=codes[2]))
  ends = pair(start, workdir, "--stop_at=7", before=codes[:2])
  assert [code for code, _, _ in ends] == [0, 0], ends
  assert f"8: damaged: {name} has changed" in ends[0][2]
  first, second, want = (np.load(path) for path in paths)
  assert want.files
  for name in want.files:
    np.testing.assert_array_equal(first[name], want[name])
    np.testing.assert_array_equal(second[name], want[name])
  got, want = losses(workdir), losses(alone)
  assert max(got) == max(want) == 7
  for step in (5, 6, 7):
    assert got[step] == pytest.approx(want[step], rel=1e-5), step

"""Runs that are killed, stopped or starved end with the bytes of one that ran.

MNER_KILLS=20 kills the run twenty times instead of five.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mner_jax import checkpoint, files
from mner_jax.training.stopping import EXIT_STOPPED
from tests.conftest import TEXT_ONLY
from tests.training.test_loop import (
  ROOT,
  arrays,
  environment,
  experiment,
  write_config,
  write_corpus,
)

KILLS = int(os.environ.get("MNER_KILLS", "5"))
TOTAL = 60 * max(1, KILLS // 5)  # steps, five an epoch
# One program to compile, and a save at every other step.
SMALL = TEXT_ONLY | {
  "data.buckets": (24,),
  "train.epochs": TOTAL // 5,
  "train.checkpoint_every": 2,
}


AND_TRAIN = """
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


# How the lines begin that say what is trained, and how a run is getting on.
START = ("{'tra", "train: ", "valid: ", "test: ", "step ", "build")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  """Returns a function (workdir, *arguments) -> a train.py that runs."""
  folder = tmp_path_factory.mktemp("survival")
  write_corpus(folder / "data")
  config = write_config(folder / "small.py", experiment(folder, SMALL))
  variables = {
    **environment(),
    # A run that is started again must not spend its time compiling.
    "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }

  def start(workdir, *arguments, before="", **more):
    """`before`: Python that is executed before train.py."""
    return subprocess.Popen(
      [
        sys.executable, "-c", before + AND_TRAIN, f"--config={config}",
        f"--workdir={workdir}", *arguments,
      ],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      env={**variables, **more}, cwd=ROOT,
    )  # fmt: skip

  return start


def finish(process):
  out, err = process.communicate(timeout=300)
  assert process.returncode == 0, err
  return out, err


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
  """(workdir, seconds until the first save and to the end) of a whole run."""
  first = tmp_path_factory.mktemp("first") / "run"
  finish(start(first))  # fills the compilation cache
  workdir = tmp_path_factory.mktemp("undisturbed") / "run"
  begin = time.monotonic()
  process = start(workdir)
  while not (workdir / "checkpoints" / "2").exists():
    time.sleep(0.01)
  saved = time.monotonic() - begin
  finish(process)
  return workdir, saved, time.monotonic() - begin


def error_line(err):
  """The one line about the end of a run, after those of its start."""
  lines = [line for line in err.splitlines() if not line.startswith(START)]
  assert len(lines) == 1, err
  return lines[0]


def assert_same(workdir, wanted):
  for name in ("config.json", "metrics.jsonl", "test_metrics.json"):
    assert (workdir / name).read_bytes() == (wanted / name).read_bytes(), name
  for got, want in zip(arrays(workdir), arrays(wanted), strict=True):
    assert got.tobytes() == want.tobytes()
  assert not list((workdir / "checkpoints").glob("*tmp*"))


def test_killed_at_random_moments(start, undisturbed, tmp_path, capsys):
  """SIGKILL, by the clock: while starting, stepping, evaluating, saving."""
  wanted, saved, whole = undisturbed
  workdir, rng = tmp_path / "run", random.Random(os.environ.get("MNER_SEED", 6))
  reached = []
  for _ in range(KILLS):
    process = start(workdir)
    # Mostly after its first save, and not too many of them at the end.
    time.sleep(rng.uniform(0.9 * saved, saved + (whole - saved) / KILLS))
    process.kill()
    process.communicate()
    steps = (workdir / "checkpoints").glob("[0-9]*[0-9]")
    reached.append(max((int(p.name) for p in steps), default=0))
  _, err = finish(start(workdir))
  with capsys.disabled():
    print(f" killed after steps {reached}", end="")
  assert_same(workdir, wanted)
  assert "damaged" not in err
  assert not (workdir / "checkpoints_damaged").exists()


# What calls which function when the signal comes: {moment: (module, name, call)}
MOMENTS = {
  "compiling": ("mner_jax.training.step", "losses", 1),
  "stepping": ("mner_jax.sharding", "put_batch", 3),
  "evaluating": ("mner_jax.evaluation.evaluate.Evaluator", "emissions", 1),
  "saving": ("mner_jax.integrity", "write_manifest", 2),
  "scoring test": ("mner_jax.evaluation.evaluate", "evaluate", 1),
}
SIGNALLED = """
import os, pkgutil, signal
owner = pkgutil.resolve_name({module!r})
function, calls = getattr(owner, {name!r}), []

def signalled(*args, **kwargs):
  calls.append(1)
  if len(calls) == {call}:
    os.kill(os.getpid(), signal.SIGTERM)
  return function(*args, **kwargs)

setattr(owner, {name!r}, signalled)
"""


def test_stopped_at_each_kind_of_moment(start, undisturbed, tmp_path):
  """SIGTERM while compiling, stepping, ... : saved, exit code 75, same end."""
  wanted, _, _ = undisturbed
  workdir = tmp_path / "run"
  for moment, (module, name, call) in MOMENTS.items():
    before = SIGNALLED.format(module=module, name=name, call=call)
    process = start(workdir, before=before)
    out, err = process.communicate(timeout=300)
    assert process.returncode == EXIT_STOPPED, (moment, out, err)
    steps = (workdir / "checkpoints").glob("[0-9]*")
    last = max(int(p.name) for p in steps)
    if moment == "scoring test":
      assert last == TOTAL
    else:
      assert f"stopped at step {last};" in out, moment
    if moment == "evaluating":
      # Saved without a score; it is evaluated again.
      assert last == 8
      manifest = workdir / "checkpoints" / str(last) / "manifest.json"
      assert json.loads(manifest.read_text())["f1"] is None
  finish(start(workdir))
  assert_same(workdir, wanted)


def test_a_full_disk_is_one_line_and_costs_no_checkpoint(
  start, undisturbed, tmp_path
):
  """The limit on the size of files stands for a disk that fills up."""
  wanted, _, _ = undisturbed
  workdir = tmp_path / "run"
  finish(start(workdir, "--stop_at=4"))
  before = """
import resource, signal
from mner_jax import checkpoint
save = checkpoint.save

def full(*args):
  # Too little for the arrays of a step, enough for a line of the logs.
  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
  save(*args)

checkpoint.save = full
"""
  process = start(workdir, before=before)
  _, err = process.communicate(timeout=300)
  assert process.returncode == 2, err
  assert error_line(err).endswith(
    "checkpoints/6: cannot be saved (File too large); what was saved before is"
    " untouched, the same command goes on from there"
  )
  _, err = finish(start(workdir))
  assert "going on after step 4" in err
  assert_same(workdir, wanted)


def test_no_place_to_write_is_one_line(start):
  process = start("/proc/nowhere/run")
  _, err = process.communicate(timeout=300)
  assert process.returncode == 2
  assert len(err.splitlines()) == 1 and "cannot be written" in err


def test_two_runs_in_one_workdir(start, tmp_path):
  workdir = tmp_path / "run"
  workdir.mkdir()
  with files.lock(workdir):
    process = start(workdir)
    _, err = process.communicate(timeout=300)
  assert process.returncode == 2
  assert len(err.splitlines()) == 1 and "another process trains" in err


POISONED = """
import numpy
from mner_jax.data import batches
rows = batches.Examples.rows

def poisoned(self, length, ids, seed=None):
  batch = rows(self, length, ids, seed)
  if seed is not None and seed[1] in (5, 20):
    batch["weight"][:] = numpy.nan
  return batch

batches.Examples.rows = poisoned
"""


def test_batches_that_are_not_finite(start, tmp_path):
  """Batches 5 and 20 are: stopped at, left out, one too many, both."""
  workdir = tmp_path / "run"
  second = "step 21: crf is not finite (1 left out before)"
  # The third time it goes on after the one that was left out.
  for count, expected in [(0, "step 6: crf"), (1, second), (1, second)]:
    process = start(
      workdir, f"--config.train.skip_nonfinite={count}", before=POISONED
    )
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    said = error_line(err)
    assert expected in said and "train.txt:" in said and "windows [" in said
    steps = (workdir / "checkpoints").glob("[0-9]*")
    assert max(int(p.name) for p in steps) == (20 if count else 4)
  finish(start(workdir, "--config.train.skip_nonfinite=2", before=POISONED))
  text = (workdir / "metrics.jsonl").read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  bad = [line for line in lines if "skipped" in line]
  assert bad == [{"step": s, "skipped": "crf"} for s in (6, 21)]
  steps = [line["step"] for line in lines if "valid_f1" not in line]
  assert steps == list(range(1, TOTAL + 1))


BUCKET = """
import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from orbax.checkpoint._src.path import gcs_utils

class Bucket(DirFileSystem):
  # gs:// in a local folder, without what a bucket store cannot do: append.
  protocol = ("gs", "gcs")

  def __init__(self, **_):
    super().__init__({root!r}, fsspec.filesystem("file", auto_mkdir=True))

  @classmethod
  def _strip_protocol(cls, path):
    return str(path).removeprefix("gs://").rstrip("/")

  def _join(self, path):
    return super()._join(
      self._strip_protocol(path) if isinstance(path, str) else path
    )

  def open(self, path, mode="rb", **options):
    if "a" in mode:
      raise NotImplementedError("append")
    return super().open(path, mode=mode, **options)

  def listdir(self, path, detail=True, **options):
    return self.ls(path, detail=detail)

fsspec.register_implementation("gcs", Bucket, clobber=True)
fsspec.register_implementation("gs", Bucket, clobber=True)
# The arrays are written by tensorstore, not by fsspec.
gcs_utils.get_kvstore_for_gcs = lambda path: {{
  "driver": "file", "path": {root!r} + "/" + path.removeprefix("gs://")
}}
"""


def test_a_workdir_in_a_bucket(start, undisturbed, tmp_path):
  """Killed after a save and started again, it holds what a local one does."""
  wanted, _, _ = undisturbed
  before = BUCKET.format(root=str(tmp_path))
  process = start("gs://bucket/run", before=before)
  while not (tmp_path / "bucket/run/checkpoints/14/manifest.json").exists():
    assert process.poll() is None, process.communicate()
    time.sleep(0.01)
  process.kill()
  process.communicate()
  _, err = finish(start("gs://bucket/run", before=before))
  assert "going on after step" in err
  assert_same(tmp_path / "bucket/run", wanted)


def pair(start, workdir, *arguments, before=("", "")):
  """Two processes of one run, two devices each: [(exit code, out, err)]."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  processes = [
    start(
      workdir, f"--coordinator=127.0.0.1:{port}", "--num_processes=2",
      f"--process_id={i}", *arguments, before=code, JAX_NUM_CPU_DEVICES="2",
    )
    for i, code in enumerate(before)
  ]  # fmt: skip
  said = [process.communicate(timeout=300) for process in processes]
  return [(p.returncode, *x) for p, x in zip(processes, said, strict=True)]


def losses(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  return {x["step"]: x["loss"] for x in lines if "loss" in x}


def test_two_processes_go_on_with_one_and_stop_together(
  start, undisturbed, tmp_path
):
  """One device -> 2 x 2 devices; SIGTERM to one of the two: both save."""
  finish(start(tmp_path / "run", "--stop_at=10"))
  shutil.copytree(tmp_path / "run", tmp_path / "stopped")
  arguments = ("--stop_at=30", "--config.train.log_every=3")
  for code, _, err in pair(start, tmp_path / "run", *arguments):
    assert code == 0, err
  got, want = losses(tmp_path / "run"), losses(undisturbed[0])
  assert max(got) == 30
  for step, loss in got.items():
    # What differs by rounding grows: only the first losses are compared.
    if step <= 15:
      assert loss == pytest.approx(want[step], rel=1e-5), step
  signalled = SIGNALLED.format(module="mner_jax.sharding", name="put_batch",
                               call=4)  # fmt: skip
  workdir = tmp_path / "stopped"
  ends = pair(start, workdir, *arguments, before=("", signalled))
  assert [code for code, _, _ in ends] == [EXIT_STOPPED] * 2, ends
  # It came in step 14; they agree at every third.
  assert all("stopped at step 15;" in out for _, out, _ in ends), ends
  assert (workdir / "checkpoints" / "15").is_dir()
  for code, _, err in pair(start, workdir, *arguments):
    assert code == 0, err
  name = "metrics.jsonl"
  assert (workdir / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
  for x, y in zip(arrays(workdir), arrays(tmp_path / "run"), strict=True):
    assert x.tobytes() == y.tobytes()


RESTORED = """
import jax
import numpy as np
from mner_jax import checkpoint
restore = checkpoint.restore

def seen(*args):
  state = restore(*args)
  np.savez({path!r}, *map(np.asarray, jax.tree.leaves(state.params)))
  return state

checkpoint.restore = seen
"""


def test_two_processes_take_over_from_eight_devices(start, tmp_path):
  """(8, 1, 1) -> 2 x 2 devices: the parameters are equal, the losses too."""
  workdir, alone = tmp_path / "run", tmp_path / "alone"
  size = "--config.train.batch_size=8"
  finish(start(workdir, size, "--stop_at=4", JAX_NUM_CPU_DEVICES="8"))
  shutil.copytree(workdir, alone)
  paths = [str(tmp_path / f"{name}.npz") for name in ("0", "1", "alone")]
  codes = [RESTORED.format(path=path) for path in paths]
  finish(start(alone, size, "--stop_at=7", before=codes[2]))
  for code, _, err in pair(start, workdir, size, "--stop_at=7",
                           before=codes[:2]):  # fmt: skip
    assert code == 0, err
  first, second, want = (np.load(path) for path in paths)
  assert want.files
  for name in want.files:
    np.testing.assert_array_equal(first[name], want[name])
    np.testing.assert_array_equal(second[name], want[name])
  got, want = losses(workdir), losses(alone)
  assert max(got) == max(want) == 7
  for step in (5, 6, 7):
    assert got[step] == pytest.approx(want[step], rel=1e-5), step


def test_a_data_folder_that_goes_away_is_one_line(start, tmp_path):
  """What is open is read to the end; the test split is not found any more."""
  write_corpus(tmp_path / "data")
  before = f"""
import shutil
from mner_jax import sharding
put = sharding.put_batch

def gone(*args):
  shutil.rmtree({str(tmp_path / "data")!r}, ignore_errors=True)
  shutil.rmtree({str(tmp_path / "cache")!r}, ignore_errors=True)
  return put(*args)

sharding.put_batch = gone
"""
  process = start(
    tmp_path / "run", f"--config.data.path={tmp_path / 'data'}",
    f"--config.data.cache_dir={tmp_path / 'cache'}", before=before,
  )  # fmt: skip
  _, err = process.communicate(timeout=300)
  assert process.returncode == 2, err
  said = error_line(err)
  assert f"data.path: {tmp_path / 'data'} is not a folder" in said
  assert checkpoint.latest_step(tmp_path / "run") == TOTAL

"""Runs that are killed, and runs that several processes take over."""

import inspect
import os
import random
import shutil
import socket
import subprocess
import sys
import time

import pytest

from mner_jax.cli import EXIT_STOPPED
from mner_jax.data import manifest
from tests.training.conftest import (
  assert_same,
  bucket,
  lines,
  signalled,
  steps,
)
from tests.training.test_loop import ROOT, arrays, environment

AND_TRAIN = """
import runpy
runpy.run_path("train.py", run_name="__main__")
"""
LONG = pytest.mark.slow


@pytest.fixture(scope="module")
def start(small_config):
  """Returns a function (workdir, *arguments) -> a process of train.py."""

  def start(workdir, *arguments, before="", **more):
    """`before`: Python that is executed before train.py."""
    words = [sys.executable, "-c", before + AND_TRAIN]
    words += [f"--config={small_config}", f"--workdir={workdir}", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env=environment() | more, cwd=ROOT, **pipes)

  return start


def here(function, *arguments):
  """Python that a process of its own executes: function(patch, *arguments)."""
  call = f"{function.__name__}(pytest.MonkeyPatch(), *{arguments!r})"
  return f"import pytest\n\n{inspect.getsource(function)}\n{call}\n"


@pytest.mark.parametrize(
  "kills, epochs, store",
  [
    (1, 8, ""),
    pytest.param(20, 80, "", marks=LONG),
    pytest.param(1, 8, "gs://bucket", marks=LONG),
  ],
)
def test_killed_at_random_moments(
  start, train, undisturbed, tmp_path, capsys, monkeypatch, kills, epochs, store
):
  """SIGKILL while starting, or up to half a second after some save began."""
  rng = random.Random(os.environ.get("MNER_SEED", 6))
  workdir, before = tmp_path / "bucket" / "run", ""
  if store:
    bucket(monkeypatch, str(tmp_path))
    before = here(bucket, str(tmp_path))
  arguments = (
    f"{store or workdir.parent}/run",
    f"--config.train.epochs={epochs}",
  )
  reached = [0]
  for kill in range(kills):
    process = start(*arguments, before=before)
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
  code, _, err = train(*arguments)
  assert code == 0, err
  with capsys.disabled():
    print(f" killed after steps {reached[1:]}", end="")
  assert_same(workdir, undisturbed(epochs))
  assert "damaged" not in err
  assert not (workdir / "checkpoints_damaged").exists()


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
def test_two_processes_take_over_and_stop_together(start, train, tmp_path):
  """8 devices, one, then 2 x 2; SIGTERM to one of the two processes: both save.

  One of the files is damaged, and only the second process hashes it: both
  go back to the same step.
  """
  names = "run", "alone", "stopped"
  workdir, alone, stopped = (tmp_path / name for name in names)
  process = start(workdir, "--stop_at=8", JAX_NUM_CPU_DEVICES="8")
  _, err = process.communicate(timeout=300)
  assert process.returncode == 0, err
  step = workdir / "checkpoints" / "8"
  name = sorted(manifest.load(step)[0]["files"])[1]
  (step / name).write_bytes((step / name).read_bytes() + b"x")
  shutil.copytree(workdir, alone)
  shutil.copytree(workdir, stopped)
  arguments = ("--stop_at=12", "--config.train.log_every=3")
  code, _, err = train(alone, *arguments)
  assert code == 0, err
  ends = pair(start, workdir, *arguments)
  assert [code for code, _, _ in ends] == [0, 0], ends
  assert f"8: damaged: {name} has changed" in ends[0][2]
  got, want = losses(workdir), losses(alone)
  assert max(got) == max(want) == 12
  # What differs by rounding grows: only the first losses are compared.
  for step in (6, 9):
    assert got[step] == pytest.approx(want[step], rel=1e-5), step

  sent = here(signalled, "sharding.put_batch", 5, 15)
  ends = pair(start, stopped, *arguments, before=("", sent))
  assert [code for code, _, _ in ends] == [EXIT_STOPPED] * 2, ends
  # It came in step 9; they agree at every third.
  assert all("stopped at step 9;" in out for _, out, _ in ends), ends
  assert steps(stopped)[-1] == 9
  for code, _, err in pair(start, stopped, *arguments):
    assert code == 0, err
  name = "metrics.jsonl"
  assert (stopped / name).read_bytes() == (workdir / name).read_bytes()
  # One process hashes all files of the two.
  for x, y in zip(arrays(stopped), arrays(workdir), strict=True):
    assert x.tobytes() == y.tobytes()

"""Whole runs of train.py: what they compile and fetch, on one host and several.

The meshes of one process are in test_sharding.py.
"""

import collections
import json
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.test_sharding import NO_GRADIENT
from tests.training.test_loop import (
  ROOT,
  environment,
  experiment,
  named_arrays,
  write_config,
  write_corpus,
)

# Eight devices divide every batch and every sharded axis.
EIGHT = {"train.batch_size": 8, "train.epochs": 3, "mesh.data": -1}
OBSERVED = """
import atexit, json, runpy
import jax
from mner_jax.training import log as progress

compiled, fetched, logged = [], [], []
names = {{"/jax/core/compile/jaxpr_trace_duration": compiled}}

def listen(event, duration, fun_name="", **_):
  names.get(event, []).append(fun_name)

jax.monitoring.register_event_duration_secs_listener(listen)
get, write = jax.device_get, progress.Log._write

def device_get(tree):
  if isinstance(tree, list):  # of (step, metrics)
    fetched.append([step for step, _ in tree])
  return get(tree)

def log(self, name, line):
  if name == "metrics" and "loss" in line:
    logged.append(line["step"])
  return write(self, name, line)

jax.device_get, progress.Log._write = device_get, log
seen = {{"compiled": compiled, "fetched": fetched, "logged": logged}}
atexit.register(lambda: open({path!r}, "w").write(json.dumps(seen)))
runpy.run_path("train.py", run_name="__main__")
"""
TRAIN = "import runpy; runpy.run_path('train.py', run_name='__main__')"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  """Returns a function (workdir, *arguments) -> a train.py that runs."""
  folder = tmp_path_factory.mktemp("pod")
  write_corpus(folder / "data")
  config = write_config(folder / "tiny.py", experiment(folder, EIGHT))

  def start(workdir, *arguments, devices, code=TRAIN):
    return subprocess.Popen(
      [
        sys.executable, "-c", code, f"--config={config}",
        f"--workdir={workdir}", *arguments,
      ],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
      env={**environment(), "JAX_NUM_CPU_DEVICES": str(devices)},
    )  # fmt: skip

  return start


def finish(*processes):
  said = [process.communicate(timeout=400) for process in processes]
  for process, (_, err) in zip(processes, said, strict=True):
    assert process.returncode == 0, err
  return said


def read(workdir):
  """(losses by step, scores, arrays) of a finished run."""
  text = (workdir / "metrics.jsonl").read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  scores = json.loads((workdir / "test_metrics.json").read_text())
  losses = {x["step"]: x["loss"] for x in lines if "loss" in x}
  return losses, scores, named_arrays(workdir)


@pytest.fixture(scope="module")
def one_host(start, tmp_path_factory):
  """A run of one process on eight devices, data parallel, and what it did."""
  folder = tmp_path_factory.mktemp("one")
  path = folder / "seen.json"
  code = OBSERVED.format(path=str(path))
  finish(start(folder / "run", devices=8, code=code))
  return json.loads(path.read_text()), read(folder / "run")


def test_a_bucket_is_compiled_once_in_each_phase(one_host):
  compiled = collections.Counter(one_host[0]["compiled"])
  # Two buckets, which both training and evaluation meet.
  assert compiled["train_step"] == compiled["_emissions"] == 2
  # Sentences of at most 8, 16 ... words are decoded together.
  assert 1 <= compiled["_decode"] <= 4


def test_metrics_are_fetched_once_for_each_line_of_the_log(one_host):
  seen, (losses, _, _) = one_host
  assert seen["logged"] == sorted(losses) and len(losses) > 5
  fetched = [steps for steps in seen["fetched"] if steps]
  assert fetched == [[step] for step in seen["logged"]]


@pytest.mark.parametrize("hosts, mesh", [(2, (2, 4, 1)), (4, (2, 2, 2))])
def test_several_hosts_compute_what_one_does(
  start, one_host, tmp_path, hosts, mesh
):
  """The same losses, parameters and scores; each sentence is scored once."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  axes = zip(("data", "fsdp", "tensor"), mesh, strict=True)
  said = finish(
    *(
      start(
        tmp_path / "run", f"--coordinator=127.0.0.1:{port}",
        f"--num_processes={hosts}", f"--process_id={i}",
        *(f"--config.mesh.{name}={n}" for name, n in axes),
        devices=8 // hosts,
      )
      for i, axes in enumerate([list(axes)] * hosts)
    )
  )  # fmt: skip
  # Process 0 speaks for all; Gloo, which joins CPUs, does as it likes.
  assert not any(err or "F1" in out for out, err in said[1:]), said
  losses, scores, found = read(tmp_path / "run")
  want_losses, want_scores, want = one_host[1]
  assert list(losses) == list(want_losses)
  np.testing.assert_allclose(
    list(losses.values()), list(want_losses.values()), rtol=1e-4
  )
  assert scores == want_scores
  for (name, x), (_, y) in zip(found, want, strict=True):
    # Where the gradient is 0 by mathematics, Adam takes the sign of noise.
    if not re.search(NO_GRADIENT, name):
      np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=name)

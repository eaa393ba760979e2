"""Whole runs: what they compile and fetch, on one host and on several.

The meshes of one process are in test_sharding.py.
"""

import collections
import functools
import json
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from mner_jax.config import Config, replace
from mner_jax.training import run
from tests.conftest import TEXT_ONLY
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
WHOLE = {"train.batch_size": 8, "train.epochs": 3, "mesh.data": -1}
FAST = {"model.resnet.enabled": False, "train.epochs": 1, "data.buckets": (24,)}
MODELS = {"whole": WHOLE, "text": WHOLE | TEXT_ONLY, "fast": WHOLE | FAST}


@pytest.fixture(scope="module")
def one_host(tmp_path_factory):
  """Returns a function: name of a model -> (folder, {event: what}).

  The folder has the data and the run of this process on its eight devices;
  the events are functions that were traced and steps that were fetched.
  """

  @functools.cache
  def train(model):
    folder = tmp_path_factory.mktemp("pod")
    write_corpus(folder / "data")
    config = replace(Config(), experiment(folder, MODELS[model]))
    seen = {"traced": [], "fetched": []}

    def listen(event, duration, fun_name="", **_):
      if event == "/jax/core/compile/jaxpr_trace_duration":
        seen["traced"].append(fun_name)

    get = jax.device_get

    def device_get(tree):
      if isinstance(tree, list) and tree:  # of (step, metrics)
        seen["fetched"].append([step for step, _ in tree])
      return get(tree)

    jax.monitoring.register_event_duration_secs_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(jax, "device_get", device_get)
      run.run(config, folder / "run")
    jax.monitoring.unregister_event_duration_listener(listen)
    return folder, seen

  return train


def read(workdir):
  """(losses by step, scores, arrays) of a finished run."""
  text = (workdir / "metrics.jsonl").read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  scores = json.loads((workdir / "test_metrics.json").read_text())
  losses = {x["step"]: x["loss"] for x in lines if "loss" in x}
  return losses, scores, named_arrays(workdir)


def test_a_bucket_is_compiled_once_in_each_phase(one_host):
  _, seen = one_host("text")
  traced = collections.Counter(seen["traced"])
  # Two buckets, which both training and evaluation meet.
  assert traced["train_step"] == traced["_emissions"] == 2
  # Sentences of at most 8, 16 ... words are decoded together.
  assert traced["_decode"] <= 4


def test_metrics_are_fetched_once_for_each_line_of_the_log(one_host):
  folder, seen = one_host("text")
  losses, _, _ = read(folder / "run")
  assert len(losses) > 5
  assert seen["fetched"] == [[step] for step in sorted(losses)]


LONG = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  "model, hosts, mesh",
  [
    ("fast", 2, (2, 2, 1)),
    LONG("whole", 2, (2, 4, 1)),
    LONG("whole", 4, (2, 2, 2)),
  ],
)
def test_several_hosts_compute_what_one_does(
  one_host, tmp_path, model, hosts, mesh
):
  """The same losses, parameters and scores; each sentence is scored once."""
  folder, _ = one_host(model)
  fields = dict(
    zip(("mesh.data", "mesh.fsdp", "mesh.tensor"), mesh, strict=True)
  )
  fields = experiment(folder, MODELS[model] | fields)
  config = write_config(tmp_path / "config.py", fields)
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  devices = np.prod(mesh) // hosts
  command = [sys.executable, "train.py", f"--config={config}"]
  command += [f"--workdir={tmp_path}/run", f"--num_processes={hosts}"]
  command += [f"--coordinator=127.0.0.1:{port}"]
  start = functools.partial(
    subprocess.Popen,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env=environment() | {"JAX_NUM_CPU_DEVICES": str(devices)},
  )
  processes = [start([*command, f"--process_id={i}"]) for i in range(hosts)]
  try:
    said = [process.communicate(timeout=600) for process in processes]
  finally:  # one that failed leaves the others waiting
    for process in processes:
      process.kill()
  for process, (_, err) in zip(processes, said, strict=True):
    assert process.returncode == 0, err
  # Process 0 speaks for all; Gloo, which joins CPUs, does as it likes.
  assert not any(err or "F1" in out for out, err in said[1:]), said
  losses, scores, found = read(tmp_path / "run")
  want_losses, want_scores, want = read(folder / "run")
  assert list(losses) == list(want_losses)
  np.testing.assert_allclose(
    list(losses.values()), list(want_losses.values()), rtol=1e-4
  )
  assert scores == want_scores
  for (name, x), (_, y) in zip(found, want, strict=True):
    # Where the gradient is 0 by mathematics, Adam takes the sign of noise.
    if not re.search(NO_GRADIENT, name):
      np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=name)

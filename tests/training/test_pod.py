"""Whole runs: what they compile and fetch, and several processes' of them.

The meshes of one process are in test_sharding.py.
"""

import collections
import functools
from unittest import mock

import jax
import pytest

from mner_jax import sharding
from mner_jax.config import Config, MeshConfig, replace
from mner_jax.training import run
from tests.conftest import LONG, RUNS, assert_close
from tests.test_sharding import assert_same_params
from tests.training import test_loop as commands
from tests.training.conftest import losses, pod

# Every mesh below divides the rows of both parts.
WHOLE = {"train.batch_size": 8, "train.epochs": 3, "train.accumulate": 2}
FAST = RUNS["text"] | {"train.epochs": 2, "train.eval_every": 3}
MODELS = {"whole": WHOLE, "fast": FAST}


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
  """Returns a function: name of a model -> (folder, {event: what}).

  The folder has the data and the run of this process on its first device;
  the events are functions that were traced and steps that were fetched.
  """

  @functools.cache
  def train(model):
    folder = tmp_path_factory.mktemp("pod")
    commands.write_corpus(folder / "data")
    config = replace(Config(), commands.experiment(folder, MODELS[model]))
    seen = {"traced": [], "fetched": []}

    def listen(event, duration, fun_name="", **_):
      if event == "/jax/core/compile/jaxpr_trace_duration":
        seen["traced"].append(fun_name)

    get = jax.device_get

    def device_get(tree):
      if isinstance(tree, list) and tree:  # of (step, metrics)
        seen["fetched"].append([step for step, _ in tree])
      return get(tree)

    jax.clear_caches()  # or it is not traced what another run has traced
    jax.monitoring.register_event_duration_secs_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(jax, "device_get", device_get)
      run.run(config, folder / "run")
    jax.monitoring.unregister_event_duration_listener(listen)
    return folder, seen

  return train


@pytest.mark.parametrize("model, buckets", [("fast", 1), LONG("whole", 2)])
def test_a_bucket_is_compiled_once_in_each_phase(one_device, model, buckets):
  """Both training and evaluation meet every bucket, again and again."""
  traced = collections.Counter(one_device(model)[1]["traced"])
  assert traced["train_step"] == traced["_emissions"] == buckets
  # Sentences of at most 8, 16 ... words are decoded together.
  assert 1 <= traced["viterbi"] <= 4


def test_metrics_are_fetched_once_for_each_line_of_the_log(one_device):
  folder, seen = one_device("fast")
  steps = sorted(losses(folder / "run"))
  assert len(steps) > 5 and seen["fetched"] == [[step] for step in steps]


# (order of the devices, which are numbered process by process; mesh; the rows
# of a batch of eight that each process holds)
PODS = [
  (range(2), (1, 1, 2), [range(8)] * 2),
  (range(8), (1, 2, 4), [range(4), range(4, 8)]),
  (range(7, -1, -1), (1, 1, 8), [range(8)] * 2),
  (range(8), (2, 1, 4), [range(4)] * 2 + [range(4, 8)] * 2),
  ((0, 2, 4, 6, 1, 3, 5, 7), (2, 2, 2), [(0, 1, 4, 5), (2, 3, 6, 7)]),
]


@pytest.mark.parametrize("order, shape, rows", PODS)
def test_a_process_loads_what_its_devices_hold(order, shape, rows):
  each = len(order) // len(rows)
  for process, own in enumerate(rows):
    client = mock.Mock(process_index=lambda here=process: here)
    devices = [
      mock.Mock(id=i, process_index=i // each, client=client) for i in order
    ]
    mesh = sharding.make_mesh(MeshConfig(*shape), devices)
    assert sharding.own_rows(8, mesh).tolist() == list(own)


# Executed before train.py: another order of the devices.
ORDERED = """
import jax
from mner_jax import sharding

make = sharding.make_mesh

def make_mesh(config):
  devices = jax.devices()
  mesh = make(config, [devices[i] for i in %s])
  print("rows", sharding.own_rows(8, mesh).tolist())
  return mesh

sharding.make_mesh = make_mesh
"""


RUN_ON = [("fast", PODS[0]), *(LONG("whole", pod) for pod in PODS[1:4])]


@pytest.mark.parametrize("model, places", RUN_ON)
def test_several_processes_compute_what_one_device_does(
  one_device, tmp_path, model, places
):
  """The same losses, parameters and scores; each sentence is scored once."""
  folder, _ = one_device(model)
  order, shape, rows = places
  mesh = zip(sharding.AXES, shape, strict=True)
  fields = MODELS[model] | {f"mesh.{axis}": size for axis, size in mesh}
  fields = commands.experiment(folder, fields)
  config = commands.write_config(tmp_path / "config.py", fields)
  each, before = len(order) // len(rows), [ORDERED % list(order)] * len(rows)
  ends = pod(config, tmp_path / "run", devices=each, before=before)
  for (code, out, err), own in zip(ends, rows, strict=True):
    assert code == 0, err
    assert f"rows {list(own)}" in out.splitlines()
  # Process 0 speaks for all; Gloo, which joins CPUs, does as it likes.
  assert not any(err or "F1" in out for _, out, err in ends[1:]), ends
  runs = tmp_path / "run", folder / "run"
  got, want = map(losses, runs)
  assert list(got) == list(want)
  assert_close(got, want, rtol=1e-4)
  scores, want = ((x / "test_metrics.json").read_bytes() for x in runs)
  assert scores == want
  assert_same_params(*map(commands.arrays, runs), rtol=1e-3, atol=1e-4)

"""One place for what every test needs: devices, strictness, a tiny config."""

import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib.metadata
import json
import math
import os
import resource

import jax
import numpy as np
import pytest

from mner_jax import sharding
from mner_jax.config import Config, replace

# Eight CPU devices, so that meshes are real in the tests that ask for one.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# XLA:CPU's older code generator, which jax 0.12 no longer has, compiles small
# programs in half the time and memory.
if importlib.metadata.version("jax") < "0.11":
  os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"


def pytest_configure(config):
  """What child processes do too, those of the tables as well.

  Tests, their children and the next run share what compiled.
  """
  shared = {
    "jax_compilation_cache_dir": str(config.cache.mkdir("jax")),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_compilation_cache_max_size": 1 << 30,
    # Optimising many small programs would take longer than running them.
    "jax_disable_most_optimizations": True,
    # On accelerators "fp32" is not fp32; the references are.
    "jax_default_matmul_precision": "highest",
  }
  for name, value in shared.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


# A parameter of tests that only `-m slow` runs.
LONG = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
  """Compiled programs of a file are of no use to the next one."""
  yield
  jax.clear_caches()
  gc.collect()
  # What is free goes back to the system.
  getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


@pytest.fixture(scope="session", autouse=True)
def _one_device():
  """A mesh is of the first device, as on a user's machine, unless given some."""
  make, first = sharding.make_mesh, jax.devices()[:1]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      sharding, "make_mesh", lambda mesh, devices=first: make(mesh, devices)
    )
    yield


@pytest.fixture(scope="session")
def tiny():
  """2M-NER with every part, as small as it gets."""
  fields = TINY | {
    "data.buckets": (16, 32),
    "data.labels": ("LOC", "PER"),
    "data.workers": 1,
    "model.text.vocab_size": 96,
    "model.text.num_layers": 2,
    "model.text.max_positions": 32,
    "model.resnet.stages": (1, 1),
    "optim.learning_rate": 1e-3,
    "train.batch_size": 8,
  }
  return replace(Config(), fields)


# Sizes of the smallest 2M-NER; its text encoder reads 24 pieces.
TINY = {
  "data.buckets": (16, 24),
  "model.text.vocab_size": 200,
  "model.text.hidden_size": 16,
  "model.text.num_layers": 1,
  "model.text.num_heads": 4,
  "model.text.intermediate_size": 32,
  "model.text.max_positions": 24,
  "model.vit.image_size": 16,
  "model.vit.patch_size": 8,
  "model.vit.hidden_size": 16,
  "model.vit.num_layers": 1,
  "model.vit.num_heads": 4,
  "model.vit.intermediate_size": 32,
  "model.resnet.image_size": 32,
  "model.resnet.stages": (1,),
  "model.resnet.width": 8,
  "model.fusion_heads": 4,
  "optim.learning_rate": 5e-3,
  "train.batch_size": 4,
}
NO_DROPOUT = dict.fromkeys(
  ("model.dropout", "model.text.dropout", "model.text.attention_dropout"), 0.0
)
TEXT_ONLY = {
  "data.images": "",
  "model.vit.enabled": False,
  "model.resnet.enabled": False,
}
PLAIN_TEXT = TEXT_ONLY | NO_DROPOUT


# The runs that tests share. A bucket more would be a program more to compile:
# several are in test_tables.py and test_evaluate.py.
RUNS = {"images": {"data.buckets": (24,), "train.batch_size": 8}}
RUNS["text"] = RUNS["images"] | TEXT_ONLY
RUNS["images"] |= {"train.epochs": 12}
RUNS["text"] |= {"train.epochs": 8, "train.checkpoint_every": 4}


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory):
  """Returns a function "images" or "text" -> folder of a run of train.py.

  It holds data/, tiny.py, run/, and what was printed. One worker trains, the
  other waits for it.
  """
  from tests.training import test_loop as commands

  root = tmp_path_factory.getbasetemp()
  root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

  @functools.cache
  def run(kind):
    folder = root / f"run_{kind}"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not (folder / "out.txt").exists():
        commands.write_corpus(folder / "data")
        fields = commands.experiment(folder, RUNS[kind])
        config = commands.write_config(folder / "tiny.py", fields)
        flags = f"--config={config}", f"--workdir={folder / 'run'}"
        result = commands.command("train.py", *flags, check=True)
        (folder / "err.txt").write_text(result.stderr)
        (folder / "out.txt").write_text(result.stdout)
    return folder

  return run


@pytest.fixture(scope="session")
def trained(shared_run):
  """(workdir, Evaluation of test) of the run "images"."""
  from mner_jax.cli import read_workdir
  from mner_jax.evaluation import evaluate as evaluation

  workdir = shared_run("images") / "run"
  return workdir, evaluation.evaluate(read_workdir(workdir), workdir, "test")


def random_params(shapes, spread=0.2):
  """NumPy's parameters: zero scales and CRF scores near 0 hide mistakes.

  To draw and to place them compiles nothing.
  """
  rng = np.random.default_rng(0)

  def draw(path, x):
    mean = path[-1].key == "scale"
    return rng.normal(mean, spread, x.shape).astype(x.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def abstract_state(config):
  """The shapes and dtypes of a TrainState."""
  from mner_jax.training import step as stepping

  tx = stepping.make_optimizer(config.optim, total_steps=9)
  key = jax.random.key_data(jax.random.key(0))
  return jax.eval_shape(stepping.make_init(config, tx), key)


def random_state(config):
  """A TrainState of random parameters."""
  shapes = abstract_state(config)
  state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  key = np.array(jax.random.key_data(jax.random.key(0)))
  return state._replace(params=random_params(shapes.params), rng=key)


def named(tree):
  """Returns the {path: array} of a tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {sharding.path_name(path): x for path, x in leaves}


def total_size(tree):
  """Returns how many numbers a tree has."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def assert_close(tree, other, **tolerances):
  """Compares the arrays of two trees."""
  close = functools.partial(np.testing.assert_allclose, **tolerances)
  jax.tree.map(close, tree, other)


def read_jsonl(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@contextlib.contextmanager
def full_disk(size):
  """Limits the size of files, in bytes, as a disk does that fills up."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def random_batch():
  """Returns a function (config, rows, length) -> a batch of random numbers."""
  from mner_jax.data import batches

  def make(config, rows=8, length=16, seed=0):
    rng = np.random.default_rng(seed)
    batch = batches.empty(config, rows, length)
    batch["weight"][:] = 1
    batch["num_pieces"][:] = rng.integers(5, length + 1, rows)
    batch["num_words"][:] = batch["num_pieces"] - rng.integers(3, 5, rows)
    for row in range(rows):
      pieces, words = batch["num_pieces"][row], batch["num_words"][row]
      batch["input_ids"][row, :pieces] = rng.integers(5, 96, pieces)
      starts = rng.choice(np.arange(1, pieces - 1), words, replace=False)
      batch["first_piece"][row, :words] = np.sort(starts)
      batch["tags"][row, :words] = rng.integers(len(config.tags), size=words)
    for name in ("pixels", "scene_pixels"):
      if name in batch:
        batch[name] = rng.integers(256, size=batch[name].shape, dtype=np.uint8)
    if config.model.multimodal:
      batch["has_image"][:] = rng.random(rows) < 0.8
      batch["image_id"] = np.arange(rows, dtype=np.int32)
    return batch

  return make

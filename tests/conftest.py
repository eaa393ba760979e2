"""One place for what every test needs: devices, strictness, a tiny config."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from absl import flags

from mner_jax import config as config_lib

# Eight CPU devices, so that meshes are real in every test that asks for one.
jax.config.update("jax_num_cpu_devices", 8)
# Tests compile many small programs once; optimising them would take longer.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# On accelerators "fp32" is not fp32; the references are.
jax.config.update("jax_default_matmul_precision", "highest")
# Worker pools of grain look at absl's flags.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def tiny():
  """2M-NER with every part, as small as it gets."""
  config = config_lib.defaults()
  config.data.buckets = (16, 32)
  config.data.labels = ("LOC", "PER")
  config.data.workers = 1
  config.model.text.update(
    vocab_size=96, hidden_size=16, num_layers=2, num_heads=4,
    intermediate_size=32, max_positions=32,
  )  # fmt: skip
  config.model.vit.update(
    image_size=16, patch_size=8, hidden_size=16, num_layers=1, num_heads=4,
    intermediate_size=32,
  )  # fmt: skip
  config.model.resnet.update(image_size=32, stages=(1, 1), width=8)
  config.model.fusion_heads = 4
  config.optim.learning_rate = 1e-3
  config.train.batch_size = 8
  return config_lib.from_config_dict(config)


TEXT_ONLY = """
  config.data.images = ""
  config.model.vit.enabled = False
  config.model.resnet.enabled = False
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
  """Returns a function "images" or "text" -> (workdir, Evaluation of test).

  Of a short run of train.py's loop; what it needs is imported here, since the
  tests of data/ do without it.
  """
  from mner_jax.evaluation import evaluate as evaluation
  from mner_jax.training import loop as training
  from tests.training.test_loop import TINY, write_corpus

  @functools.cache
  def train(kind):
    folder = tmp_path_factory.mktemp(f"trained_{kind}")
    write_corpus(folder / "data")
    fields = "  config.train.update(batch_size=8, epochs=12)\n"
    fields += TEXT_ONLY * (kind == "text")
    code = TINY.replace("  return config", f"{fields}  return config")
    code = code.format(path=str(folder / "data"), cache=str(folder / "cache"))
    namespace = {}
    exec(code, namespace)
    config = config_lib.from_config_dict(namespace["get_config"]())
    workdir = folder / "run"
    config = training.train(config, workdir)
    return workdir, evaluation.evaluate(config, workdir, "test")

  return train


def change(config, **fields):
  """`config` with fields replaced: change(config, model__vit__enabled=False)."""
  for path, value in fields.items():
    names = path.split("__")
    parents = [config]
    for name in names[:-1]:
      parents.append(getattr(parents[-1], name))
    for parent, name in zip(reversed(parents), reversed(names), strict=True):
      value = dataclasses.replace(parent, **{name: value})
    config = value
  return config


@pytest.fixture(name="change", scope="session")
def _change():
  return change


@pytest.fixture(scope="session")
def random_batch():
  """Returns a function (config, rows, length) -> a batch of random numbers."""
  from mner_jax.data import batches

  def make(config, rows=8, length=16, seed=0):
    rng = np.random.default_rng(seed)
    batch = batches.empty(config, rows, length)
    batch["weight"][:] = 1
    batch["window"][:] = np.arange(rows)
    batch["num_pieces"] = rng.integers(5, length + 1, rows).astype(np.int32)
    batch["num_words"] = batch["num_pieces"] - rng.integers(3, 5, rows)
    batch["num_words"] = batch["num_words"].astype(np.int32)
    for row in range(rows):
      pieces, words = batch["num_pieces"][row], batch["num_words"][row]
      batch["input_ids"][row, :pieces] = rng.integers(5, 96, pieces)
      batch["first_piece"][row, :words] = np.sort(
        rng.choice(np.arange(1, pieces - 1), words, replace=False)
      )
      batch["tags"][row, :words] = rng.integers(len(config.tags), size=words)
    for name in ("pixels", "scene_pixels"):
      if name in batch:
        batch[name] = rng.integers(256, size=batch[name].shape, dtype=np.uint8)
    if config.model.multimodal:
      batch["has_image"][:] = rng.random(rows) < 0.8
      batch["image_id"] = np.arange(rows, dtype=np.int32)
    return batch

  return make

"""New layers start as the authors', and the scene is a key for each word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mner_jax import pretrained
from mner_jax.config import replace
from mner_jax.data import batches
from mner_jax.models.attention import Attention, linear
from mner_jax.models.mner import MultimodalNER
from tests.conftest import LONG, named

B, W, D = 2, 20, 16


@pytest.fixture(scope="module")
def scene():
  """(attention with dropout 0.1, its parameters, words, one key, mask)."""
  attention = Attention(num_heads=4, dropout=0.1, dense=linear)
  words, key = jax.random.normal(jax.random.key(0), (2, B, W, D))
  key, mask = key[:, :1], jnp.arange(W + 12)[None] < jnp.array([[W], [7]])
  params = jax.jit(attention.init)(jax.random.key(1), words, key, mask)
  return attention, params, words, key, mask


def test_one_scene_key_stands_for_a_key_per_word(scene):
  """Nothing changes at evaluation, whatever the padding."""
  attention, params, words, key, mask = scene
  copies = jnp.broadcast_to(key, (B, W, D))
  alone = attention.apply(params, words, key)
  for others in ((key, mask), (copies, mask[:, :W])):
    found = attention.apply(params, words, *others)
    np.testing.assert_allclose(found, alone, atol=1e-6)


def test_dropout_on_the_scene_is_that_of_repeated_keys(scene):
  """As in the authors' program, where the vector is repeated for each word."""
  attention, params, words, key, mask = scene

  def variance(*inputs):
    @jax.jit
    @jax.vmap
    def drawn(rng):
      options = {"deterministic": False, "rngs": {"dropout": rng}}
      return attention.apply(params, *inputs, **options)[0]

    keys = jax.random.split(jax.random.key(2), 2000)
    return np.array(drawn(keys)).var(axis=0).mean()

  ours = variance(words, key, mask)
  copies = jnp.broadcast_to(key[:1], (1, W, D))  # and no mask
  np.testing.assert_allclose(ours, variance(words[:1], copies), rtol=0.1)
  assert ours > 0


COUNTS = {"collaboration": 34, "concatenation": 18, "umt": 76, "maf": 30}


@pytest.mark.parametrize(
  "fusion", ["collaboration", "umt", LONG("concatenation"), LONG("maf")]
)
def test_new_layers_start_as_the_authors(tiny, fusion):
  """As torch's Linear, U(-1, 1) / sqrt(fan_in); in UMT and MAF as BERT's."""
  fields = {"model.fusion": fusion, "data.labels": tuple("ABCDEFGHIJKLMNOP")}
  baseline = fusion in ("umt", "maf")
  fields |= {"model.vit.enabled": not baseline, "model.resnet.stages": (1,)}
  config = replace(tiny, fields)
  model = MultimodalNER(config)
  batch = batches.empty(config, 1, config.data.buckets[0])

  @jax.jit
  def new_layers(key):
    params = model.init(key, batch)["params"]
    return {k: x for k, x in params.items() if k not in pretrained.ENCODERS}

  # As NumPy's arrays: of its own, JAX would compile each deviation.
  params = jax.device_get(new_layers(jax.random.key(0)))
  leaves, checked = named(params), 0
  for name in (x for x in leaves if x.endswith("/kernel")):
    kernel = leaves[name]
    bound = kernel.shape[0] ** -0.5
    for x in (kernel, leaves[name.replace("kernel", "bias")]):
      spread = bound / 3**0.5
      if baseline and name.startswith("fusion"):
        spread = 0.02 * (x is kernel)
      else:
        assert np.abs(x).max() <= bound
      np.testing.assert_allclose(np.std(x), spread, rtol=3 / x.size**0.5)
      checked += 1
  assert checked == COUNTS[fusion]

"""MAF's matching: whose pictures are swapped, and when none can be."""

import functools

import jax
import numpy as np
import pytest

from mner_jax.models.baselines import maf

partners = jax.jit(maf.partners)


def test_swapped_pictures_are_pairs_of_a_quarter_of_the_batch():
  seen = set()
  for seed in range(20):
    has_image = np.random.default_rng(seed).random(32) < 0.8
    partner = np.array(partners(jax.random.key(seed), has_image))
    np.testing.assert_array_equal(partner[partner], np.arange(32))
    moved = partner != np.arange(32)
    assert moved.sum() == 8 and has_image[moved].all()
    seen |= {*np.flatnonzero(moved)}
  assert len(seen) > 28  # any row, in time


@pytest.mark.parametrize(
  "rows, pictures, moved", [(32, 5, 4), (32, 1, 0), (32, 0, 0), (7, 7, 0)]
)
def test_where_pictures_are_few_fewer_are_swapped(rows, pictures, moved):
  has_image = np.arange(rows) < pictures
  partner = np.array(partners(jax.random.key(0), has_image))
  np.testing.assert_array_equal(partner[partner], np.arange(rows))
  assert (partner != np.arange(rows)).sum() == moved


@pytest.mark.parametrize("pictures", [0, 1])
def test_a_batch_without_a_picture_to_swap_trains(tiny, pictures):
  """A row of padding has no words at all."""
  rng = np.random.default_rng(0)
  words = rng.normal(size=(8, 6, 16)).astype("f4")
  regions = rng.normal(size=(8, 4, 32)).astype("f4")
  batch = {
    "num_words": np.array([6, 5, 4, 3, 2, 1, 1, 0]),
    "has_image": np.arange(8) < pictures,
    "image_id": np.arange(8),
    "weight": np.ones(8),
  }
  model = maf.MAF(tiny)
  inputs = words, {"resnet": regions[:, :, None]}, batch
  params = jax.jit(model.init)(jax.random.key(0), *inputs)

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params):
    fused, kept = model.apply(
      params,
      *inputs,
      deterministic=False,
      rngs={"dropout": jax.random.key(1)},
      mutable="intermediates",
    )
    own = kept["intermediates"]["own"][0]
    match = fused.aligning["match"]
    return match + (fused.words**2).mean(), (fused.words, own, match)

  (_, (joined, own, match)), grads = jax.jit(loss)(params)
  assert np.array(own).all()
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
  # A sentence without a picture is its words alone.
  np.testing.assert_array_equal(joined[pictures:, :, :16], words[pictures:])
  assert not np.any(joined[pictures:, :, 16:])
  assert (float(match) > 0) == bool(pictures)

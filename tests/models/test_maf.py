"""MAF's matching: whose pictures are swapped, and when none can be."""

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

"""Masks and means that padding must not touch.

B sentences or pairs, T positions.
"""

import jax.numpy as jnp


def length_mask(lengths, size):
  """[B] lengths -> [B, T] bool, T = size: True before each length."""
  return jnp.arange(size)[None] < lengths[:, None]


def weighted_mean(values, weight):
  """Mean of [B] values over the rows of weight 1, not 0; 0 if there is none."""
  return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1)

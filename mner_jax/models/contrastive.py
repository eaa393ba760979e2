"""Contrastive alignment of sentences and pictures.

B pairs of vectors of width D; row i of one side belongs to row i of the other.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class ProjectionHead(nn.Module):
  """Linear -> ReLU -> Linear, to the space in which pairs are compared."""

  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """[B, ...] -> [B, width]; everything but the batch axis is flattened."""
    x = x.reshape(x.shape[0], -1)
    x = nn.Dense(self.width, dtype=self.dtype, name="hidden")(x)
    return nn.Dense(self.width, dtype=self.dtype, name="output")(jax.nn.relu(x))


def normalise(x, eps=1e-12):
  """[..., D] -> unit vectors in fp32; 0 stays 0, with a finite gradient.

  x / max(norm(x), eps) has the gradient NaN at 0.
  """
  x = x.astype(jnp.float32)
  squared = jnp.sum(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared, eps**2))


def other_pairs(weight, image_id=None, replicate=lambda x: x):
  """[B, B] bool: may row j be a negative of row i?

  Not its own, none of weight 0, and none that shows the same picture: the
  translations of one caption are no negatives of each other.

  Args:
    weight: [B], 0 for rows without a picture and rows that only pad.
    image_id: [B] int, equal for equal pictures; None = all differ.
    replicate: see `nt_xent`.
  """
  own = jnp.eye(weight.shape[0], dtype=bool)
  if image_id is not None:
    own |= image_id[:, None] == replicate(image_id)[None, :]
  return ~own & (replicate(weight) > 0)[None, :]


def _masked_logsumexp(logits, mask, axis):
  """log sum exp over the entries of `mask`; at least one must be there."""
  return jax.nn.logsumexp(jnp.where(mask, logits, -jnp.inf), axis=axis)


def nt_xent(
  text, image, weight, *, temperature, image_id=None, replicate=lambda x: x
):
  """NT-Xent of SimCLR (Chen et al. 2020, arXiv:2002.05709, eq. 1), cosine.

      L = 1/(2B) sum_i -log( exp(s(i, p(i)) / tau) / sum_{k != i} exp(s(i, k) / tau) )

  over the 2B vectors of both sides: the denominator has 2B - 1 terms, those
  of the same side included.

  Args:
    text, image: [B, D], any scale.
    weight: [B]; rows of weight 0 are neither anchors nor negatives, and the
      mean is over the rows that count.
    temperature: tau.
    image_id: [B], see `other_pairs`.
    replicate: function that gives every device the whole of an array whose
      rows are spread over devices; where B is, every pair is compared, and
      the [B, 2, B, 2] similarities stay spread by their first axis.

  Returns:
    The loss, a scalar; 0 if no row counts.
  """  # fmt: skip
  # The sides stand on an axis of their own: a concatenation along the batch
  # would move every row to another device.
  z = normalise(jnp.stack([text, image], axis=1))  # [B, 2, D]
  # One gather, here; left to itself the compiler gathers for each use.
  columns = replicate(z)
  similarity = jnp.einsum(
    "imd,jnd->imjn", z, columns, precision=jax.lax.Precision.HIGHEST
  )
  similarity /= temperature  # [B, 2, B, 2]
  negatives = other_pairs(weight, image_id, replicate)[:, None, :, None]
  own = jnp.eye(len(weight), dtype=bool)[:, None, :, None]
  partner = own & ~jnp.eye(2, dtype=bool)[None, :, None, :]  # [B, 2, B, 2]
  positive = jnp.sum(jnp.where(partner, similarity, 0), axis=(2, 3))  # [B, 2]
  total = _masked_logsumexp(similarity, negatives | partner, axis=(2, 3))
  return _mean(jnp.mean(total - positive, axis=1), weight)


def clip_loss(
  text, image, weight, *, temperature, image_id=None, replicate=lambda x: x
):
  """The loss of CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3).

  Mean of the cross-entropies text -> image and image -> text: negatives are
  of the other side only. Arguments and result as in `nt_xent`.
  """
  text, image = normalise(text), normalise(image)
  allowed = other_pairs(weight, image_id, replicate) | jnp.eye(
    len(weight), dtype=bool
  )

  def total(rows, columns):  # log sum over what a row is compared with, [B]
    similarity = jnp.einsum(
      "id,jd->ij", rows, replicate(columns),
      precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    return _masked_logsumexp(similarity / temperature, allowed, axis=1)

  positive = jnp.sum(text * image, axis=1) / temperature
  # Rows of both sides, no columns: they would lie across the devices.
  both = (total(text, image) + total(image, text)) / 2
  return _mean(both - positive, weight)


def _mean(values, weight):
  """Weighted mean over the rows, 0 where there are none."""
  return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1)


LOSSES = {"nt_xent": nt_xent, "clip": clip_loss}

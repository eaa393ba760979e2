"""Contrastive alignment of sentences and pictures.

B pairs of vectors of width D; row i of one side belongs to row i of the other.
Over many devices each has B of the N rows, and compares them with all N.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.models.attention import linear
from mner_jax.models.padding import length_mask


class ProjectionHead(nn.Module):
  """Linear -> ReLU -> Linear, to the space in which pairs are compared."""

  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """[..., C] -> [..., width]."""
    x = jax.nn.relu(linear(self.width, x.shape[-1], self.dtype, "hidden")(x))
    return linear(self.width, self.width, self.dtype, "output")(x)


def normalise(x, eps=1e-12):
  """[..., D] -> unit vectors in fp32; 0 stays 0, with a finite gradient.

  x / max(norm(x), eps) has the gradient NaN at 0.
  """
  x = x.astype(jnp.float32)
  squared = jnp.sum(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared, eps**2))


class Side(NamedTuple):
  """One side of the pairs, texts or images, as unit vectors.

  Attributes:
    vectors: [B, D], or of tokens [B, A, D].
    mask: [B, A], the tokens that count; None with vectors.
  """

  vectors: jnp.ndarray
  mask: jnp.ndarray | None = None


def sides(text, image, num_words=None):
  """Returns (text Side, image Side), in the type of the vectors given.

  Args:
    text: [B, D], or words [B, W, D] with `num_words`.
    image: [B, D], or image tokens [B, P, D].
    num_words: [B], words that count; None compares vectors.
  """
  # In bf16 half as much is gathered; the norm is taken in fp32.
  text, image = (normalise(x).astype(x.dtype) for x in (text, image))
  if num_words is None:
    return Side(text), Side(image)
  words = length_mask(num_words, text.shape[1])
  return Side(text, words), Side(image, jnp.ones(image.shape[:2], bool))


# Exact products, sums in fp32; of bf16 that is one pass of a TPU.
_cosines = functools.partial(
  jnp.einsum,
  precision=jax.lax.Precision.HIGHEST,
  preferred_element_type=jnp.float32,
)


def similarities(rows, columns):
  """Compares B rows of one Side with C columns of another, both ways.

  Vectors by their cosine. Tokens by the late interaction of FILIP (Yao et al.
  2021, arXiv:2111.07783, eq. 4 and 5), with a over the tokens of i and b over
  those of j,

      s(i, j) = mean_a max_b cosine(a, b)

  which is not symmetric: a text asks whether each of its words is somewhere in
  the picture, a picture whether the text names each of its parts. It needs
  memory for B C A^2 cosines.

  Returns:
    (s(row, column), s(column, row)), [B, C] each, fp32.
  """
  if columns.mask is None:
    cosine = _cosines("id,jd->ij", rows.vectors, columns.vectors)
    return cosine, cosine
  cosine = _cosines("iad,jbd->ijab", rows.vectors, columns.vectors)
  mine, theirs = rows.mask[:, None], columns.mask[None]  # [B, 1, A], [1, C, A']
  best_of_theirs = jnp.where(theirs[:, :, None], cosine, -jnp.inf).max(axis=3)
  best_of_mine = jnp.where(mine[..., None], cosine, -jnp.inf).max(axis=2)
  mean = functools.partial(jnp.mean, axis=2)
  return mean(best_of_theirs, where=mine), mean(best_of_mine, where=theirs)


def nt_xent(text, image, weight, image_id=None, num_words=None, **options):
  """NT-Xent of SimCLR (Chen et al. 2020, arXiv:2002.05709, eq. 1), cosine.

      L = 1/(2N) sum_i -log( exp(s(i, p(i)) / tau) / sum_{k != i} exp(s(i, k) / tau) )

  over the 2N vectors of both sides (one device: N = B): the denominator has
  2N - 1 terms, those of the same side included.

  Args:
    text, image: [B, D], any scale, or words and image tokens: `sides`.
    weight: [B]; rows of weight 0 are neither anchors nor negatives, and the
      mean is over the rows that count.
    image_id: [B] int, equal for equal pictures: rows of the same picture are
      not negatives, as translations of one caption are not. None = all differ.
    num_words: [B], see `sides`.
    temperature: tau.
    text_share: weight of the anchors of the text in the mean of both sides.
    axis: mesh axes that split the rows, within `jax.shard_map`; None = all
      rows are here.

  Returns:
    The loss of all rows, a scalar; 0 if none counts.
  """  # fmt: skip
  return _cross_entropy(
    text, image, weight, image_id, num_words, same_side=True, **options
  )


def clip_loss(text, image, weight, image_id=None, num_words=None, **options):
  """The loss of CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3).

  Mean of the cross-entropies text -> image and image -> text: negatives are
  of the other side only. Arguments and result as in `nt_xent`.
  """
  return _cross_entropy(
    text, image, weight, image_id, num_words, same_side=False, **options
  )


def _cross_entropy(
  text,
  image,
  weight,
  image_id,
  num_words,
  *,
  same_side,
  temperature,
  text_share=0.5,
  axis=None,
):
  """Mean over rows and sides of log sum exp(all compared) - own."""

  def gather(x):  # [B, ...] -> [N, ...]
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)

  def total(x):  # over the devices
    return x if axis is None else jax.lax.psum(x, axis)

  first = 0 if axis is None else len(weight) * jax.lax.axis_index(axis)
  row_index = first + jnp.arange(len(weight))  # [B], among all N
  image_id = row_index if image_id is None else image_id
  rows = sides(text, image, num_words)
  # One gather of each side: a concatenation of both along the batch, as the
  # equation has it, would move every row to another device.
  columns, column_id, column_weight = jax.lax.stop_gradient(
    jax.tree.map(gather, (rows, image_id, weight))
  )
  own = row_index[:, None] == jnp.arange(len(column_id))[None]  # [B, N]
  counts = (weight > 0)[:, None] & (column_weight > 0)[None]
  negative = counts & (image_id[:, None] != column_id[None])  # never own
  share = (text_share, 1 - text_share)  # of each side's anchors
  pairs = [(0, 1), (1, 0)] + [(0, 0), (1, 1)] * same_side

  # s / tau of the rows of one side with all of another, both ways.
  forth, back = {}, {}
  for mine, theirs in pairs:
    compared = negative if mine == theirs else negative | own
    forth[mine, theirs], back[mine, theirs] = (
      jnp.where(compared, s / temperature, -jnp.inf)
      for s in similarities(rows[mine], columns[theirs])
    )

  # The rows as anchors.
  loss, log_z = 0.0, []
  for side in (0, 1):
    sums = [jax.nn.logsumexp(s, 1) for k, s in forth.items() if k[0] == side]
    log_z.append(functools.reduce(jnp.logaddexp, sums))  # [B]
    positive = jnp.sum(jnp.where(own, forth[side, 1 - side], 0), axis=1)
    loss += share[side] * jnp.sum((log_z[side] - positive) * weight)

  # The rows i are also what all anchors j are compared with. That part of the
  # gradient, (p_j(i) - [i is j's own]) ds(j, i), is taken where s(j, i) is known:
  # it needs log z_j of every j, and no gradient is sent between devices.
  every_log_z = jax.lax.stop_gradient([gather(x)[None] for x in log_z])
  as_columns = 0.0
  for (mine, theirs), s in back.items():
    p = jnp.exp(s - every_log_z[theirs])  # [B, N]
    terms = p if mine == theirs else p - jnp.where(own, s, 0)
    as_columns += share[theirs] * jnp.sum(terms * column_weight[None])
  loss += as_columns - jax.lax.stop_gradient(as_columns)
  return total(loss) / jnp.maximum(total(jnp.sum(weight)), 1)


LOSSES = {"nt_xent": nt_xent, "clip": clip_loss}

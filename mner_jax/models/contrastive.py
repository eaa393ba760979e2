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
    """[..., C] -> [..., width]."""
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


def similarities(text, image, num_words=None, replicate=lambda x: x):
  """[B, 2, B, 2]: how side m of row i (0 text, 1 image) sees side n of row j.

  Vectors of sentences and pictures, [B, D] each: their cosine. Words and
  image tokens, [B, W, D] and [B, P, D]: the late interaction of FILIP (Yao et
  al. 2021, arXiv:2111.07783, eq. 4 and 5), with a over the tokens of the one
  side and b over those of the other,

      s(i, j) = mean_a max_b cosine(a, b)

  so that s(i, j) and s(j, i) differ: the first asks whether each word of i is
  somewhere in picture j, the second whether each part of j is said by i. It
  needs memory for B^2 max(W, P)^2 cosines.

  Args:
    text: [B, D], or [B, W, D] with `num_words`.
    image: [B, D], or [B, P, D].
    num_words: [B], words that count; None compares vectors.
    replicate: see `nt_xent`.
  """
  if num_words is None:
    # The sides stand on an axis of their own: a concatenation along the batch
    # would move every row to another device.
    z = normalise(jnp.stack([text, image], axis=1))  # [B, 2, D]
    # One gather, here; left to itself the compiler gathers for each use.
    columns = replicate(z)
    return jnp.einsum(
      "imd,jnd->imjn", z, columns, precision=jax.lax.Precision.HIGHEST
    )
  masks = [
    jnp.arange(text.shape[1])[None] < num_words[:, None],
    jnp.ones(image.shape[:2], bool),
  ]  # [B, W], [B, P]
  sides = [normalise(text), normalise(image)]

  def see(m, n):  # how the rows of side m see those of side n, [B, B]
    cosine = jnp.einsum(
      "iad,jbd->iajb", sides[m], replicate(sides[n]),
      precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    inside = replicate(masks[n])[None, None]
    best = jnp.max(jnp.where(inside, cosine, -jnp.inf), axis=3)  # [B, A, B]
    mine = masks[m][:, :, None]
    return jnp.sum(jnp.where(mine, best, 0), axis=1) / jnp.sum(mine, axis=1)

  return jnp.stack(
    [jnp.stack([see(m, 0), see(m, 1)], axis=-1) for m in (0, 1)], axis=1
  )


def nt_xent(text, image, weight, **options):
  """NT-Xent of SimCLR (Chen et al. 2020, arXiv:2002.05709, eq. 1), cosine.

      L = 1/(2B) sum_i -log( exp(s(i, p(i)) / tau) / sum_{k != i} exp(s(i, k) / tau) )

  over the 2B vectors of both sides: the denominator has 2B - 1 terms, those
  of the same side included.

  Args:
    text, image: [B, D], any scale, or words and image tokens: `similarities`.
    weight: [B]; rows of weight 0 are neither anchors nor negatives, and the
      mean is over the rows that count.
    temperature: tau.
    text_share: weight of the anchors of the text in the mean of both sides.
    image_id: [B], see `other_pairs`.
    num_words: [B], see `similarities`.
    replicate: function that gives every device the whole of an array whose
      rows are spread over devices; where B is, every pair is compared, and
      the [B, 2, B, 2] similarities stay spread by their first axis.

  Returns:
    The loss, a scalar; 0 if no row counts.
  """  # fmt: skip
  return _cross_entropy(text, image, weight, same_side=True, **options)


def clip_loss(text, image, weight, **options):
  """The loss of CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3).

  Mean of the cross-entropies text -> image and image -> text: negatives are
  of the other side only. Arguments and result as in `nt_xent`.
  """
  return _cross_entropy(text, image, weight, same_side=False, **options)


def _cross_entropy(
  text, image, weight, *, same_side, temperature, text_share=0.5,
  image_id=None, num_words=None, replicate=lambda x: x,
):  # fmt: skip
  similarity = similarities(text, image, num_words, replicate) / temperature
  own = jnp.eye(len(weight), dtype=bool)[:, None, :, None]
  other_side = ~jnp.eye(2, dtype=bool)[None, :, None, :]
  partner = own & other_side  # [B, 2, B, 2]
  negatives = other_pairs(weight, image_id, replicate)[:, None, :, None]
  negatives &= other_side | same_side
  positive = jnp.sum(jnp.where(partner, similarity, 0), axis=(2, 3))  # [B, 2]
  total = _masked_logsumexp(similarity, negatives | partner, axis=(2, 3))
  shares = jnp.array([[text_share, 1 - text_share]])
  return weighted_mean(jnp.sum((total - positive) * shares, axis=1), weight)


def weighted_mean(values, weight):
  """Weighted mean over the rows, 0 where there are none."""
  return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1)


LOSSES = {"nt_xent": nt_xent, "clip": clip_loss}

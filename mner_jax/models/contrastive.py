"""Contrastive alignment of sentences and pictures.

B pairs of vectors of width D; row i of one side belongs to row i of the other.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

# Columns that are compared at a time: of a pod's batch the similarities of all
# pairs are never stored. Smaller blocks read the columns no less, and compile
# longer.
BLOCK = 32768


# exp(1 / tau) times a row of negatives must be finite in fp32, so that the sums
# need no maximum first: it would take the similarities through memory again.
MIN_TEMPERATURE = 0.015


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


class Side(NamedTuple):
  """One side of the pairs, texts or images, as unit vectors.

  Attributes:
    vectors: [B, D], or of tokens [B, A, D].
    mask: [B, A], the tokens that count; None with vectors.
  """

  vectors: jnp.ndarray
  mask: jnp.ndarray | None = None


def sides(text, image, num_words=None):
  """(text Side, image Side), in the type of the vectors that came.

  Args:
    text: [B, D], or words [B, W, D] with `num_words`.
    image: [B, D], or image tokens [B, P, D].
    num_words: [B], words that count; None compares vectors.
  """
  # In bf16 half as much is gathered; the norm is taken in fp32.
  vectors = [normalise(x).astype(x.dtype) for x in (text, image)]
  if num_words is None:
    return tuple(Side(x) for x in vectors)
  words = jnp.arange(text.shape[1])[None] < num_words[:, None]  # [B, W]
  masks = words, jnp.ones(image.shape[:2], bool)
  return tuple(map(Side, vectors, masks))


def similarities(seers, seen):
  """[B, M, C]: how row i of each of M Sides sees column j of another Side.

  Of vectors their cosine. Of tokens the late interaction of FILIP (Yao et al.
  2021, arXiv:2111.07783, eq. 4 and 5), with a over the tokens of i and b over
  those of j,

      s(i, j) = mean_a max_b cosine(a, b)

  so that it matters who sees: a text asks whether each of its words is
  somewhere in the picture, a picture whether each part of it is said. It needs
  memory for B C A^2 cosines.

  Args:
    seers: Sides of B rows.
    seen: a Side of C rows.
  """
  if seen.mask is None:
    vectors = jnp.stack([side.vectors for side in seers], axis=1)  # [B, M, D]
    return _cosines("imd,jd->imj", vectors, seen.vectors)
  found = [
    _late(
      _cosines("iad,jbd->iajb", side.vectors, seen.vectors),
      side.mask[:, :, None],
      seen.mask[None, None],
    )  # fmt: skip
    for side in seers
  ]
  return jnp.stack(found, axis=1)


# Exact products, sums in fp32; of bf16 that is one pass of a TPU.
_cosines = functools.partial(
  jnp.einsum,
  precision=jax.lax.Precision.HIGHEST,
  preferred_element_type=jnp.float32,
)


def own_similarity(rows, columns):
  """[B]: how row i sees column i."""
  a, b = (side.vectors.astype(jnp.float32) for side in (rows, columns))
  if rows.mask is None:
    return jnp.sum(a * b, axis=1)
  cosine = jnp.einsum("iad,ibd->iab", a, b, precision=jax.lax.Precision.HIGHEST)
  return _late(cosine, rows.mask, columns.mask[:, None])


def _late(cosine, mine, theirs):
  """[B, A, ..., A'] -> [B, ...]: mean over a of the best over b."""
  best = jnp.max(jnp.where(theirs, cosine, -jnp.inf), axis=-1)  # [B, A, ...]
  return jnp.sum(jnp.where(mine, best, 0), axis=1) / jnp.sum(mine, axis=1)


def nt_xent(text, image, weight, **options):
  """NT-Xent of SimCLR (Chen et al. 2020, arXiv:2002.05709, eq. 1), cosine.

      L = 1/(2B) sum_i -log( exp(s(i, p(i)) / tau) / sum_{k != i} exp(s(i, k) / tau) )

  over the 2B vectors of both sides: the denominator has 2B - 1 terms, those
  of the same side included.

  Args:
    text, image: [B, D], any scale, or words and image tokens: `sides`.
    weight: [B]; rows of weight 0 are neither anchors nor negatives, and the
      mean is over the rows that count.
    temperature: tau.
    text_share: weight of the anchors of the text in the mean of both sides.
    image_id: [B] int, equal for equal pictures: rows that show the same are no
      negatives, as translations of one caption are not. None = all differ.
    num_words: [B], see `sides`.
    replicate: function that gives every device the whole of an array whose
      rows are spread over devices; where B is, every pair is compared, and
      the similarities stay spread by their first axis.

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
  """Mean over rows and sides of log sum exp(all compared) - own."""
  numbers = jnp.arange(len(weight))
  about = _About(numbers, numbers if image_id is None else image_id, weight > 0)
  # What an anchor's term counts in the mean, [B, 2].
  shares = jnp.array([[text_share, 1 - text_share]])
  counted = weight[:, None] * shares / jnp.maximum(jnp.sum(weight), 1)
  how = _How(same_side, temperature, replicate)
  return _compare(how, sides(text, image, num_words), about, counted)


class _About(NamedTuple):
  """Of each row its number, its picture, and whether it counts; [B] each."""

  number: jnp.ndarray
  picture: jnp.ndarray
  counts: jnp.ndarray


class _How(NamedTuple):
  same_side: bool
  temperature: float
  replicate: Callable

  def blocks(self, rows, columns):
    """What is compared: (numbers of sides, these of `rows`, who they see).

    Who is seen is a tree of at most BLOCK rows of one of `columns`.
    """
    for n in (0, 1):
      seers = (0, 1) if self.same_side else (1 - n,)
      for block in _blocks(columns[n]):
        yield list(seers), [rows[m] for m in seers], block

  def exp(self, similarity):
    """exp(s / tau); no maximum is subtracted, see MIN_TEMPERATURE."""
    return jnp.exp(similarity / self.temperature)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _compare(how, rows, about, counted):
  """Sum of counted (log total - own); see `_compare_forward`."""
  return _compare_forward(how, rows, about, counted)[0]


def _compare_forward(how, rows, about, counted):
  # One gather of each side, here: a concatenation along the batch would move
  # every row to another device.
  columns, seen_about = jax.tree.map(how.replicate, (rows, about))
  own = _own(rows)  # [B, 2]
  totals = list(how.exp(own).T)
  terms = []
  trees = [(side, seen_about) for side in columns]
  for seers, looking, (theirs, other) in how.blocks(rows, trees):
    found = how.exp(similarities(looking, theirs))  # [B, M, C]
    found = jnp.where(_negative(about, other), found, 0)
    # Kept for the gradient in the vectors' type: it is most of the memory.
    terms.append(found.astype(theirs.vectors.dtype))
    for i, m in enumerate(seers):
      totals[m] += jnp.sum(terms[-1][:, i], axis=1, dtype=jnp.float32)
  total = jnp.stack(totals, axis=1)  # [B, 2]
  loss = jnp.sum(counted * (jnp.log(total) - own / how.temperature))
  return loss, (rows, about, columns, seen_about, terms, total, counted)


def _compare_backward(how, kept, g):
  """The gradient of the rows alone, which is all of it.

  Row i is compared twice with row j: as the anchor, and as a term of j's
  total. With e(i, j) = exp(s(i, j) / tau), T the totals and c `counted`,

      dL = 1/tau sum_ij (c_i / T_i e(i, j) ds(i, j) + c_j / T_j e(j, i) ds(j, i))

  for the pairs that are compared, and c_i (e_i / T_i - 1) / tau for i's own.
  All is computed where row i is, from the totals of all rows, [B, 2]; autodiff
  would compute the second term where j is, and send a gradient for every
  column back through the mesh.
  """  # fmt: skip
  rows, about, columns, seen_about, terms, total, counted = kept
  all_total, all_counted = map(how.replicate, (total, counted))
  own, pull = _pull(_own, rows)
  (grads,) = pull(counted * (how.exp(own) / total - 1))
  trees = [
    (columns[n], seen_about, all_total[:, n, None], all_counted[:, n, None])
    for n in (0, 1)
  ]
  blocks = how.blocks(rows, trees)
  for found, (seers, looking, block) in zip(terms, blocks, strict=True):
    theirs, other, *of_others = block
    their_total, their_counted = (x.T[None] for x in of_others)  # [1, 1, C]
    as_anchor = found / total[:, seers, None] * counted[:, seers, None]
    if theirs.mask is None:
      # e(j, i) is e(i, j), and the derivative of s(i, j) is what i sees.
      share = as_anchor + found / their_total * their_counted  # [B, M, C]
      share = share.astype(found.dtype)
      # The order of the result is one that a CPU, too, has for bf16.
      parts = _cosines("imj,jd->imd", share, theirs.vectors)
      parts = jnp.unstack(parts, axis=1)
    else:
      _, pull = _pull(lambda x, theirs=theirs: similarities(x, theirs), looking)
      (parts,) = pull(as_anchor)
      sees, pull = _pull(lambda x, theirs=theirs: _seen_by(theirs, x), looking)
      sees = jnp.where(_negative(about, other), how.exp(sees), 0)
      (more,) = pull(sees / their_total * their_counted)
      parts = jax.tree.map(jnp.add, parts, more)
    for m, part in zip(seers, parts, strict=True):
      grads[m] += part
  # A row that does not count is no term of the others either.
  scale = about.counts * g / how.temperature
  grads = (jax.vmap(jnp.multiply)(scale, x) for x in grads)
  pairs = zip(grads, rows, strict=True)
  return tuple(Side(x.astype(y.vectors.dtype)) for x, y in pairs), None, None


_compare.defvjp(_compare_forward, _compare_backward)


def _pull(function, rows):
  """jax.vjp of a function of Sides, with respect to their vectors in fp32."""

  def of_vectors(vectors):
    return function(
      [x._replace(vectors=v) for x, v in zip(rows, vectors, strict=True)]
    )

  return jax.vjp(of_vectors, [x.vectors.astype(jnp.float32) for x in rows])


def _seen_by(seer, rows):
  """[B, M, C]: how column j of `seer` sees row i of each of M Sides."""
  seen = [similarities([seer], side)[:, 0].T for side in rows]
  return jnp.stack(seen, axis=1)


def _own(rows):
  """[B, 2]: how text i sees image i, and image i text i."""
  found = own_similarity(*rows), own_similarity(*rows[::-1])
  return jnp.stack(found, axis=1)


def _negative(rows, columns):
  """[B, 1, C]: columns that count, of others and with another picture."""
  differ = rows.number[:, None] != columns.number[None]
  differ &= rows.picture[:, None] != columns.picture[None]
  return (differ & columns.counts[None])[:, None]


def _blocks(tree):
  """Cuts arrays [B, ...] into blocks of BLOCK rows and a rest: list of trees."""
  leaves, structure = jax.tree.flatten(tree)
  total = len(leaves[0])
  sizes = [min(BLOCK, total - i) for i in range(0, total, BLOCK)]
  parts = zip(*(jax.lax.split(x, sizes) for x in leaves), strict=True)
  return [structure.unflatten(part) for part in parts]


def weighted_mean(values, weight):
  """Weighted mean over the rows, 0 where there are none."""
  return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1)


LOSSES = {"nt_xent": nt_xent, "clip": clip_loss}

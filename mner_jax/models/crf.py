"""Linear-chain conditional random field (Lafferty et al. 2001).

    score(y | x) = start[y_1] + sum_t emissions[t, y_t]
                   + sum_t transitions[y_t-1, y_t] + end[y_W]
    log p(y | x) = score(y | x) - log sum_y' exp score(y' | x)

Reference implementation: pytorch-crf 0.7.2, with lengths in place of a mask,
which rules out masks with holes. B sentences, W words, K tags.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.models.padding import length_mask


class CRFParams(NamedTuple):
  """The parameters of a CRF."""

  start: jax.Array  # [K]
  transitions: jax.Array  # [K, K], from and to
  end: jax.Array  # [K]


class CRF(nn.Module):
  """Owns the parameters; the functions below compute with them."""

  num_tags: int

  @nn.compact
  def __call__(self):
    """Returns the CRFParams, initialised from U(-0.1, 0.1)."""

    def init(key, shape):
      return jax.random.uniform(key, shape, minval=-0.1, maxval=0.1)

    k = self.num_tags
    return CRFParams(
      self.param("start", init, (k,)),
      self.param("transitions", init, (k, k)),
      self.param("end", init, (k,)),
    )


def softmax_params(num_tags):
  """Returns the CRFParams of a softmax: no transitions, all 0.

  The log-likelihood is then exactly the sum over words of log softmax, the
  best path each word's highest emission, the marginals the softmax.
  """
  zeros = jnp.zeros(num_tags)
  return CRFParams(zeros, jnp.zeros((num_tags, num_tags)), zeros)


def params_of(params, num_tags):
  """Returns the CRFParams of a model's parameters, whichever its decoder is."""
  if "crf" in params:
    return CRFParams(**params["crf"])
  return softmax_params(num_tags)


def _prepare(emissions, lengths):
  """Returns emissions in fp32, 0 beyond the length, and the mask [B, W]."""
  mask = length_mask(lengths, emissions.shape[1])
  emissions = emissions.astype(jnp.float32)
  return jnp.where(mask[:, :, None], emissions, 0), mask


def log_likelihood(crf, emissions, tags, lengths):
  """log p(tags | emissions) of each sentence, [B] fp32.

  Args:
    crf: CRFParams.
    emissions: [B, W, K]; anything, NaN too, beyond the length.
    tags: [B, W] int; anything beyond the length.
    lengths: [B] int, words of each sentence, at least 1.
  """
  emissions, mask = _prepare(emissions, lengths)
  tags = jnp.where(mask, tags, 0)
  log_z = jnp.sum(_partition(crf, emissions, mask), axis=0)
  return _path_score(crf, emissions, tags, mask, lengths) - log_z


def _path_score(crf, emissions, tags, mask, lengths):
  emitted = jnp.take_along_axis(emissions, tags[:, :, None], axis=2)[:, :, 0]
  moved = crf.transitions[tags[:, :-1], tags[:, 1:]]  # [B, W - 1]
  last = jnp.take_along_axis(tags, lengths[:, None] - 1, axis=1)[:, 0]
  return (
    crf.start[tags[:, 0]]
    + jnp.sum(emitted, axis=1)
    + jnp.sum(jnp.where(mask[:, 1:], moved, 0), axis=1)
    + crf.end[last]
  )


def _partition(crf, emissions, mask):
  """Forward algorithm: [W, B], whose sum over W is log Z, Z = sum exp score.

  In parts, as the sum over a long sentence would leave fp32 few digits.
  """
  # Sentences last: B fills a vector register (a TPU's 128 lanes), K does not.
  emissions = jnp.transpose(emissions, (1, 2, 0))  # [W, K, B]
  # A copy for each sentence: the gradient is then summed over the sentences,
  # which may be on many devices, once after the loop and not in every step.
  shape = (*crf.transitions.shape, emissions.shape[2])
  transitions = jnp.broadcast_to(crf.transitions[:, :, None], shape)

  @jax.checkpoint  # or the [K, K, B] of every step are kept for the gradient
  def step(alpha, inputs):  # [K, B], the log of the paths that end in each tag
    emission, inside = inputs  # [K, B], [B]
    top = jax.lax.stop_gradient(jnp.max(alpha, axis=0))
    alpha -= top[None]
    moved = _logsumexp(alpha[:, None] + transitions)
    return jnp.where(inside[None], moved + emission, alpha), top

  first = crf.start[:, None] + emissions[0]  # [K, B]
  alpha, tops = jax.lax.scan(step, first, (emissions[1:], mask.T[1:]))
  return jnp.concatenate([tops, _logsumexp(alpha + crf.end[:, None])[None]])


def _logsumexp(x):
  """log sum exp over the first axis, whose largest number is finite."""
  top = jax.lax.stop_gradient(jnp.max(x, axis=0))
  return top + jnp.log(jnp.sum(jnp.exp(x - top[None]), axis=0))


def viterbi(crf, emissions, lengths):
  """The best path of each sentence; ties go to the lowest tag.

  Args:
    crf: CRFParams.
    emissions: [B, W, K]; anything beyond the length.
    lengths: [B] int, at least 1.

  Returns:
    tags [B, W] int32 (0 beyond the length) and their path scores [B].
  """
  emissions, mask = _prepare(emissions, lengths)
  emissions = jnp.transpose(emissions, (1, 2, 0))  # [W, K, B], as above
  transitions = crf.transitions[:, :, None]  # [from, to, 1]

  def forward(best, inputs):
    emission, inside = inputs  # [K, B], [B]
    moved = jnp.max(best[:, None] + transitions, axis=0)
    return jnp.where(inside[None], moved + emission, best), best

  first = crf.start[:, None] + emissions[0]
  best, before = jax.lax.scan(forward, first, (emissions[1:], mask.T[1:]))
  best += crf.end[:, None]  # [K, B]; before: [W - 1, K, B]

  def backward(tag, inputs):
    # Where the best path to `tag` came from: K sums a word, where pointers
    # made on the way forward would take K K. The sums are the same.
    best, inside = inputs  # [K, B], [B]
    came_from = jnp.argmax(best + crf.transitions[:, tag], axis=0)
    # Past the end, keep the same tag.
    return jnp.where(inside, came_from, tag), tag

  last = jnp.argmax(best, axis=0)  # [B]
  first_tag, tags = jax.lax.scan(
    backward, last, (before, mask.T[1:]), reverse=True
  )
  tags = jnp.concatenate([first_tag[None], tags]).T  # [B, W]
  return jnp.where(mask, tags, 0).astype(jnp.int32), jnp.max(best, axis=0)


def entity_probabilities(crf, emissions, lengths, first, last, inner):
  """p(entity | sentence): Z of the paths that hold the entity, over Z.

  Tags are in the order of `Config.tags`: O = 0, then B- and I- of each type. An
  entity is read as seqeval reads tags by default: it begins with a B-, or an
  I- that follows no tag of its type, and holds all I- of its type behind.

  Args:
    crf: CRFParams.
    emissions: [E, W, K], the sentence of each of E entities; anything beyond
      the length.
    lengths: [E] int, words of that sentence.
    first, last: [E] int, the entity's first and last word.
    inner: [E] int, the I- tag of its type.

  Returns:
    [E] fp32.
  """
  emissions, mask = _prepare(emissions, lengths)
  word = jnp.arange(emissions.shape[1])[None, :, None]  # [1, W, 1]
  tag = jnp.arange(emissions.shape[2])[None, None]  # [1, 1, K]
  first, last, inner = (x[:, None, None] for x in (first, last, inner))
  goes_on = tag == inner
  of_type = goes_on | (tag == inner - 1)
  outside = (word <= first) | (word > last)
  allowed = (outside | goes_on) & ((word != last + 1) | ~goes_on)
  # Two ways to begin: B-, whatever is in front, or an I- that is an orphan.
  begins = allowed & ((word != first) | (of_type & ~goes_on))
  orphan = allowed & ((word != first) | goes_on)
  orphan &= (word != first - 1) | ~of_type
  log_z = _partition(crf, emissions, mask)  # [W, E]
  held = [
    _partition(crf, jnp.where(kept, emissions, -jnp.inf), mask)
    for kept in (begins, orphan)
  ]
  # Word by word: far from the entity the two do not differ.
  return jnp.exp(jnp.logaddexp(*(jnp.sum(x - log_z, axis=0) for x in held)))

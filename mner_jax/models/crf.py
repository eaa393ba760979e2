"""Linear-chain conditional random field (Lafferty et al. 2001).

    score(y | x) = start[y_1] + sum_t emissions[t, y_t]
                   + sum_t transitions[y_t-1, y_t] + end[y_W]
    log p(y | x) = score(y | x) - log sum_y' exp score(y' | x)

Reference implementation: pytorch-crf 0.7.2, with lengths in place of a mask,
so that a mask with holes cannot be said. B sentences, W words, K tags.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Scores(NamedTuple):
  """The parameters of a CRF."""

  start: jax.Array  # [K]
  transitions: jax.Array  # [K, K], from and to
  end: jax.Array  # [K]


class CRF(nn.Module):
  """Owns the parameters; the functions below do the work."""

  num_tags: int

  @nn.compact
  def __call__(self):
    """The Scores, drawn from U(-0.1, 0.1) at the start of training."""

    def init(key, shape):
      return jax.random.uniform(key, shape, minval=-0.1, maxval=0.1)

    k = self.num_tags
    return Scores(
      self.param("start", init, (k,)),
      self.param("transitions", init, (k, k)),
      self.param("end", init, (k,)),
    )


def softmax_scores(num_tags):
  """The Scores of a softmax: a CRF without transitions, all 0.

  Exactly that: the log-likelihood is the sum over words of log softmax, the
  best path each word's highest emission, the marginals the softmax.
  """
  zeros = jnp.zeros(num_tags)
  return Scores(zeros, jnp.zeros((num_tags, num_tags)), zeros)


def scores_of(params, num_tags):
  """The Scores of a model's parameters, whichever its decoder is."""
  return (
    Scores(**params["crf"]) if "crf" in params else softmax_scores(num_tags)
  )


def _prepare(emissions, lengths):
  """Emissions in fp32, 0 (whatever they were) beyond the length; the mask."""
  mask = jnp.arange(emissions.shape[1])[None, :] < lengths[:, None]  # [B, W]
  emissions = emissions.astype(jnp.float32)
  return jnp.where(mask[:, :, None], emissions, 0), mask


def log_likelihood(scores, emissions, tags, lengths):
  """log p(tags | emissions) of each sentence, [B] fp32.

  Args:
    scores: Scores.
    emissions: [B, W, K]; anything, NaN too, beyond the length.
    tags: [B, W] int; anything beyond the length.
    lengths: [B] int, words of each sentence, at least 1.
  """
  emissions, mask = _prepare(emissions, lengths)
  tags = jnp.where(mask, tags, 0)
  return _path_score(scores, emissions, tags, mask, lengths) - _log_partition(
    scores, emissions, mask
  )


def _path_score(scores, emissions, tags, mask, lengths):
  emitted = jnp.take_along_axis(emissions, tags[:, :, None], axis=2)[:, :, 0]
  moved = scores.transitions[tags[:, :-1], tags[:, 1:]]  # [B, W - 1]
  last = jnp.take_along_axis(tags, lengths[:, None] - 1, axis=1)[:, 0]
  return (
    scores.start[tags[:, 0]]
    + jnp.sum(emitted, axis=1)
    + jnp.sum(jnp.where(mask[:, 1:], moved, 0), axis=1)
    + scores.end[last]
  )


def _log_partition(scores, emissions, mask):
  """The forward algorithm: log of the sum over all paths, [B]."""
  # Sentences last: B fills a vector register (a TPU's 128 lanes), K does not.
  emissions = jnp.transpose(emissions, (1, 2, 0))  # [W, K, B]
  # One for each sentence: their gradient is summed over the sentences, which
  # may lie on many devices, once behind the loop and not in each of its steps.
  transitions = jnp.broadcast_to(
    scores.transitions[:, :, None],
    (*scores.transitions.shape, emissions.shape[2]),
  )  # [K, K, B]

  @jax.checkpoint  # or the [K, K, B] of every step are kept for the gradient
  def step(carry, inputs):
    # alpha stays near 0, and what was taken off is summed apart: scores of a
    # long sentence would leave fp32 few digits for the differences that the
    # gradient is made of.
    alpha, total = carry  # [K, B], [B]
    emission, inside = inputs  # [K, B], [B]
    top = jax.lax.stop_gradient(jnp.max(alpha, axis=0))
    alpha -= top[None]
    moved = _logsumexp(alpha[:, None] + transitions)
    alpha = jnp.where(inside[None], moved + emission, alpha)
    return (alpha, total + top), None

  first = scores.start[:, None] + emissions[0]  # [K, B]
  zero = jnp.zeros_like(first[0])
  steps = (emissions[1:], mask.T[1:])
  (alpha, total), _ = jax.lax.scan(step, (first, zero), steps)
  return total + _logsumexp(alpha + scores.end[:, None])


def _logsumexp(x):
  """log sum exp over the first axis, of finite numbers."""
  top = jax.lax.stop_gradient(jnp.max(x, axis=0))
  return top + jnp.log(jnp.sum(jnp.exp(x - top[None]), axis=0))


def viterbi(scores, emissions, lengths):
  """The best path of each sentence; ties go to the lowest tag.

  Args:
    scores: Scores.
    emissions: [B, W, K]; anything beyond the length.
    lengths: [B] int, at least 1.

  Returns:
    tags [B, W] int32 (0 beyond the length) and their path scores [B].
  """
  emissions, mask = _prepare(emissions, lengths)
  emissions = jnp.transpose(emissions, (1, 2, 0))  # [W, K, B], as above
  transitions = scores.transitions[:, :, None]  # [from, to, 1]

  def forward(best, inputs):
    emission, inside = inputs  # [K, B], [B]
    moved = jnp.max(best[:, None] + transitions, axis=0)
    return jnp.where(inside[None], moved + emission, best), best

  first = scores.start[:, None] + emissions[0]
  best, before = jax.lax.scan(forward, first, (emissions[1:], mask.T[1:]))
  best += scores.end[:, None]  # [K, B]; before: [W - 1, K, B]

  def backward(tag, inputs):
    # Where the best path to `tag` came from: K sums a word, where pointers
    # made on the way forward would take K K. The sums are the same.
    best, inside = inputs  # [K, B], [B]
    came_from = jnp.argmax(best + scores.transitions[:, tag], axis=0)
    # Beyond the end a path stays where it is.
    return jnp.where(inside, came_from, tag), tag

  last = jnp.argmax(best, axis=0)  # [B]
  first_tag, tags = jax.lax.scan(
    backward, last, (before, mask.T[1:]), reverse=True
  )
  tags = jnp.concatenate([first_tag[None], tags]).T  # [B, W]
  return jnp.where(mask, tags, 0).astype(jnp.int32), jnp.max(best, axis=0)


def entity_marginals(scores, emissions, tags, lengths):
  """p(entity | emissions) of each entity of a path, at its last word.

  Tags are in the order of `Config.tags`: O = 0, then B- and I- of each type.
  They are read as seqeval reads them by default: an entity of type X is a
  B-X, or an I-X that follows neither B-X nor I-X, and all I-X right behind.
  Its probability is that of all paths in which exactly these words are an
  entity of type X: forward-backward over the sentence, in which the entity's
  words keep to the paths that begin, go on and end there.

  Args:
    scores: Scores.
    emissions: [B, W, K]; anything beyond the length.
    tags: [B, W] int, for example of `viterbi`; anything beyond the length.
    lengths: [B] int, at least 1.

  Returns:
    [B, W] fp32, 0 where no entity of `tags` ends.
  """
  emissions, mask = _prepare(emissions, lengths)
  tags = jnp.where(mask, tags, 0)
  inner = (tags + 1) // 2 * 2  # [B, W], I- of each word's type; 0 outside
  zero = jnp.zeros_like(tags[:, :1])
  goes_on = (tags == inner) & (tags > 0)
  goes_on &= inner == jnp.concatenate([zero, inner[:, :-1]], axis=1)
  ends = (tags > 0) & ~jnp.concatenate([goes_on[:, 1:], zero > 0], axis=1)
  k = jnp.arange(len(scores.start))[None]  # [1, K]
  transitions = scores.transitions[None]  # [1, from, to]
  lse = jax.nn.logsumexp

  def forward(carry, inputs):
    # alpha: log p(tag here | words so far). held: the part of it in which the
    # entity of the path has begun at its first word and goes on until here.
    alpha, held = carry  # [B, K], [B, K]
    emission, inside, inner, goes_on = inputs  # [B, K], [B], [B], [B]
    inner, goes_on = inner[:, None], goes_on[:, None]
    moved = alpha[:, :, None] + transitions  # [B, from, to]
    of_type = (k == inner) | (k == inner - 1)  # [B, K]
    # An I- behind its own type would not begin an entity.
    orphan = jnp.where(of_type, -jnp.inf, alpha)[:, :, None] + transitions
    begun = jnp.where(k == inner - 1, lse(moved, axis=1), -jnp.inf)
    begun = jnp.where(k == inner, lse(orphan, axis=1), begun)
    kept = lse(held[:, :, None] + transitions, axis=1)
    kept = jnp.where(k == inner, kept, -jnp.inf)
    new = lse(moved, axis=1) + emission
    total = lse(new, axis=1, keepdims=True)
    held = jnp.where(goes_on, kept, begun) + emission - total
    alpha = jnp.where(inside[:, None], new - total, alpha)
    return (alpha, held), (alpha, held)

  def backward(beta, inputs):
    # beta[a]: log of the paths behind a word of tag a; leave[a]: of those
    # that do not go on with the word's entity.
    emission, inside, alpha, inner = inputs  # of the next word; of this one
    moved = transitions + (emission + beta)[:, None]  # [B, from, to]
    leave = lse(jnp.where((k == inner[:, None])[:, None], -jnp.inf, moved), 2)
    new = lse(moved, axis=2)
    total = lse(alpha + new, axis=1, keepdims=True)
    inside = inside[:, None]
    beta = jnp.where(inside, new - total, beta)
    return beta, jnp.where(inside, leave - total, beta)

  first = scores.start[None] + emissions[:, 0]  # [B, K]
  total = lse(first, axis=1, keepdims=True)
  of_type = (k == inner[:, :1]) | (k == inner[:, :1] - 1)
  alpha = first - total
  held = jnp.where(of_type, alpha, -jnp.inf)
  words = jax.tree.map(
    lambda x: jnp.swapaxes(x, 0, 1), (emissions, mask, inner, goes_on)
  )
  _, (alphas, helds) = jax.lax.scan(
    forward, (alpha, held), jax.tree.map(lambda x: x[1:], words)
  )
  alphas = jnp.concatenate([alpha[None], alphas])  # [W, B, K]
  helds = jnp.concatenate([held[None], helds])
  beta = scores.end[None] - lse(
    alphas[-1] + scores.end[None], axis=1, keepdims=True
  )
  _, leaves = jax.lax.scan(
    backward, beta,
    (words[0][1:], words[1][1:], alphas[:-1], words[2][:-1]), reverse=True,
  )  # fmt: skip
  leaves = jnp.concatenate([leaves, beta[None]])  # [W, B, K]
  found = jnp.exp(lse(helds + leaves, axis=2)).T  # [B, W]
  return jnp.where(ends, jnp.minimum(found, 1), 0)

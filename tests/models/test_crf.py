"""The CRF against enumeration of all paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mner_jax.models import crf


def brute_force(scores, emissions, length):
  """Every path of a sentence with its score, float64."""
  start, transitions, end = (np.asarray(s, np.float64) for s in scores)
  paths = list(itertools.product(range(len(start)), repeat=length))
  values = [
    start[p[0]]
    + sum(float(emissions[t, tag]) for t, tag in enumerate(p))
    + sum(transitions[a, b] for a, b in itertools.pairwise(p))
    + end[p[-1]]
    for p in paths
  ]
  return paths, np.array(values)


# Two shapes in all: what takes the time is compiling.
WORDS = 6
log_likelihood = jax.jit(crf.log_likelihood)
viterbi = jax.jit(crf.viterbi)
gradient = jax.jit(
  jax.grad(
    lambda s, e, y, n: crf.log_likelihood(s, e, y, n).sum(), argnums=(0, 1)
  )
)


def draw(rng, batch, words, tags, scale):
  scores = crf.Scores(
    rng.normal(size=tags), rng.normal(size=(tags, tags)), rng.normal(size=tags)
  )
  scores = jax.tree.map(lambda x: jnp.float32(scale * x), scores)
  emissions = np.float32(scale * rng.normal(size=(batch, words, tags)))
  path = rng.integers(tags, size=(batch, words))
  return scores, emissions, path


cases = given(
  seed=st.integers(0, 10**6),
  lengths=st.lists(st.integers(1, 5), min_size=3, max_size=3),
  tags=st.sampled_from([2, 4]),
  scale=st.sampled_from([0.1, 1.0, 10.0]),
)


@cases
@settings(max_examples=40, deadline=None)
def test_log_likelihood_and_viterbi_equal_enumeration(
  seed, lengths, tags, scale
):
  rng = np.random.default_rng(seed)
  scores, emissions, path = draw(rng, len(lengths), WORDS, tags, scale)
  lengths = np.array(lengths)
  got = log_likelihood(scores, emissions, path, lengths)
  best, best_score = viterbi(scores, emissions, lengths)
  for row, length in enumerate(lengths):
    paths, values = brute_force(scores, emissions[row], length)
    top = values.max()
    log_z = top + np.log(np.exp(values - top).sum())
    gold = values[paths.index(tuple(path[row, :length]))]
    np.testing.assert_allclose(got[row], gold - log_z, atol=1e-5 * scale * 10)
    assert tuple(np.array(best[row, :length])) == paths[values.argmax()]
    np.testing.assert_allclose(best_score[row], top, rtol=1e-5, atol=1e-5)
    assert not np.any(best[row, length:])


@cases
@settings(max_examples=15, deadline=None)
def test_gradient_is_gold_minus_expected_counts(seed, lengths, tags, scale):
  rng = np.random.default_rng(seed)
  scores, emissions, path = draw(rng, len(lengths), WORDS, tags, scale)
  lengths = np.array(lengths)
  grads = gradient(scores, emissions, path, lengths)
  want_scores = crf.Scores(*(np.zeros(s.shape) for s in scores))
  want = np.zeros_like(emissions, np.float64)
  for row, length in enumerate(lengths):
    paths, values = brute_force(scores, emissions[row], length)
    p = np.exp(values - values.max())
    weights = list(-p / p.sum())
    for y, w in [
      *zip(paths, weights, strict=True),
      (tuple(path[row, :length]), 1),
    ]:
      want_scores.start[y[0]] += w
      want_scores.end[y[-1]] += w
      for t, tag in enumerate(y):
        want[row, t, tag] += w
      for a, b in itertools.pairwise(y):
        want_scores.transitions[a, b] += w
  np.testing.assert_allclose(grads[1], want, atol=2e-5)
  for g, w in zip(grads[0], want_scores, strict=True):
    np.testing.assert_allclose(g, w, atol=2e-5)


def test_padding_may_hold_anything():
  rng = np.random.default_rng(0)
  scores, emissions, path = draw(rng, 3, 6, 4, 1.0)
  lengths = np.array([2, 6, 1])
  dirty, dirty_path = emissions.copy(), path.copy()
  for row, length in enumerate(lengths):
    dirty[row, length:] = [np.nan, np.inf, -np.inf, 1e30]
    dirty_path[row, length:] = -100

  def loss(scores, e, y):
    return crf.log_likelihood(scores, e, y, lengths).sum()

  clean = jax.value_and_grad(loss, argnums=(0, 1))(scores, emissions, path)
  got = jax.value_and_grad(loss, argnums=(0, 1))(scores, dirty, dirty_path)
  jax.tree.map(np.testing.assert_array_equal, clean, got)
  jax.tree.map(
    np.testing.assert_array_equal,
    crf.viterbi(scores, emissions, lengths),
    crf.viterbi(scores, dirty, lengths),
  )


def test_ties_go_to_the_lowest_tag():
  zeros = crf.Scores(jnp.zeros(3), jnp.zeros((3, 3)), jnp.zeros(3))
  tags, _ = crf.viterbi(zeros, np.zeros((1, 4, 3)), np.array([4]))
  np.testing.assert_array_equal(tags, [[0, 0, 0, 0]])

"""The CRF against enumeration of all paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

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
  scores = crf.CRFParams(
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
  want_scores = crf.CRFParams(*(np.zeros(s.shape) for s in scores))
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
  zeros = crf.CRFParams(jnp.zeros(3), jnp.zeros((3, 3)), jnp.zeros(3))
  tags, _ = crf.viterbi(zeros, np.zeros((1, 4, 3)), np.array([4]))
  np.testing.assert_array_equal(tags, [[0, 0, 0, 0]])


entity_probabilities = jax.jit(crf.entity_probabilities)
TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


@given(
  seed=st.integers(0, 10**6),
  lengths=st.lists(st.integers(1, 5), min_size=3, max_size=3),
  scale=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
)
@settings(max_examples=40, deadline=None)
def test_marginals_equal_enumeration(seed, lengths, scale):
  """Of any path, orphans and neighbours of one type included."""
  rng = np.random.default_rng(seed)
  scores, emissions, path = draw(rng, len(lengths), WORDS, len(TAGS), scale)
  lengths = np.array(lengths)
  for row, length in enumerate(lengths):
    emissions[row, length:] = np.nan
  entities = [
    (row, first, last, TAGS.index(f"I-{kind}"))
    for row, length in enumerate(lengths)
    for kind, first, last in get_entities([TAGS[t] for t in path[row, :length]])
  ]
  rows = np.array(entities or [(0, 0, 0, 2)]).T
  found = entity_probabilities(
    scores, emissions[rows[0]], lengths[rows[0]], *rows[1:]
  )
  got = np.zeros((len(lengths), WORDS))
  for (row, _, last, _), p in zip(entities, found, strict=False):
    got[row, last] = p
  for row, length in enumerate(lengths):
    paths, values = brute_force(scores, emissions[row], length)
    p = np.exp(values - values.max())
    p /= p.sum()
    # seqeval says which entities each of the paths has.
    chances = {}
    for tags, chance in zip(paths, p, strict=True):
      for entity in get_entities([TAGS[t] for t in tags]):
        chances[entity] = chances.get(entity, 0) + chance
    want = np.zeros(WORDS)
    for entity in get_entities([TAGS[t] for t in path[row, :length]]):
      want[entity[2]] = chances[entity]
    np.testing.assert_allclose(got[row], want, rtol=1e-4, atol=1e-6)


def test_marginals_of_a_long_sentence_stay_exact():
  """Of 4,000 equal words, all but the outer ones have the same chance."""
  words = 4000
  rng = np.random.default_rng(0)
  scores, _, _ = draw(rng, 1, 1, len(TAGS), 3.0)
  emissions = np.tile(
    30 + 3 * rng.normal(size=(1, 1, len(TAGS))), (1, words, 1)
  )
  where = np.array([100, 2000, words - 101])
  got = entity_probabilities(
    scores, np.repeat(emissions, 3, 0), np.full(3, words), where, where,
    np.full(3, TAGS.index("I-PER")),
  )  # fmt: skip
  # A short sentence of such words around the one in question, in float64.
  # Its ends are far enough away to be forgotten (asserted).
  want = float64_chain(scores, emissions[0, 0], 60, TAGS.index("B-PER"))
  assert abs(want - float64_chain(scores, emissions[0, 0], 80, 3)) < 1e-12
  np.testing.assert_allclose(got, want, rtol=2e-5)


def float64_chain(scores, emission, words, tag):
  """p(one entity of one word, in the middle), B- or orphan, by powers."""
  start, transitions, end = (np.asarray(s, np.float64) for s in scores)
  weights = np.exp(np.asarray(emission, np.float64) - np.max(emission))
  step = np.exp(transitions) * weights[None]
  power = np.linalg.matrix_power(step, words // 2)
  before = (np.exp(start) * weights) @ power
  after = power @ np.exp(end)
  begin, leave = step.copy(), step.copy()
  begin[[tag, tag + 1], tag + 1] = 0  # an I- behind its type goes on
  leave[:, tag + 1] = 0
  here = np.isin(np.arange(len(start)), [tag, tag + 1])
  entity = (before @ begin * here) @ leave @ after
  return entity / (before @ step @ step @ after)

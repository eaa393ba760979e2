"""The CRF against enumeration of all paths."""

import functools
import itertools

import jax
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


# Few shapes: what takes the time is compiling.
WORDS = 6
TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
log_likelihood = jax.jit(crf.log_likelihood)
viterbi = jax.jit(crf.viterbi)
entity_probabilities = jax.jit(crf.entity_probabilities)
cases = given(
  seed=st.integers(0, 10**6),
  lengths=st.tuples(*[st.integers(1, 5)] * 3),
  scale=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
)


def draw(seed, lengths, scale, tags=5):
  """CRFParams, emissions and tags, with what is no number in the padding."""
  rng = np.random.default_rng(seed)
  shapes = (tags,), (tags, tags), (tags,)
  drawn = (np.float32(scale * rng.normal(size=x)) for x in shapes)
  scores = crf.CRFParams(*drawn)
  size = len(lengths), WORDS
  emissions = np.float32(scale * rng.normal(size=(*size, tags)))
  path = rng.integers(tags, size=size)
  for row, length in enumerate(lengths):
    emissions[row, length:] = np.resize([np.nan, np.inf, -np.inf, 1e30], tags)
    path[row, length:] = -100
  return scores, emissions, path, np.array(lengths)


@cases
@settings(max_examples=40, deadline=None)
def test_log_likelihood_and_viterbi_equal_enumeration(seed, lengths, scale):
  """Where all paths tie, at scale 0, the lowest tags are the best."""
  close = np.testing.assert_allclose
  for tags in (2, 4):
    scores, emissions, path, _ = draw(seed, lengths, scale, tags)
    got = log_likelihood(scores, emissions, path, np.array(lengths))
    best, best_score = viterbi(scores, emissions, np.array(lengths))
    for row, length in enumerate(lengths):
      paths, values = brute_force(scores, emissions[row], length)
      top = values.max()
      log_z = top + np.log(np.exp(values - top).sum())
      gold = values[paths.index(tuple(path[row, :length]))]
      close(got[row], gold - log_z, atol=1e-4 * scale + 1e-6)
      assert tuple(np.array(best[row, :length])) == paths[values.argmax()]
      close(best_score[row], top, rtol=1e-5, atol=1e-5)
      assert not np.any(best[row, length:])


def test_padding_reaches_no_gradient():
  scores, dirty, path, lengths = draw(0, (2, 6, 1), 1.0)
  inside = np.arange(WORDS) < lengths[:, None]
  clean = np.where(inside[:, :, None], dirty, 0)

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1))
  def gradient(scores, emissions, path):
    return crf.log_likelihood(scores, emissions, path, lengths).sum()

  want = gradient(scores, clean, np.where(inside, path, 0))
  got = gradient(scores, dirty, path)
  jax.tree.map(np.testing.assert_array_equal, got, want)
  assert not np.any(got[1][~inside])


@cases
@settings(max_examples=40, deadline=None)
def test_marginals_equal_enumeration(seed, lengths, scale):
  """Of any path, orphans and neighbours of one type included."""
  scores, emissions, path, counts = draw(seed, lengths, scale)
  rows, chances = [], []
  for row, length in enumerate(lengths):
    paths, values = brute_force(scores, emissions[row], length)
    p = np.exp(values - values.max())
    p /= p.sum()
    # seqeval says which entities each of the paths has.
    entities = [{*get_entities([TAGS[t] for t in y])} for y in paths]
    for entity in get_entities([TAGS[t] for t in path[row, :length]]):
      kind, first, last = entity
      rows.append((row, first, last, TAGS.index(f"I-{kind}")))
      chances.append(p[[entity in found for found in entities]].sum())
  found = len(rows)
  # As many as there can be: one shape.
  row, *where = np.array(rows + [(0, 0, 0, 2)] * (15 - found)).T
  got = entity_probabilities(scores, emissions[row], counts[row], *where)
  np.testing.assert_allclose(got[:found], chances, rtol=1e-4, atol=1e-6)


def test_marginals_of_a_long_sentence_stay_exact():
  """Of 4,000 equal words, all but the outer ones have the same chance."""
  scores, emissions, _, _ = draw(0, [1], 3.0)
  inner = np.array([TAGS.index("I-PER")])

  def chance(words, where):
    word = np.tile(30 + emissions[:, :1], (1, words, 1))
    words, where = np.array([words]), np.array([where])
    return entity_probabilities(scores, word, words, where, where, inner)

  # A short sentence, whose ends are far enough away to be forgotten.
  want = chance(60, 30)
  np.testing.assert_allclose(chance(80, 50), want, rtol=1e-6)
  for where in (100, 2000, 3899):
    np.testing.assert_allclose(chance(4000, where), want, rtol=2e-5)

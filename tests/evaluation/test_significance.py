"""Resampling against scipy, brute force and seqeval."""

import collections
import functools
import itertools

import numpy as np
import pytest
import scipy.stats
import seqeval.metrics
from hypothesis import given
from hypothesis import strategies as st

from mner_jax.data.synthetic import corpus
from mner_jax.evaluation import significance

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SENTENCES = st.lists(
  st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1),
  min_size=1,
  max_size=8,
)


@given(SENTENCES)
def test_micro_f1_of_the_counts_is_that_of_seqeval(sentences):
  gold, predicted = (
    [[pair[side] for pair in s] for s in sentences] for side in (0, 1)
  )
  counts = significance.sentence_counts(gold, predicted)
  expected = 0.0
  if counts.any():
    expected = seqeval.metrics.f1_score(gold, predicted, zero_division=0)
  assert significance.micro_f1(counts.sum(0)) == pytest.approx(
    expected, rel=1e-12
  )


def look_up(train, test):
  """The tags of a baseline: each word's most frequent tag in training."""
  counts = collections.defaultdict(collections.Counter)
  for sentence, _ in train:
    for word, tag in zip(sentence.words, sentence.tags, strict=True):
      counts[word][tag] += 1
  best = {w: max(sorted(tags), key=tags.get) for w, tags in counts.items()}
  predicted = [[best.get(w, "O") for w in x.sentence.words] for x in test]
  gold = [example.sentence.tags for example in test]
  return significance.sentence_counts(gold, predicted)


@pytest.fixture(scope="module")
def systems():
  """Counts [S, N, 3] of two baselines, three "seeds" (parts of train) each."""
  train, test = (corpus.examples(x, size=200) for x in ("train", "test"))
  parts = [train[i::3] for i in range(3)]
  smaller = [part[::2] for part in parts]
  return tuple(
    np.stack([look_up(part, test) for part in trained])
    for trained in (parts, smaller)
  )


percentiles = functools.partial(
  scipy.stats.bootstrap, method="percentile", rng=np.random.default_rng(1)
)


def test_the_bootstrap_is_that_of_scipy(systems):
  counts, _ = systems

  def statistic(seeds, sentences):
    drawn = counts[seeds.astype(int)][:, sentences.astype(int)]
    return np.mean(significance.micro_f1(drawn.sum(axis=1)))

  theirs = percentiles(
    (np.arange(3), np.arange(counts.shape[1])),
    statistic,
    n_resamples=2000,
    vectorized=False,
  )
  ours = significance.bootstrap(counts, replicates=20_000)
  width = ours[1] - ours[0]
  # Both have an error of drawing; that of scipy's ends is about 3 % of it.
  np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.1 * width)


def test_one_seed_varies_its_sentences_only(systems):
  counts = systems[0][:1]

  def statistic(correct, predicted, gold, axis):
    sums = [np.sum(x, axis=axis) for x in (correct, predicted, gold)]
    return significance.micro_f1(np.stack(sums, axis=-1))

  columns = tuple(counts[0].T.astype(float))
  sizes = {"n_resamples": 10_000, "batch": 1000}
  theirs = percentiles(columns, statistic, paired=True, **sizes)
  ours = significance.bootstrap(counts)
  width = ours[1] - ours[0]
  np.testing.assert_allclose(
    ours, theirs.confidence_interval, atol=0.05 * width
  )


@pytest.mark.parametrize("share", [0.0, 0.9, 0.97])
def test_the_paired_test_is_that_of_scipy(systems, share):
  """`share` of the sentences alike in both: from clear to no difference."""
  ours, theirs = (x.copy() for x in systems)
  same = int(share * ours.shape[1])
  theirs[:, :same] = ours[:, :same]
  table = np.concatenate([ours, theirs], axis=1)  # [S, 2 N, 3]
  size = ours.shape[1]

  def statistic(a, b, axis=-1):
    f1 = [
      np.mean(significance.micro_f1(table[:, x].sum(axis=-2)), axis=0)
      for x in (a, b)
    ]
    return f1[0] - f1[1]

  expected = scipy.stats.permutation_test(
    (np.arange(size), size + np.arange(size)),
    statistic,
    permutation_type="samples",
    vectorized=True,
    n_resamples=3000,
    batch=500,
    rng=np.random.default_rng(1),
  )
  difference, p = significance.paired_test(ours, theirs)
  assert difference == pytest.approx(expected.statistic)
  # Two-sided by size; scipy's own doubles the smaller side.
  null = np.abs(expected.null_distribution)
  their_p = np.mean(null >= abs(difference) - 1e-12)
  # Four standard errors of the p of 3,000 draws, and one draw.
  error = 4 * np.sqrt(their_p * (1 - their_p) / 3000) + 1e-3
  assert abs(p - their_p) <= error


def test_the_paired_test_is_exact_in_the_limit():
  rng = np.random.default_rng(0)
  gold = rng.integers(1, 4, (1, 9, 1))

  def draw():
    correct = np.minimum(gold, rng.integers(0, 4, gold.shape))
    predicted = gold + rng.integers(0, 2, gold.shape)
    return np.concatenate([correct, predicted, gold], axis=-1)

  ours, theirs = draw(), draw()

  def f1(counts):
    correct, predicted, true = counts[0].sum(axis=0)
    return 2 * correct / (predicted + true)

  extreme = []
  observed = f1(ours) - f1(theirs)
  for swap in itertools.product((False, True), repeat=9):
    chosen = np.array(swap)[None, :, None]
    one, other = np.where(chosen, theirs, ours), np.where(chosen, ours, theirs)
    extreme.append(abs(f1(one) - f1(other)) >= abs(observed) - 1e-12)
  difference, p = significance.paired_test(ours, theirs, replicates=40_000)
  assert difference == pytest.approx(observed)
  assert p == pytest.approx(np.mean(extreme), abs=0.01)


def test_equal_systems_do_not_differ(systems):
  assert significance.paired_test(systems[0], systems[0]) == (0.0, 1.0)


def test_the_draws_follow_the_seed(systems):
  first, same, other = (
    significance.bootstrap(systems[0], seed=seed) for seed in (1, 1, 2)
  )
  assert first == same != other

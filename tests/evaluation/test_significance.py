"""Resampling against plain resampling, brute force and seqeval."""

import itertools

import numpy as np
import pytest
import seqeval.metrics
from hypothesis import given
from hypothesis import strategies as st

from mner_jax.evaluation import significance

TAGS = st.sampled_from(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
SENTENCES = st.lists(
  st.lists(st.tuples(TAGS, TAGS), min_size=1), min_size=1, max_size=8
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
  found = significance.micro_f1(counts.sum(0))
  assert found == pytest.approx(expected, rel=1e-12)


def f1(counts):
  """The mean over seeds of micro F1, [S, N, 3] -> a number."""
  return significance.micro_f1(counts.sum(axis=1)).mean()


def draw(sentences, seeds=3, quality=0.7, seed=0):
  """Counts [S, N, 3] of a system that finds this share of the entities."""
  rng = np.random.default_rng(seed)
  gold = np.random.default_rng(9).integers(0, 4, sentences)
  gold = np.tile(gold, (seeds, 1))
  better = rng.uniform(-0.1, 0.1, (seeds, 1))  # seeds differ
  correct = rng.binomial(gold, quality + better)
  predicted = correct + rng.integers(0, 2, gold.shape)
  return np.stack([correct, predicted, gold], axis=-1)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_bootstrap_draws_sentences_and_seeds(seeds):
  counts, rng = draw(200, seeds), np.random.default_rng(1)
  drawn = [
    f1(counts[rng.integers(seeds, size=seeds)][:, rng.integers(200, size=200)])
    for _ in range(4000)
  ]
  expected = np.percentile(drawn, [2.5, 97.5])
  found = significance.bootstrap(counts, replicates=20_000)
  # Both have an error of drawing.
  np.testing.assert_allclose(found, expected, atol=0.07 * np.ptp(expected))


@pytest.mark.parametrize("quality", [0.3, 0.5, 0.65])
def test_the_paired_test_is_that_of_all_swaps(quality):
  """From a clear difference to none."""
  ours, theirs = draw(9, 2), draw(9, 2, quality, seed=1)
  swaps = np.array([*itertools.product((False, True), repeat=9)])
  swaps = swaps[:, None, :, None]
  differences = [
    f1(np.where(swap, theirs, ours)) - f1(np.where(swap, ours, theirs))
    for swap in swaps
  ]
  exact = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
  difference, p = significance.paired_test(ours, theirs, replicates=40_000)
  assert difference == pytest.approx(differences[0])
  assert p == pytest.approx(exact, abs=0.01)
  assert significance.paired_test(ours, ours) == (0.0, 1.0)


def test_the_draws_follow_the_seed():
  first, same, other = (
    significance.bootstrap(draw(50), seed=seed) for seed in (1, 1, 2)
  )
  assert first == same != other

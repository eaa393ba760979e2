"""Statistical significance of F1: intervals and paired tests by resampling.

S training seeds, N sentences. The counts of a sentence are [correct,
predicted, gold] entities; micro F1 is a function of their sums, so resampling
sentences is resampling rows. Sentences with equal counts are interchangeable:
only how often each of the K distinct rows is drawn matters.
"""

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities

_CHUNK = 1000  # replicates at a time: their draws are [_CHUNK, K]


def sentence_counts(gold, predicted):
  """[N, 3] counts of each sentence's entities, in seqeval's default mode.

  Args:
    gold: tags of each sentence, lists of strings.
    predicted: the same.
  """
  counts = np.zeros((len(gold), 3), np.int64)
  for row, tags in zip(counts, zip(gold, predicted, strict=True), strict=True):
    true, found = (set(get_entities(list(t))) for t in tags)
    row[:] = len(true & found), len(found), len(true)
  return counts


def micro_f1(counts):
  """[..., 3] summed counts -> [...]; 0 without gold and predicted entities."""
  correct, predicted, gold = np.moveaxis(counts, -1, 0)
  return 2 * correct / np.maximum(predicted + gold, 1)


def _kinds(counts):
  """[S, N, 3] -> the distinct rows [K, S, 3], and how many of each, [K]."""
  by_sentence = np.swapaxes(counts, 0, 1)
  return np.unique(by_sentence, axis=0, return_counts=True)


def _in_chunks(replicates, draw):
  return np.concatenate(
    [draw(min(_CHUNK, replicates - i)) for i in range(0, replicates, _CHUNK)]
  )


def bootstrap(counts, *, seed=0, replicates=10_000, level=0.95):
  """Percentile interval of the mean over seeds of micro F1.

  Seeds and sentences are crossed, since every seed scores the same sentences:
  a replicate draws N sentences and, independently, S seeds, both with
  replacement. With one seed only the sentences vary.

  Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.

  Args:
    counts: [S, N, 3].
    seed: of the draws.
    replicates: how many.
    level: share of the replicates within the interval.

  Returns:
    (low, high).
  """
  rng = np.random.default_rng(seed)
  kinds, sizes = _kinds(counts)  # [K, S, 3], [K]
  seeds = counts.shape[0]

  def draw(size):
    drawn = rng.multinomial(sizes.sum(), sizes / sizes.sum(), size)  # [R, K]
    f1 = micro_f1(np.tensordot(drawn, kinds, 1))  # [R, S]
    chosen = rng.integers(seeds, size=(size, seeds))
    return np.mean(np.take_along_axis(f1, chosen, 1), axis=1)

  tail = (1 - level) / 2
  low, high = np.quantile(_in_chunks(replicates, draw), (tail, 1 - tail))
  return float(low), float(high)


def paired_test(counts, reference, *, seed=0, replicates=10_000):
  """Approximate randomisation test of the difference between two systems.

  Under the null hypothesis the two systems are exchangeable on every
  sentence: each replicate swaps their outputs with probability 1/2, for all
  seeds of both together, because the seeds' errors are alike. Preferred to
  the paired bootstrap, whose distribution is not that of the null hypothesis
  and has to be shifted first.

  Noreen (1989); Yeh (2000), "More accurate tests for the statistical
  significance of result differences"; compared with the bootstrap in
  Berg-Kirkpatrick et al. (2012), "An Empirical Investigation of Statistical
  Significance in NLP".

  Args:
    counts, reference: [S, N, 3] of two systems, the same seeds and sentences.
    seed: of the swaps.
    replicates: how many.

  Returns:
    (difference of the mean micro F1, its two-sided p).
  """
  rng = np.random.default_rng(seed)
  both = np.concatenate([counts, reference], axis=0)
  kinds, sizes = _kinds(both)  # [K, 2S, 3], [K]
  ours, theirs = np.split(kinds, 2, axis=1)  # [K, S, 3]
  ours_total, theirs_total = counts.sum(axis=1), reference.sum(axis=1)  # [S, 3]

  def difference(moved):  # [..., S, 3] -> [...]
    f1 = micro_f1(ours_total + moved) - micro_f1(theirs_total - moved)
    return np.mean(f1, axis=-1)

  def draw(size):
    swapped = rng.binomial(sizes, 0.5, (size, len(sizes)))  # [R, K]
    return difference(np.tensordot(swapped, theirs - ours, 1))

  observed = difference(np.zeros_like(ours_total))
  # Equal differences may be summed in another order.
  extreme = np.abs(_in_chunks(replicates, draw)) >= abs(observed) - 1e-12
  return float(observed), float((1 + extreme.sum()) / (1 + replicates))

"""From emissions to tags: one Viterbi over each whole sentence.

B sentences, W words, K tags.
"""

import jax
import numpy as np
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax.models import crf

# Limits of one call: sentences, and words with their padding.
_ROWS, _WORDS = 128, 1 << 16

_viterbi = jax.jit(crf.viterbi)
_entity_probabilities = jax.jit(crf.entity_probabilities)


def decode(params, emissions, names, *, marginals=False):
  """The best path of each sentence.

  Args:
    params: of the model.
    emissions: [words, K] for each sentence.
    names: K tags, as in `Config.tags`.
    marginals: whether to compute probabilities.

  Returns:
    [(tags, probabilities)] of the sentences: strings, and [words], each
    entity's probability at its last word, as computed by
    `crf.entity_probabilities`; None without `marginals`.
  """
  decoder = jax.device_get(crf.params_of(params, len(names)))
  # Sorted, so that batches need little padding; padded to powers of two, so
  # that few shapes are compiled.
  order = np.argsort([-len(e) for e in emissions], kind="stable").tolist()
  found = [None] * len(emissions)
  while order:
    length = 1 << (max(8, len(emissions[order[0]])) - 1).bit_length()
    size = max(1, min(_ROWS, _WORDS // length))
    ids, order = order[:size], order[size:]
    padded = np.zeros((size, length, len(names)), np.float32)
    lengths = np.ones(size, np.int32)
    for row, i in enumerate(ids):
      lengths[row] = len(emissions[i])
      padded[row, : lengths[row]] = emissions[i]
    paths, _ = jax.device_get(_viterbi(decoder, padded, lengths))
    tags = [[names[t] for t in paths[r, : lengths[r]]] for r in range(len(ids))]
    shares = [None] * len(ids)
    if marginals:
      shares = _marginals(decoder, padded, lengths, tags, names)
    for row, i in enumerate(ids):
      found[i] = tags[row], shares[row]
  return found


def _marginals(decoder, emissions, lengths, tags, names):
  """The probability of each entity at its last word: B arrays [words].

  Args:
    decoder: crf.CRFParams.
    emissions: [at least B, W, K], padded.
    lengths: of each row.
    tags: B lists of strings.
    names: K tags.
  """
  found = np.zeros(emissions.shape[:2], np.float32)
  entities = [
    (row, first, last, names.index(f"I-{kind}"))
    for row, path in enumerate(tags)
    for kind, first, last in get_entities(path)
  ]
  step = max(1, 16 * _WORDS // emissions.shape[1])  # each is a whole sentence
  for start in range(0, len(entities), step):
    part = entities[start : start + step]
    # Repeated up to a power of two: few shapes to compile.
    size = 1 << (len(part) - 1).bit_length()
    rows, first, last, inner = np.resize(part, (size, 4)).T
    found[rows, last] = _entity_probabilities(
      decoder, emissions[rows], lengths[rows], first, last, inner
    )
  return [found[row, : len(path)] for row, path in enumerate(tags)]

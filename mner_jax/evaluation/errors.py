"""Where gold and predicted entities differ, and how."""

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities


def align(gold, predicted):
  """The gold and predicted entities of a sentence, matched.

  Args:
    gold: tags, read as conlleval reads them.
    predicted: tags.

  Returns:
    [(start, stop, gold type, predicted type, kind)], words [start, stop), in
    the order of the text. One of the types may be "". The kinds:
      correct   gold and predicted have the same words and the same type
      type      the same words, another type
      bounds    shares words with entities of the other side, none has the same
      missed    gold, shares no word with a predicted one
      spurious  predicted, shares no word with a gold one
  """
  gold, predicted = (
    {(first, last + 1): kind for kind, first, last in get_entities(list(tags))}
    for tags in (gold, predicted)
  )
  aligned = []
  for start, stop in gold.keys() | predicted.keys():
    pair = gold.get((start, stop), ""), predicted.get((start, stop), "")
    if all(pair):
      kind = "correct" if pair[0] == pair[1] else "type"
    else:
      others, alone = (predicted, "missed") if pair[0] else (gold, "spurious")
      shared = any(start < high and low < stop for low, high in others)
      kind = "bounds" if shared else alone
    aligned.append((start, stop, *pair, kind))
  return sorted(aligned)


def confusion(aligned):
  """Counts of entities by gold and predicted type.

  Args:
    aligned: the result of `align` for each sentence.

  Returns:
    {"types": T names, "rows": T + 2 lists of T + 2 counts}. Rows are gold
    types, columns predicted ones; the last two columns are gold entities of
    other bounds and missed ones, the last two rows predicted entities of
    other bounds and spurious ones. So a type's row adds up to its gold
    entities, its column to its predicted ones, and the diagonal is correct.
  """
  entities = [e for sentence in aligned for e in sentence]
  types = sorted({t for _, _, *pair, _ in entities for t in pair if t})
  row = {t: i for i, t in enumerate(types)}
  rows = np.zeros((len(types) + 2, len(types) + 2), int)
  for _, _, gold, predicted, kind in entities:
    outside = len(types) + (kind != "bounds")
    rows[row.get(gold, outside), row.get(predicted, outside)] += 1
  return {"types": types, "rows": rows.tolist()}

"""Where gold and predicted entities differ, and how."""

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities


def align(gold, predicted):
  """The entities of a sentence, gold and predicted put together.

  Args:
    gold: tags, read as conlleval reads them.
    predicted: tags.

  Returns:
    [(start, stop, gold type, predicted type, kind)], words [start, stop), in
    the order of the text. Of each type one may be "". The kinds:
      correct   gold and predicted have the same words and the same type
      type      the same words, another type
      bounds    shares words with entities of the other side, none has the same
      missed    gold, shares no word with a predicted one
      spurious  predicted, shares no word with a gold one
  """
  sides = [
    {(first, last + 1): kind for kind, first, last in get_entities(list(tags))}
    for tags in (gold, predicted)
  ]
  aligned = []
  for (start, stop), kind in sides[0].items():
    if other := sides[1].get((start, stop)):
      same = "correct" if other == kind else "type"
      aligned.append((start, stop, kind, other, same))
    else:
      found = "bounds" if _touches(start, stop, sides[1]) else "missed"
      aligned.append((start, stop, kind, "", found))
  for (start, stop), kind in sides[1].items():
    if (start, stop) not in sides[0]:
      found = "bounds" if _touches(start, stop, sides[0]) else "spurious"
      aligned.append((start, stop, "", kind, found))
  return sorted(aligned)


def _touches(start, stop, spans):
  return any(start < high and low < stop for low, high in spans)


def confusion(aligned):
  """How often which gold type was read as which.

  Args:
    aligned: what `align` says of each sentence.

  Returns:
    {"types": T names, "rows": T + 2 lists of T + 2 counts}. Rows are gold
    types, columns predicted ones; the last two columns are gold entities of
    other bounds and missed ones, the last two rows predicted entities of
    other bounds and spurious ones. So a row of a type adds up to its gold
    entities, a column to its predicted ones, and the diagonal is correct.
  """
  entities = [e for sentence in aligned for e in sentence]
  types = sorted({t for _, _, *pair, _ in entities for t in pair if t})
  row = {t: i for i, t in enumerate(types)}
  rows = np.zeros((len(types) + 2, len(types) + 2), int)
  for _, _, gold, predicted, kind in entities:
    outside = len(types) + (kind != "bounds")
    rows[row.get(gold, outside), row.get(predicted, outside)] += 1
  return {"types": types, "rows": rows.tolist()}

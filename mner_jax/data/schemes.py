"""Entity tags: the schemes of files, brought to IOB2; orphans; types renamed.

IOB2 is what everything behind the readers sees: B-TYPE begins an entity,
I-TYPE goes on with it, O is outside. An I- that follows no tag of its type is
an orphan: wrong, but in many files. All of this keeps the entities that
seqeval finds by default, for which an orphan begins one.
"""

import re

from mner_jax.config import UserError

SCHEMES = {
  "iob2": re.compile(r"O|[BI]-\S+"),
  "iob1": re.compile(r"O|[BI]-\S+"),
  "bioes": re.compile(r"O|[BIES]-\S+"),
}


def check(tag, scheme, where):
  """Raises a UserError if the scheme does not know this tag."""
  if not SCHEMES[scheme].fullmatch(tag):
    prefixes = "B-, I-, E- or S-" if scheme == "bioes" else "B- or I-"
    raise UserError(
      f"{where}: {tag[:40]!r} is not a tag of the scheme {scheme}; expected O"
      f" or {prefixes} and a type, or another data.scheme"
    )


def to_iob2(tags, scheme):
  """Tags of a scheme as IOB2, as a tuple.

  In IOB1 any I- may begin an entity, so there are no orphans in it. In BIOES
  an I- or E- right after an entity's end begins the next one.
  """
  if scheme == "iob1":
    return repair(tags)[0]
  if scheme == "bioes":
    converted, before = [], "O"
    for tag in tags:
      prefix, kind = tag[:1], tag[1:]
      if prefix == "S" or (
        prefix in "IE" and before in ("E" + kind, "S" + kind)
      ):
        prefix = "B"
      converted.append({"E": "I"}.get(prefix, prefix) + kind)
      before = tag
    return tuple(converted)
  return tuple(tags)


def repair(tags):
  """IOB2 tags in which an orphan I- begins its entity, and how many did."""
  repaired, orphans = [], 0
  for before, tag in zip(("O", *tags), tags, strict=False):
    if tag.startswith("I-") and before[2:] != tag[2:]:
      tag, orphans = f"B-{tag[2:]}", orphans + 1
    repaired.append(tag)
  return tuple(repaired), orphans


def label_map(pairs):
  """{"OTHER": "MISC", ...} of a config's ("OTHER=MISC", ...)."""
  found = {}
  for pair in pairs:
    old, equals, new = pair.partition("=")
    if not (old and equals and new) or re.search(r"\s", pair) or old in found:
      raise UserError(
        f"config: data.label_map: {pair!r} is not OLD=NEW (OLD=O drops a"
        " type), each OLD once"
      )
    found[old] = new
  return found


def rename(tags, names):
  """IOB2 tags with their types replaced by `names`; O drops an entity."""
  renamed, before = [], "O"
  for tag in tags:
    new = names.get(tag[2:], tag[2:])
    if tag == "O" or new == "O":
      renamed.append("O")
    else:
      # An orphan must not become part of an entity its type is merged with.
      begins = tag[0] == "B" or (
        before[2:] != tag[2:] and renamed and renamed[-1][2:] == new
      )
      renamed.append(f"{'B' if begins else 'I'}-{new}")
    before = tag
  return tuple(renamed)

"""Entity tags: conversion to IOB2, orphans, renamed types.

Everything after the readers works on IOB2: B-TYPE begins an entity, I-TYPE
continues it, O is outside. An I- that does not follow a tag of its type is an
orphan: an error, but one that many files contain. All functions keep the
entities that seqeval finds by default, where an orphan begins an entity.
"""

import re

from mner_jax.config import UserError

SCHEMES = {"iob2": "BI", "iob1": "BI", "bioes": "BIES"}  # prefixes of the tags


def has(tag, scheme):
  """Returns whether the scheme has this tag."""
  return re.fullmatch(rf"O|[{SCHEMES[scheme]}]-\S+", tag) is not None


def check(tag, scheme, where):
  """Raises a UserError if the scheme does not have this tag."""
  if not has(tag, scheme):
    raise UserError(
      f"{where}: {tag[:40]!r} is not a tag of the scheme {scheme}; expected O,"
      f" or {'- '.join(SCHEMES[scheme])}- and a type, or another data.scheme or"
      " data.tag_column"
    )


def to_iob2(tags, scheme):
  """Returns the tags of a scheme as IOB2, as a tuple.

  In IOB1 any I- may begin an entity, so it has no orphans. In BIOES an I- or
  E- right after the end of an entity begins the next one.
  """
  if scheme == "iob1":
    return repair(tags)[0]
  if scheme != "bioes":
    return tuple(tags)
  converted = []
  for before, tag in zip(("O", *tags), tags, strict=False):
    prefix, kind = tag[0], tag[1:]
    after_end = before in ("E" + kind, "S" + kind)
    begins = prefix == "S" or (prefix in "IE" and after_end)
    converted.append(("B" if begins else prefix.replace("E", "I")) + kind)
  return tuple(converted)


def repair(tags):
  """Returns IOB2 tags whose orphans begin an entity, and how many did."""
  repaired, orphans = [], 0
  for before, tag in zip(("O", *tags), tags, strict=False):
    if tag.startswith("I-") and before[2:] != tag[2:]:
      tag, orphans = f"B-{tag[2:]}", orphans + 1
    repaired.append(tag)
  return tuple(repaired), orphans


def label_map(pairs, types):
  """Returns {"OTHER": "MISC", ...} for a config's ("OTHER=MISC", ...).

  Raises a UserError if a pair does not rename one of `types`.
  """
  found = {}
  for pair in pairs:
    old, _, new = pair.partition("=")
    if old not in types or old in found or not re.fullmatch(r"\S+", new):
      raise UserError(
        f"data.label_map: {pair!r} is not OLD=NEW (OLD=O drops a type), or"
        f" {old!r} is in it twice or none of {', '.join(types)}"
      )
    found[old] = new
  return found


def rename(tags, names):
  """Returns IOB2 tags with types replaced by `names`; O drops an entity."""
  renamed = []
  for before, tag in zip(("O", *tags), tags, strict=False):
    new = names.get(tag[2:], tag[2:])
    if "O" in (tag, new):
      renamed.append("O")
      continue
    # An orphan must not join an entity that its type is merged with.
    merged = renamed and renamed[-1][2:] == new and before[2:] != tag[2:]
    renamed.append(f"{'B' if merged else tag[0]}-{new}")
  return tuple(renamed)

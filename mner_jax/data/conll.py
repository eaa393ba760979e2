"""CoNLL files: a word a line, and which of its columns are word and tag.

A sentence is a block of lines that ends at an empty line; a line `IMGID:id`
before it names its image. Columns are separated by tabs or else by single
spaces, as in the first line of words. The word is in the first one, or in the
second where the first counts the words of each sentence from 0 or 1 (CoNLL-U,
GermEval, WikiNEuRal); the tag is in the last one, or where `tag_column` says.

Skipped are -DOCSTART- lines (CoNLL-2003), a first line with the names of the
columns (HIPE), lines `# ...` in front of a sentence and, behind an index, the
lines of multiword tokens (3-4), whose words follow, and empty nodes (5.1).
"""

import collections
import contextlib
import dataclasses
import itertools
import re

from etils import epath

from mner_jax.config import UserError
from mner_jax.data import files, schemes

_FIRST_NAMES = ("token", "tokens", "word", "words", "form", "id", "index")
_INDEX = re.compile(r"[0-9]+([-.][0-9]+)?")
_MOST_WORDS = 2000  # of a sentence


@dataclasses.dataclass(frozen=True)
class Sentence:
  """One sentence with its image: words and the tags of the file, in IOB2."""

  words: tuple[str, ...]
  tags: tuple[str, ...]
  image: str = ""  # the file's image id; "" = no image
  language: str = ""
  source: str = ""
  # file:line of the first word; file:line,line,... if any is skipped.
  origin: str = dataclasses.field(default="", compare=False)

  def where(self, word):
    """`file:line` of a word, for messages."""
    file, _, lines = self.origin.rpartition(":")
    if "," in lines:
      return f"{file}:{lines.split(',')[word]}"
    return f"{file}:{int(lines) + (0 if file.endswith('.jsonl') else word)}"


def read_conll(path, language="", scheme="iob2", tag_column="-1", notes=None):
  """Yields the Sentences of a CoNLL file: see `formats.read`.

  With scheme None no tag is read, and the file may have words only.
  """
  path = epath.Path(path)
  lines = files.numbered_lines(path)
  with contextlib.closing(lines):  # after an error, too
    yield from _read(path, lines, language, scheme, tag_column, notes)


def _read(path, lines, language, scheme, tag_column, notes):
  first, lines = _first_words(lines)
  columns = first.split(_separator(first))
  named = len(columns) > 1 and columns[0].lower() in _FIRST_NAMES
  header = columns if named and not _has_tag(columns) else []
  skipped = collections.Counter()
  blocks = _blocks(path, lines, first, header, skipped)
  if not (block := next(blocks, None)):
    return
  start = _first_index(block[1], 3 if scheme else 2)
  word = 0 if start is None else 1
  # {column: its entities}; in the end, columns that hold nothing but tags.
  types = {c: collections.Counter() for c in range(word + 1, len(columns))}
  places = {name: c for c, name in enumerate(header)} | {"-1": len(columns) - 1}
  tag = (places | {str(c + 1): c for c in types}).get(tag_column)
  name = f"{path.parent.name}/{path.name}"
  place = f"{path}:{block[1][0][0]}"
  if scheme and not types:
    raise UserError(f"{place}: no tag: it follows the word and a tab or space")
  if scheme and tag not in types:
    known = ", ".join([*(str(c + 1) for c in types), *header])
    raise UserError(
      f"{place}: data.tag_column={tag_column} is no column of tags; there are:"
      f" {known}"
    )
  # Behind spaces, words where tags should be: it is running text.
  plain = not scheme and start is None and types and "\t" not in first
  tagged = (x[-1] == "_" or _has_tag(x) for _, x in block[1])
  if plain and not any(tagged):
    raise UserError(
      f"{place}: {first[:40]!r} is not one word; running text is given as JSONL,"
      ' {"text": ...}'
    )
  for image, rows in itertools.chain([block], blocks):
    if start is not None:
      rows = _check_index(rows, start, tag, path, skipped)
    for number, columns in rows:
      if not columns[word]:
        raise UserError(f"{path}:{number}: the word is empty: {columns!r:.60}")
      if scheme:
        schemes.check(columns[tag], scheme, f"{path}:{number}")
    words = tuple(columns[word] for _, columns in rows)
    tags = [columns[tag] if scheme else "O" for _, columns in rows]
    tags = schemes.to_iob2(tags, scheme)
    numbers = [number for number, _ in rows]
    if numbers[-1] - numbers[0] < len(numbers):
      numbers = numbers[:1]
    origin = f"{name}:{','.join(map(str, numbers))}"
    yield Sentence(words, tags, image, language, origin=origin)
    for column in [*types] if scheme else ():
      tags = [columns[column] for _, columns in rows]
      if all(schemes.has(tag, scheme) for tag in tags):
        tags, _ = schemes.repair(schemes.to_iob2(tags, scheme))
        types[column].update(tag[2:] for tag in tags if tag[0] == "B")
      else:
        del types[column]
  found = [f"{n} {what} skipped" for what, n in skipped.items()]
  if scheme and len(types) > 1:
    found.append(_choice(types, tag, tag_column, header, path))
  if notes is not None:
    notes += [f"{name}: {note}" for note in found]


def _choice(types, tag, tag_column, header, path):
  """Describes which of several columns of tags is read.

  Raises a UserError if that is left open, and another has tags of the same
  types: "pers" and "pers.ind" are the same.
  """
  names, kinds = {}, {}
  for column, entities in types.items():
    title = " ".join([str(column + 1), *header[column : column + 1]])
    names[column] = f"column {title} ({entities.total():,} entities)"
    kinds[column] = {kind.partition(".")[0] for kind in entities}
  own = names.pop(tag)
  rivals = [names[c] for c in names if kinds[c] & (kinds[tag] or kinds[c])]
  if rivals and tag_column == "-1":
    raise UserError(
      f"{path}: tags of the same types are in {' and '.join([*rivals, own])};"
      " set data.tag_column to the number or name of the one to read"
    )
  return f"tags are read from {own}, not {', '.join(names.values())}"


def _first_words(lines):
  """Returns the first line of words, and all lines."""
  head, first = [], ""
  for number, line in lines:
    head.append((number, line))
    if line.strip(" \t") and not _is_image(line) and not _is_docstart(line):
      first = line
      if line[0] != "#":  # with it, it may be a comment
        break
  return first, itertools.chain(head, lines)


def _blocks(path, lines, first, header, skipped):
  """Yields (image id, [(number, columns) of each word]) of each sentence."""
  separator = _separator(first)
  count = len(first.split(separator))
  image, image_line, rows = "", 0, []
  end = (0, "")  # ends the last sentence
  for number, line in itertools.chain(lines, [end]):
    columns = line.split(separator)
    if columns == header or _is_comment(line, columns, count, rows):
      if columns == header and number > 1:
        skipped["more header lines"] += 1
      continue
    is_image, is_docstart = _is_image(line) and not rows, _is_docstart(line)
    is_word = line.strip(" \t") and not is_image and not is_docstart
    if is_docstart:
      skipped["-DOCSTART- lines"] += 1
    if image and not rows and not is_word:
      raise UserError(f"{path}:{image_line}: IMGID without a sentence")
    if is_image:
      image, image_line = line.removeprefix("IMGID:").strip(), number
    elif is_word:
      if len(columns) != count:
        found = f"{len(columns)}: {line[:60]!r}"
        raise UserError(
          f"{path}:{number}: a line is one word: expected {count} columns, found"
          f" {found}"
        )
      rows.append((number, columns))
      if len(rows) > _MOST_WORDS:
        raise UserError(
          f"{path}:{rows[0][0]}: a sentence of more than {_MOST_WORDS} words;"
          " separate sentences by empty lines"
        )
    elif rows:
      yield image, rows
      image, rows = "", []


def _separator(line):
  return "\t" if "\t" in line else " "


def _is_image(line):
  return line.startswith("IMGID:") and "\t" not in line


def _is_docstart(line):
  columns = line.split(_separator(line))
  return "-DOCSTART-" in columns[: 1 + columns[0].isdigit()]


def _has_tag(columns):
  return any(schemes.has(column, "bioes") for column in columns)


def _is_comment(line, columns, count, rows):
  """Whether a line is about the sentence that it precedes, and no word.

  Within a sentence, as in HIPE, it has no tab in a file of tabs.
  """
  if rows or not re.match("#([ \t]|$)", line):
    return line.startswith("# ") and len(columns) == 1 < count
  # A comment may have as many words as the file has columns, but no tag.
  fits = len(columns) == count and ("\t" in line or count < 3)
  return not fits and not _has_tag(columns[-1:])


def _first_index(rows, least):
  """Returns the index of a file's first word, 0 or 1; None if it has none."""
  column = [columns[0] for _, columns in rows]
  if len(rows[0][1]) < least or not all(map(_INDEX.fullmatch, column)):
    return None
  return {"0": 0, "1": 1}.get(next(filter(str.isdigit, column), ""))


def _check_index(rows, start, tag, path, skipped):
  """Returns the rows of words whose index is right; see the module."""
  kept = []
  for number, columns in rows:
    index, expected = columns[0], str(start + len(kept))
    is_part = _INDEX.fullmatch(index) and not index.isdigit()
    if index == expected:
      kept.append((number, columns))
    elif is_part and not re.match("[BIES]-", columns[tag]):
      skipped["multiword tokens and empty nodes"] += 1
    else:
      raise UserError(
        f"{path}:{number}: expected the index {expected}, found {index[:20]!r}"
        f" with {columns[tag][:40]!r}; in the first sentence each word has one"
      )
  if not kept:
    raise UserError(f"{path}:{rows[0][0]}: a sentence without a word")
  return kept

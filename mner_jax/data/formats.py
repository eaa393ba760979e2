"""Text files: sentences, their tags and the ids of their images.

A file is UTF-8. A sentence is a block of lines `word TAB tag` (or one space)
that ends at an empty line; a line `IMGID:id` in front names its image. Lines
`index TAB word TAB tag` (WikiNEuRal) are read as well.
"""

import dataclasses
import re
from collections.abc import Iterator

from etils import epath

from mner_jax.config import UserError

_TAG = re.compile(r"O|[BI]-\S+")


@dataclasses.dataclass(frozen=True)
class Sentence:
  """One sentence with its image: words and the tags of the file, unchanged."""

  words: tuple[str, ...]
  tags: tuple[str, ...]
  image: str = ""  # the file's image id; "" = no image
  language: str = ""
  source: str = ""
  origin: str = dataclasses.field(default="", compare=False)  # file:line

  def where(self, word):
    """`file:line` of a word, for messages."""
    file, _, line = self.origin.rpartition(":")
    return f"{file}:{int(line) + word}"


def read_conll(path, language="") -> Iterator[Sentence]:
  """The sentences of a CoNLL file; a UserError names file and line."""
  path = epath.Path(path)
  image, words, tags = "", [], []
  first = 0  # line of the sentence's IMGID, then of its first word

  def sentence():
    return Sentence(
      tuple(words), tuple(tags), image, language, source_of(image),
      f"{path.parent.name}/{path.name}:{first}",
    )  # fmt: skip

  # Only "\n" ends a line: some real tokens are U+0085 or U+2028.
  for number, raw in enumerate(_text(path).split("\n"), start=1):
    line = raw.removesuffix("\r")
    if line.startswith("IMGID:") and "\t" not in line and not words:
      if image:
        raise UserError(f"{path}:{first}: IMGID without a sentence")
      image, first = line.removeprefix("IMGID:").strip(), number
    elif line.strip(" \t"):
      word, tag = _columns(path, number, line)
      first = first if words else number
      words.append(word)
      tags.append(tag)
    elif words:
      yield sentence()
      image, words, tags = "", [], []
    elif image:
      raise UserError(f"{path}:{first}: IMGID without a sentence")
  if words:
    yield sentence()
  elif image:
    raise UserError(f"{path}:{first}: IMGID without a sentence")


def _text(path):
  try:
    return path.read_bytes().decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = error.object[: error.start].count(b"\n") + 1
    raise UserError(f"{path}:{line}: not UTF-8") from None


def _columns(path, number, line):
  columns = line.split("\t" if "\t" in line else " ")
  if len(columns) == 3 and columns[0].isdecimal():
    columns = columns[1:]
  if len(columns) != 2:
    raise UserError(
      f"{path}:{number}: expected 2 columns, word and tag, found"
      f" {len(columns)}: {line[:60]!r}"
    )
  word, tag = columns
  if not word:
    raise UserError(f"{path}:{number}: the word is empty: {line[:60]!r}")
  if not _TAG.fullmatch(tag):
    raise UserError(
      f"{path}:{number}: {tag[:40]!r} is not a tag; expected O, B-TYPE or"
      " I-TYPE"
    )
  return word, tag


# MMNERD mixes tweets and captions of web pictures; only the id tells which.
_SOURCES = (
  (r"1[67]_\d\d|O_", "tweet"),
  (r"\d{8}---", "caption"),
)


def source_of(image):
  """Where a sentence comes from, by its image id; "" = unknown."""
  for pattern, source in _SOURCES:
    if re.match(pattern, image):
      return source
  return ""


def repair(tags):
  """IOB2 tags in which an orphan I- begins its entity, and how many did."""
  repaired, orphans = [], 0
  for before, tag in zip(("O", *tags), tags, strict=False):
    if tag.startswith("I-") and before[2:] != tag[2:]:
      tag, orphans = f"B-{tag[2:]}", orphans + 1
    repaired.append(tag)
  return tuple(repaired), orphans

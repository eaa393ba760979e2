"""Text files: sentences, their tags and the ids of their images.

All files are UTF-8. CoNLL (.txt, .conllu, .conll, .tsv): a sentence is a block
of lines that ends at an empty line; a line `IMGID:id` before it names its
image. The first line of words settles the columns of the file, separated by
tabs or else by single spaces:

  word tag              two columns
  index word tag        three, the index counting from 0 or 1 (WikiNEuRal)
  word ... tag          three or more (CoNLL-2003); -DOCSTART- lines skipped

JSONL (.jsonl): one object per line, either `tokens` and `tags`, or `text` and
`spans` [{"start", "end", "label"}] in characters, end exclusive; optionally
`image`, `language` and `source`. A text is split at white space and at the
edges of its spans. Other fields are ignored.
"""

import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Iterator

from etils import epath

from mner_jax.config import UserError
from mner_jax.data import schemes

SUFFIXES = (".txt", ".conllu", ".conll", ".tsv", ".jsonl")


@dataclasses.dataclass(frozen=True)
class Sentence:
  """One sentence with its image: words and the tags of the file, in IOB2."""

  words: tuple[str, ...]
  tags: tuple[str, ...]
  image: str = ""  # the file's image id; "" = no image
  language: str = ""
  source: str = ""
  origin: str = dataclasses.field(default="", compare=False)  # file:line

  def where(self, word):
    """`file:line` of a word, for messages."""
    file, _, line = self.origin.rpartition(":")
    return f"{file}:{int(line) + (0 if file.endswith('.jsonl') else word)}"


def read(path, language="", scheme="iob2") -> Iterator[Sentence]:
  """Yields the sentences of a file, one in memory at a time.

  Args:
    path: the file; its suffix tells the format.
    language: of the sentences that do not name their own.
    scheme: of the tags in the file, see `schemes`.

  Raises:
    UserError: at the first bad line, with file and line.
  """
  path = epath.Path(path)
  if path.suffix not in SUFFIXES:
    raise UserError(f"{path}: the suffix is none of {' '.join(SUFFIXES)}")
  reader = read_jsonl if path.suffix == ".jsonl" else read_conll
  return reader(path, language, scheme)


def _lines(path):
  """Yields (number from 1, line without its end) of a file, "-" = stdin."""
  with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
    # Only "\n" ends a line: some real tokens are U+0085 or U+2028.
    for number, raw in enumerate(file, 1):
      try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
      except UnicodeDecodeError:
        raise UserError(f"{path}:{number}: not UTF-8") from None
      yield number, line.removesuffix("\n").removesuffix("\r")


def read_conll(path, language="", scheme="iob2") -> Iterator[Sentence]:
  """Yields the sentences of a CoNLL file: see the module.

  With scheme None no tag is read, and the file may have words only.
  """
  path = epath.Path(path)
  layout = None
  for image, rows in _blocks(path):
    layout = layout or _layout(rows[0][1])
    pairs = [
      _word_and_tag(line, layout, i, scheme, f"{path}:{number}")
      for i, (number, line) in enumerate(rows)
    ]
    words, tags = zip(*pairs, strict=True)
    yield Sentence(
      words=words,
      tags=schemes.to_iob2(tags, scheme),
      image=image,
      language=language,
      source=source_of(image),
      origin=f"{path.parent.name}/{path.name}:{rows[0][0]}",
    )


def _blocks(path):
  """Yields (image id, [(number, line) of each word]) of each sentence."""
  image, image_line, rows = "", 0, []
  end = (0, "")  # ends the last sentence
  for number, line in itertools.chain(_lines(path), [end]):
    is_image = line.startswith("IMGID:") and "\t" not in line and not rows
    is_word = line.strip(" \t") and not is_image and not _is_docstart(line)
    if image and not rows and not is_word:
      raise UserError(f"{path}:{image_line}: IMGID without a sentence")
    if is_image:
      image, image_line = line.removeprefix("IMGID:").strip(), number
    elif is_word:
      rows.append((number, line))
    elif rows:
      yield image, rows
      image, rows = "", []


def _separator(line):
  return "\t" if "\t" in line else " "


def _is_docstart(line):
  # In two columns it would be a word like any other.
  columns = line.split(_separator(line))
  return columns[0] == "-DOCSTART-" and len(columns) != 2


def _layout(line):
  """The columns of a file, by its first line of words.

  Returns:
    (separator, number of columns, index of a sentence's first word where the
    first column counts the words, else None).
  """
  separator = _separator(line)
  columns = line.split(separator)
  indexed = len(columns) == 3 and columns[0] in ("0", "1")
  return separator, len(columns), int(columns[0]) if indexed else None


def _word_and_tag(line, layout, position, scheme, where):
  separator, count, start = layout
  columns = line.split(separator)
  if len(columns) != count:
    found = f"{len(columns)}: {line[:60]!r}"
    raise UserError(f"{where}: expected {count} columns, found {found}")
  if start is not None and (index := columns.pop(0)) != str(start + position):
    raise UserError(
      f"{where}: expected the index {start + position}, found {index[:20]!r};"
      " the file's first line reads as index, word, tag"
    )
  if not columns[0]:
    raise UserError(f"{where}: the word is empty: {line[:60]!r}")
  if scheme:
    schemes.check(columns[-1], scheme, where)
  return columns[0], columns[-1] if scheme else "O"


def read_jsonl(path, language="", scheme="iob2") -> Iterator[Sentence]:
  """Yields the sentences of a JSONL file: see the module."""
  path = epath.Path(path)
  for number, record in records(path):
    where = f"{path}:{number}"
    if "tokens" in record:
      words = field(record, "tokens", list, where)
      tags = field(record, "tags", list, where)
      check_words((*words, *tags), where)
    else:
      words, tags = _split(record, where)
    if not words or len(words) != len(tags):
      counts = f"{len(words)} tokens and {len(tags)} tags"
      raise UserError(f"{where}: {counts}; expected as many, at least one")
    for tag in tags:
      schemes.check(tag, scheme, where)
    image = field(record, "image", str, where, "")
    yield Sentence(
      words=tuple(words),
      tags=schemes.to_iob2(tags, scheme),
      image=image,
      language=field(record, "language", str, where, "") or language,
      source=field(record, "source", str, where, source_of(image)),
      origin=f"{path.parent.name}/{path.name}:{number}",
    )


def records(path):
  """Yields (number, object) of the lines of a JSONL file; "-" = stdin.

  Skips empty lines; raises a UserError at a line that is not an object.
  """
  path = epath.Path(path)
  for number, line in _lines(path):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
      json.dumps(record, ensure_ascii=False).encode()  # no lone surrogates
    except (ValueError, RecursionError):
      record = None
    if not isinstance(record, dict):
      raise UserError(f"{path}:{number}: not JSON of an object: {line[:50]!r}")
    yield number, record


def field(record, name, kind, where, default=None):
  """Returns a record's field of type `kind`; UserError if it is not one.

  A field that is absent or null is `default`.
  """
  value = record.get(name) if isinstance(record, dict) else None
  value = default if value is None else value
  if type(value) is not kind:
    names = {str: "a string", list: "a list", int: "a whole number"}
    raise UserError(
      f"{where}: {name!r} must be {names[kind]}, not {value!r:.40}; expected"
      " tokens+tags or text+spans"
    )
  return value


def check_words(words, where):
  """Raises a UserError at a value that cannot be a token or a tag."""
  for word in words:
    if not isinstance(word, str) or not word:
      raise UserError(
        f"{where}: tokens must be strings, not empty: {word!r:.30}"
      )


def _split(record, where):
  """Words and IOB2 tags of a record with text and spans."""
  text = field(record, "text", str, where)
  spans = field(record, "spans", list, where)
  kinds = {"start": int, "end": int, "label": str}
  spans = sorted(
    [field(span, name, kind, where) for name, kind in kinds.items()]
    for span in spans
  )
  words, tags, done = [], [], 0
  for start, end, label in spans:
    inside = text[start:end].split()
    if not done <= start < end <= len(text) or not inside:
      raise UserError(
        f"{where}: the span from {start} to {end} has no word in it, overlaps"
        f" another, or is not within the text of {len(text)} characters"
      )
    outside = text[done:start].split()
    words += outside + inside
    tags += ["O"] * len(outside) + [f"B-{label}"]
    tags += [f"I-{label}"] * (len(inside) - 1)
    done = end
  rest = text[done:].split()
  return words + rest, tags + ["O"] * len(rest)


def write_jsonl(path, sentences):
  """Writes everything but the sentences' origin, for `read` to read."""
  lines = []
  for s in sentences:
    record = {"tokens": s.words, "tags": s.tags, "image": s.image}
    record |= {"language": s.language, "source": s.source}
    lines.append(json.dumps(record, ensure_ascii=False) + "\n")
  epath.Path(path).write_bytes("".join(lines).encode())


def source_of(image):
  """Returns "tweet", "caption" or "", by the form of MMNERD's image ids."""
  if re.match(r"1[67]_\d\d|O_", image):
    return "tweet"
  return "caption" if re.match(r"\d{8}---", image) else ""

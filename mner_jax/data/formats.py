"""Text files: sentences, their tags and the ids of their images.

All files are UTF-8. CoNLL (.txt, .conllu, .conll, .tsv): a sentence is a block
of lines that ends at an empty line; a line `IMGID:id` in front names its
image. The first line of words settles the columns of the file, split at tabs
or else at single spaces:

  word tag              two columns
  index word tag        three, the index counting from 0 or 1 (WikiNEuRal)
  word ... tag          three or more (CoNLL-2003); -DOCSTART- lines skipped

JSONL (.jsonl): an object a line, either `tokens` and `tags`, or `text` and
`spans` [{"start", "end", "label"}] in characters, end exclusive; optionally
`image`, `language` and `source`. A text is split at white space and at the
edges of its spans. Other fields are ignored.
"""

import bisect
import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from mner_jax.config import UserError
from mner_jax.data import schemes

CONLL = (".txt", ".conllu", ".conll", ".tsv")
SUFFIXES = (*CONLL, ".jsonl")
# Whatever a file holds, no more than a sentence of it is in memory.
MAX_LINE = 1_000_000  # bytes
MAX_WORDS = 100_000  # of a sentence


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
  """The sentences of a file, by its suffix; a UserError names file and line.

  Args:
    path: the file.
    language: of the sentences that do not say it themselves.
    scheme: of the tags in the file, see `schemes`.
  """
  path = epath.Path(path)
  if path.suffix not in SUFFIXES:
    raise UserError(f"{path}: the suffix is none of {' '.join(SUFFIXES)}")
  reader = read_jsonl if path.suffix == ".jsonl" else read_conll
  return reader(path, language, scheme)


def _lines(path):
  """(number, line) of a file, from 1, without the line's end."""
  try:
    piped = str(path) == "-"
    with (
      contextlib.nullcontext(sys.stdin.buffer) if piped else path.open("rb")
    ) as file:
      number = 0
      # Only "\n" ends a line: some real tokens are U+0085 or U+2028.
      while raw := file.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE:
          raise UserError(f"{path}:{number}: longer than {MAX_LINE:,} bytes")
        try:
          line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
          raise UserError(f"{path}:{number}: not UTF-8") from None
        yield number, line.removesuffix("\n").removesuffix("\r")
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror})") from None


class _Layout(NamedTuple):
  separator: str
  columns: int
  start: int | None  # index of a sentence's first word, in its own column


def _layout(line, least):
  separator = "\t" if "\t" in line else " "
  columns = line.split(separator)
  indexed = len(columns) == 3 and columns[0] in ("0", "1")
  start = int(columns[0]) if indexed else None
  return _Layout(separator, max(least, len(columns)), start)


def read_conll(path, language="", scheme="iob2") -> Iterator[Sentence]:
  """The sentences of a CoNLL file: see the module.

  Where the scheme is None the file may have words only, and no tag is read.
  """
  path = epath.Path(path)
  layout = None
  image, words, tags = "", [], []
  first = 0  # line of the sentence's IMGID, then of its first word

  def sentence():
    iob2 = schemes.to_iob2(tags, scheme) if scheme else ("O",) * len(tags)
    return Sentence(
      tuple(words), iob2, image, language,
      source_of(image), f"{path.parent.name}/{path.name}:{first}",
    )  # fmt: skip

  for number, line in _lines(path):
    if line.startswith("IMGID:") and "\t" not in line and not words:
      if image:
        raise UserError(f"{path}:{first}: IMGID without a sentence")
      image, first = line.removeprefix("IMGID:").strip(), number
    elif line.strip(" \t") and not _is_docstart(line):
      layout = layout or _layout(line, least=2 if scheme else 1)
      where = f"{path}:{number}"
      word, tag = _columns(where, line, layout, len(words))
      if scheme:
        schemes.check(tag, scheme, where)
      first = first if words else number
      words.append(word)
      tags.append(tag)
      if len(words) > MAX_WORDS:
        raise UserError(f"{where}: a sentence of over {MAX_WORDS:,} words")
    elif words:
      yield sentence()
      image, words, tags = "", [], []
    elif image:
      raise UserError(f"{path}:{first}: IMGID without a sentence")
  if words:
    yield sentence()
  elif image:
    raise UserError(f"{path}:{first}: IMGID without a sentence")


def _is_docstart(line):
  # In two columns it would be a word like any other.
  columns = line.split("\t" if "\t" in line else " ")
  return columns[0] == "-DOCSTART-" and len(columns) != 2


def _columns(where, line, layout, position):
  columns = line.split(layout.separator)
  if len(columns) != layout.columns:
    as_first = " as in its first line" if layout.columns != 2 else ""
    raise UserError(
      f"{where}: expected {layout.columns} columns, word and tag{as_first},"
      f" found {len(columns)}: {line[:60]!r}"
    )
  if layout.start is not None:
    index = columns.pop(0)
    if index != str(layout.start + position):
      raise UserError(
        f"{where}: expected the index {layout.start + position}, found"
        f" {index[:20]!r}; the file's first line reads as index, word, tag"
      )
  word, tag = columns[0], columns[-1]
  if not word:
    raise UserError(f"{where}: the word is empty: {line[:60]!r}")
  return word, tag


def read_jsonl(path, language="", scheme="iob2") -> Iterator[Sentence]:
  """The sentences of a JSONL file: see the module."""
  path = epath.Path(path)
  for number, record in records(path):
    where = f"{path}:{number}"
    if "tokens" in record:
      words = field(record, "tokens", list, where)
      tags = field(record, "tags", list, where)
      _check_words(words, tags, where)
      for tag in tags:
        schemes.check(tag, scheme, where)
      tags = schemes.to_iob2(tags, scheme)
    else:
      text = field(record, "text", str, where)
      words, tags = _split(text, _spans(record, where, len(text)), where)
    image, said, source = (
      None if record.get(name) is None else field(record, name, str, where)
      for name in ("image", "language", "source")
    )
    yield Sentence(
      tuple(words), tuple(tags), image or "", said or language,
      source_of(image or "") if source is None else source,
      f"{path.parent.name}/{path.name}:{number}",
    )  # fmt: skip


def records(path):
  """(number, object) of the lines of a JSONL file, or "-", standard input.

  Empty lines are skipped; a UserError tells of a line that is no object.
  """
  path = epath.Path(path)
  for number, line in _lines(path):
    if not line.strip():
      continue
    where = f"{path}:{number}"
    try:
      record = json.loads(line)
      json.dumps(record, ensure_ascii=False).encode()  # no lone surrogates
    except (ValueError, RecursionError):
      raise UserError(f"{where}: not JSON: {line[:60]!r}") from None
    if not isinstance(record, dict):
      raise UserError(f"{where}: not a JSON object: {line[:60]!r}")
    yield number, record


def field(record, name, kind, where):
  """A record's field of type `kind`, or a UserError."""
  if name not in record:
    raise UserError(f"{where}: no {name!r}; expected tokens+tags or text+spans")
  if type(record[name]) is not kind:
    names = {str: "a string", list: "a list", int: "a whole number"}
    raise UserError(
      f"{where}: {name!r} must be {names[kind]}, not {record[name]!r:.40}"
    )
  return record[name]


def _check_words(words, tags, where):
  if not words or len(words) != len(tags):
    raise UserError(
      f"{where}: {len(words)} tokens and {len(tags)} tags; expected as many of"
      " the one as of the other, and at least one"
    )
  check_words((*words, *tags), where)


def check_words(words, where):
  """A UserError at what is no token and no tag."""
  for value in words:
    if not isinstance(value, str) or not value:
      raise UserError(
        f"{where}: tokens and tags must be strings and not empty, not"
        f" {value!r:.40}"
      )


def _spans(record, where, length):
  """The sorted (start, end, label) of a record."""
  spans = []
  for span in field(record, "spans", list, where):
    if not isinstance(span, dict):
      raise UserError(f"{where}: a span must be an object, not {span!r:.40}")
    start, end = (field(span, k, int, where) for k in ("start", "end"))
    label = field(span, "label", str, where)
    if not re.fullmatch(r"\S+", label):
      raise UserError(f"{where}: {label!r:.40} is not a label")
    if not 0 <= start < end <= length:
      raise UserError(
        f"{where}: the span {str(start)[:20]} to {str(end)[:20]} is empty or"
        f" not in the text of {length} characters"
      )
    spans.append((start, end, label))
  spans.sort()
  for (_, end, _), (start, _, _) in zip(spans, spans[1:], strict=False):
    if start < end:
      raise UserError(f"{where}: spans overlap at character {start}")
  return spans


def _split(text, spans, where):
  """Words and IOB2 tags of a text; every span is a sequence of words."""
  edges = sorted({edge for span in spans for edge in span[:2]})
  starts = [span[0] for span in spans]
  words, tags, begun = [], [], set()
  for match in re.finditer(r"\S+", text):
    inner = edges[
      bisect.bisect_right(edges, match.start()) : bisect.bisect_left(
        edges, match.end()
      )
    ]
    bounds = [match.start(), *inner, match.end()]
    for start, end in zip(bounds, bounds[1:], strict=False):
      i = bisect.bisect_right(starts, start) - 1
      tag = "O"
      if i >= 0 and start < spans[i][1]:
        tag = f"{'I' if i in begun else 'B'}-{spans[i][2]}"
        begun.add(i)
      words.append(text[start:end])
      tags.append(tag)
  if not words or len(begun) < len(spans):
    raise UserError(f"{where}: no word in the {'spans' if words else 'text'}")
  return words, tags


def write_conll(path, sentences):
  """Writes words, tags and images, `word TAB tag`, for `read` to read.

  A UserError tells of a sentence that the format cannot hold. Language and
  source are not in the format.
  """
  blocks = []
  for s in sentences:
    _check_writable(s, path)
    for value in (*s.words, s.image):
      if re.search(r"[\t\n]", value):
        raise UserError(f"{path}: CoNLL cannot hold {value!r:.40}")
    if s.image != s.image.strip():
      raise UserError(f"{path}: CoNLL cannot hold the image id {s.image!r:.40}")
    lines = [f"IMGID:{s.image}"] * bool(s.image)
    lines += map("\t".join, zip(s.words, s.tags, strict=True))
    blocks.append("\n".join(lines) + "\n")
  text = "\n".join(blocks)
  # A mark in front of the file would be taken for its encoding's.
  _write(path, "\n" + text if text.startswith("\ufeff") else text)


def write_jsonl(path, sentences):
  """Writes all of the sentences but their origin, for `read` to read."""
  lines = []
  for s in sentences:
    _check_writable(s, path)
    record = {"tokens": s.words, "tags": s.tags, "image": s.image}
    record |= {"language": s.language, "source": s.source}
    lines.append(json.dumps(record, ensure_ascii=False) + "\n")
  _write(path, "".join(lines))


def _check_writable(sentence, path):
  _check_words(sentence.words, sentence.tags, path)
  for tag in sentence.tags:
    schemes.check(tag, "iob2", path)


def _write(path, text):
  try:
    data = text.encode()
    if max(map(len, data.split(b"\n"))) >= MAX_LINE:
      raise UserError(f"{path}: a line would be longer than {MAX_LINE:,} bytes")
    epath.Path(path).write_bytes(data)
  except UnicodeEncodeError:
    raise UserError(f"{path}: UTF-8 cannot hold a lone surrogate") from None
  except OSError as error:
    raise UserError(f"{path}: cannot be written ({error.strerror})") from None


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

"""Text files: sentences, their tags and the ids of their images.

All files are UTF-8. CoNLL (.txt, .conllu, .conll, .tsv): see `conll`.

JSONL (.jsonl): one object per line, either `tokens` and `tags`, or `text` and
`spans` [{"start", "end", "label"}] in characters, end exclusive; optionally
`image`, `language` and `source`. A text is split into words as by a tagger, see
`words`, and at the edges of its spans. Other fields are ignored.
"""

import bisect
import itertools
import json

from etils import epath

from mner_jax.config import UserError
from mner_jax.data import files, schemes, words
from mner_jax.data.conll import Sentence, read_conll

SUFFIXES = (".txt", ".conllu", ".conll", ".tsv", ".jsonl")


def read(path, language="", scheme="iob2", tag_column="-1", notes=None):
  """Yields the Sentences of a file, one in memory at a time.

  Args:
    path: the file; JSONL by its suffix .jsonl, otherwise CoNLL.
    language: of the sentences that do not name their own.
    scheme: of the tags in the file, see `schemes`.
    tag_column: of a CoNLL file: a number from 1, -1 for the last one, or a name
      in its first line.
    notes: a list; gets what was skipped, and which of several columns of tags
      is read, once the file has been read.

  Raises:
    UserError: at the first bad line, with file and line; if there is no
      sentence; or if -1 leaves open which of several columns is meant.
  """
  path = epath.Path(path)
  if path.suffix == ".jsonl":
    sentences = read_jsonl(path, language, scheme)
  else:
    sentences = read_conll(path, language, scheme, tag_column, notes)
  sentence = None
  for sentence in sentences:
    yield sentence
  if not sentence:
    raise UserError(f"{path}: no sentence in it")


def read_jsonl(path, language, scheme):
  """Yields the sentences of a JSONL file: see the module."""
  for number, record in records(path):
    where = f"{path}:{number}"
    if "tokens" in record:
      tokens = field(record, "tokens", list, where)
      tags = field(record, "tags", list, where)
      check_words((*tokens, *tags), where)
    else:
      tokens, tags = _split(record, where)
    if not tokens or len(tokens) != len(tags):
      counts = f"{len(tokens)} tokens and {len(tags)} tags"
      raise UserError(f"{where}: {counts}; expected as many, at least one")
    for tag in tags:
      schemes.check(tag, scheme, where)
    image = field(record, "image", str, where, "")
    yield Sentence(
      words=tuple(tokens),
      tags=schemes.to_iob2(tags, scheme),
      image=image,
      language=field(record, "language", str, where, "") or language,
      source=field(record, "source", str, where, ""),
      origin=f"{path.parent.name}/{path.name}:{number}",
    )


def records(path):
  """Yields (number, object) of the lines of a JSONL file; "-" = stdin.

  Skips empty lines; raises a UserError at a line that is not an object.
  """
  path = epath.Path(path)
  for number, line in files.numbered_lines(path):
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


def check_words(texts, where):
  """Raises a UserError at a value that cannot be a token or a tag."""
  for word in texts:
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
  edges = sorted({edge for start, end, _ in spans for edge in (start, end)})
  found = []
  for start, end in words.split(text):
    inner = edges[bisect.bisect(edges, start) : bisect.bisect_left(edges, end)]
    parts = itertools.pairwise([start, *inner, end])
    # A part may hold invisible characters only.
    found += [(a, b) for a, b in parts if not inner or words.split(text[a:b])]
  starts, tags, done = [start for start, _ in found], ["O"] * len(found), 0
  for start, end, label in spans:
    first, last = (bisect.bisect_left(starts, edge) for edge in (start, end))
    if not done <= start < end <= len(text) or first == last:
      raise UserError(
        f"{where}: the span from {start} to {end} has no word in it, overlaps"
        f" another, or is not within the text of {len(text)} characters"
      )
    tags[first:last] = [f"B-{label}"] + [f"I-{label}"] * (last - first - 1)
    done = end
  return [text[start:end] for start, end in found], tags


def write_jsonl(path, sentences):
  """Writes everything but the sentences' origin, for `read` to read."""
  lines = []
  for s in sentences:
    record = {"tokens": s.words, "tags": s.tags, "image": s.image}
    record |= {"language": s.language, "source": s.source}
    lines.append(json.dumps(record, ensure_ascii=False) + "\n")
  files.write(path, "".join(lines))

"""Files that are written whole or grow by whole lines, and their hashes."""

import contextlib
import hashlib
import json
import os
import sys

import fsspec.config
import xxhash
from etils import epath

from mner_jax.config import UserError

# For gcsfs, which would list for ever what it saw first: other processes write.
fsspec.config.conf.setdefault("gs", {})["use_listings_cache"] = False


def in_bucket(path):
  """Returns whether a path is in a bucket store, such as gs://."""
  return "://" in str(path)


def length_and_time(path):
  """Returns (bytes, second of its last change) of a file."""
  if in_bucket(path):
    found = path.stat()
    return found.length, found.mtime
  # epath's fails where the owner has no name, as in containers.
  found = os.stat(path)
  return found.st_size, int(found.st_mtime)


def write(path, content):
  """Writes a whole file, of text or bytes, or nothing: never a part of it."""
  path = epath.Path(path)
  temporary = path.with_name(path.name + ".tmp")
  with _naming(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    temporary.write_bytes(data)
    temporary.replace(path)


@contextlib.contextmanager
def _naming(path):
  """Names the file in errors of writing: a full disk's names none."""
  try:
    yield
  except OSError as error:
    reason = error.strerror or error
    raise UserError(f"{path}: cannot be written ({reason})") from None


class Lines:
  """A JSONL file that grows line by line; no line is lost to a kill.

  On a local disk, `add` writes the line immediately. A bucket store cannot
  append: there, `sync` writes the file whole.
  """

  def __init__(self, path, lines):
    """Writes the file anew with the dicts that it begins with."""
    self._path = path
    self._text = "".join(json.dumps(line) + "\n" for line in lines)
    write(path, self._text)

  def add(self, line):
    """Appends a dict."""
    text = json.dumps(line) + "\n"
    if in_bucket(self._path):
      self._text += text
      return
    with _naming(self._path), self._path.open("a") as file:
      file.write(text)

  def sync(self):
    """Makes sure that all lines outlast this process."""
    if in_bucket(self._path):
      write(self._path, self._text)


def numbered_lines(path):
  """Yields (number from 1, line without its end) of a file, "-" = stdin."""
  with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
    # Only "\n" ends a line: some real tokens are U+0085 or U+2028.
    for number, raw in enumerate(file, 1):
      try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
      except UnicodeDecodeError:
        raise UserError(f"{path}:{number}: not UTF-8") from None
      yield number, line.removesuffix("\n").removesuffix("\r")


def read_json(path):
  """Returns the dict of a JSON file."""
  try:
    found = json.loads(path.read_text())
  except ValueError as error:
    raise UserError(f"{path}: not valid JSON ({error})") from None
  if not isinstance(found, dict):
    raise UserError(f"{path}: must hold a JSON object")
  return found


def read_lines(path):
  """Reads the whole lines of a log of steps, as dicts; [] if it is missing.

  A last line without an end was cut by a kill, and is left out.
  """
  if not path.exists():
    return []
  lines = []
  for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
    try:
      lines.append(json.loads(text))
      lines[-1]["step"] + 0  # a dict with a number there
    except (ValueError, KeyError, TypeError):
      raise UserError(
        f"{path}:{number}: not a line of this log; correct or remove it"
      ) from None
  return lines


def hash_of(chunks):
  """Returns a hash of bytes, and of the text of anything else."""
  # Names of files may be of bytes that are no UTF-8.
  parts = (
    c if isinstance(c, bytes) else str(c).encode(errors="surrogateescape")
    for c in chunks
  )
  return xxhash.xxh3_64_hexdigest(b"".join(part + b"\0" for part in parts))


def digest(tree):
  """Returns a hash of what JSON can hold."""
  text = json.dumps(tree, sort_keys=True)
  return xxhash.xxh3_128(text.encode()).hexdigest()


def hash_file(path):
  """Returns [bytes, hash] of a file."""
  with path.open("rb") as file:
    found = hashlib.file_digest(file, xxhash.xxh3_128)
    return [file.tell(), found.hexdigest()]

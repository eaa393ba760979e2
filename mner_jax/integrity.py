"""Whether a checkpoint is whole: a hash of each file, checked before use.

The manifest of a step is written last, so a step without one was not
finished. It also holds the step's dev score, and a hash of itself.
"""

import concurrent.futures
import json

import xxhash

from mner_jax import files

MANIFEST = "manifest.json"
_CHUNK = 1 << 22  # bytes read at a time
_THREADS = 8  # hashing lets other threads run


class Damaged(Exception):
  """A step that must not be used; the message names the file."""


def write_manifest(folder, f1=None):
  """Seals a step that is complete; `f1` where it was scored on dev."""
  names, entries = _list(folder), {}
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    for name, size_and_hash in zip(
      names, pool.map(lambda name: _hash(folder / name), names), strict=True
    ):
      entries[name] = size_and_hash
  _write(folder, {"f1": f1, "files": entries})


def add_score(folder, f1):
  """Notes the dev score of a step that was saved before it was scored."""
  _write(folder, {**read_manifest(folder), "f1": f1})


def read_manifest(folder):
  """{"f1": score or None, "files": {name: [size, hash]}} of a step."""
  path = folder / MANIFEST
  try:
    manifest = json.loads(path.read_text())
    found = manifest.pop("hash")
    good = found == _hash_of(manifest)
  except FileNotFoundError:
    raise Damaged(f"{MANIFEST} is missing") from None
  except (ValueError, KeyError, AttributeError, TypeError, OSError):
    good = False  # not JSON, not UTF-8, not a dict ...
  if not good:
    raise Damaged(f"{MANIFEST} has changed since it was written")
  return manifest


def verify(folder):
  """The manifest of a step whose files are all as they were written.

  Raises `Damaged` at the first file that is not.
  """
  manifest = read_manifest(folder)
  entries = manifest["files"]
  names = _list(folder)
  if missing := sorted(set(entries) - set(names)):
    raise Damaged(f"{missing[0]} is missing")
  if unknown := sorted(set(names) - set(entries)):
    raise Damaged(f"{unknown[0]} is not of this checkpoint")

  def problem(name):
    size, wanted = entries[name]
    path = folder / name
    try:
      length = path.stat().length
      if length != size:
        return f"{name} has {length:,} bytes, not {size:,}"
      if _hash(path) != [size, wanted]:
        return f"{name} has changed since it was written"
    except OSError as error:
      return f"{name} cannot be read ({error.strerror or error})"
    return None

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    for text in pool.map(problem, names):
      if text:
        raise Damaged(text)
  return manifest


def _list(folder):
  """Names of all files below `folder`; hidden ones are the file system's."""

  def walk(folder, prefix):
    for path in sorted(folder.iterdir()):
      if path.is_dir():
        yield from walk(path, f"{prefix}{path.name}/")
      elif not path.name.startswith("."):
        yield prefix + path.name

  own = (MANIFEST, f"{MANIFEST}.tmp")  # the latter of a write that was killed
  return [name for name in walk(folder, "") if name not in own]


def _hash(path):
  """[bytes, hash] of a file."""
  digest, size = xxhash.xxh3_128(), 0
  with path.open("rb") as file:
    while chunk := file.read(_CHUNK):
      digest.update(chunk)
      size += len(chunk)
  return [size, digest.hexdigest()]


def _hash_of(manifest):
  text = json.dumps(manifest, sort_keys=True)
  return xxhash.xxh3_128(text.encode()).hexdigest()


def _write(folder, manifest):
  manifest = {**manifest, "hash": _hash_of(manifest)}
  files.write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")

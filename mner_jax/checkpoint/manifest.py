"""Whether a checkpoint may be used: hashes of its files, checked before use.

`manifest.json` is written last: a step without one is not complete. It holds
the step's number, its dev F1, [bytes, hash] of each of its files, and hashes
of the workdir's files that decide what the arrays mean: config.json, without
the fields that a resume may change, and tokenizer.json; and a hash of itself.
"""

import concurrent.futures
import hashlib
import json

import jax
import numpy as np
import xxhash
from etils import epath
from jax.experimental import multihost_utils

from mner_jax import cli
from mner_jax import config as config_lib
from mner_jax.config import UserError

NAME = "manifest.json"
_CONFIG, _TOKENIZER = "config.json", "tokenizer/tokenizer.json"
_FIELDS = {"step", "f1", "files", _CONFIG, _TOKENIZER}
_THREADS = 8  # hashing lets other threads run


def origin(workdir):
  """Returns {name: hash} of the files that decide what the arrays mean."""
  fields = config_lib.flatten(cli.read_workdir(workdir))
  fixed = {k: v for k, v in fields.items() if k not in config_lib.RESUMABLE}
  tokenizer = epath.Path(workdir) / _TOKENIZER
  return {_CONFIG: _digest(fixed), _TOKENIZER: _hash(tokenizer)[1]}


def save(path, manifest):
  """Writes the manifest of the step in `path`, which completes it."""
  manifest = {**manifest, "hash": _digest(manifest)}
  write(path / NAME, json.dumps(manifest, indent=1) + "\n")


def load(path):
  """Returns (manifest, ""), or (None, what is wrong with it)."""
  try:
    manifest = json.loads((path / NAME).read_text())
    intact = manifest.pop("hash") == _digest(manifest)
  except FileNotFoundError:
    return None, f"{NAME} is missing"
  except (ValueError, KeyError, AttributeError, TypeError):
    intact = False  # no JSON, no UTF-8, no dict ...
  if not intact:
    return None, f"{NAME} has changed since it was saved"
  if set(manifest) != _FIELDS:
    return None, f"{NAME} is of another version of this program"
  return manifest, ""


def problem(path, wanted):
  """Returns what is wrong with a step, or "": the same on every process.

  Each process hashes a share of the files. They agree here because restoring
  is collective: if only one found the damage, the others would wait for it.

  Args:
    path: of the step's folder.
    wanted: `origin` of the workdir.
  """
  try:
    found = next(_problems(path, wanted), "")
  except OSError as error:
    found = f"cannot be read ({error})"
  return next(filter(None, gather(found)), "")


def _problems(path, wanted):
  """Yields what differs, of the hashes in this process's share only."""
  manifest, unreadable = load(path)
  if unreadable:
    yield unreadable
    return
  if str(manifest["step"]) != path.name:
    yield f"{NAME} is that of step {manifest['step']}"
  for name, digest in wanted.items():
    if manifest[name] != digest:
      yield f"{name} of the workdir is not the one that it was saved with"
  files, names = manifest["files"], set(_names(path))
  for name in sorted(names.symmetric_difference(files)):
    yield f"{name} is " + ("missing" if name in files else "not part of it")
  for name, found in hashes(path).items():
    if found != files[name]:
      yield f"{name} has changed since it was saved"


def hashes(path):
  """Returns {file: [bytes, hash]} of this process's share of a step's files."""
  names = sorted(_names(path))[jax.process_index() :: jax.process_count()]
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    found = pool.map(lambda name: _hash(path / name), names)
    return dict(zip(names, found, strict=True))


def _names(path, prefix=""):
  """Yields the names of a step's files; hidden ones are the file system's."""
  for entry in (path / prefix).iterdir():
    name = f"{prefix}{entry.name}"
    if entry.is_dir():
      yield from _names(path, f"{name}/")
    elif not name.startswith((NAME, ".")):
      yield name


def _hash(path):
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, xxhash.xxh3_128)
    return [file.tell(), digest.hexdigest()]


def _digest(tree):
  text = json.dumps(tree, sort_keys=True)
  return xxhash.xxh3_128(text.encode()).hexdigest()


def gather(value):
  """Returns a list of each process's `value`, which must be possible in JSON.

  Collective, and therefore a barrier too.
  """
  if jax.process_count() == 1:
    return [value]
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(text.size))
  # In whole KiB: each width is a program to compile.
  width = -(-max(sizes) // 1024) * 1024
  texts = multihost_utils.process_allgather(np.resize(text, width))
  return [
    json.loads(row[:size].tobytes())
    for row, size in zip(texts, sizes, strict=True)
  ]


def write(path, text):
  """Writes a whole file or nothing: readers never see a partial one."""
  path = epath.Path(path)
  temporary = path.with_name(path.name + ".tmp")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(text)
    temporary.replace(path)
  except OSError as error:  # a full disk's names no path
    reason = error.strerror or error
    raise UserError(f"{path}: cannot be written ({reason})") from None

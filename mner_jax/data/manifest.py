"""Whether a checkpoint may be used: hashes of its files, checked before use.

`manifest.json` is written last: a step without one is not complete. It holds
the step's number, its dev F1, [bytes, hash] of each of its files, and hashes
of the workdir's files that decide what the arrays mean: config.json, without
the fields that a resume may change, and tokenizer.json; and a hash of itself.
"""

import concurrent.futures
import json

from etils import epath

from mner_jax import cli
from mner_jax import config as config_lib
from mner_jax.data import files

NAME = "manifest.json"
FORMAT = 2  # raised with every change of the arrays' names or meaning
_CONFIG, _TOKENIZER = "config.json", "tokenizer/tokenizer.json"
_FIELDS = {"format", "step", "f1", "files", _CONFIG, _TOKENIZER}
_THREADS = 8  # hashing lets other threads run


def origin(workdir):
  """Returns {name: hash} of the files that decide what the arrays mean."""
  fields = config_lib.flatten(cli.read_workdir(workdir))
  fixed = {k: v for k, v in fields.items() if k not in config_lib.RESUMABLE}
  tokenizer = files.hash_file(epath.Path(workdir) / _TOKENIZER)
  return {_CONFIG: files.digest(fixed), _TOKENIZER: tokenizer[1]}


def save(path, manifest):
  """Writes the manifest of the step in `path`, which completes it."""
  manifest = {**manifest, "format": FORMAT}
  manifest = {**manifest, "hash": files.digest(manifest)}
  files.write(path / NAME, json.dumps(manifest, indent=1) + "\n")


def load(path):
  """Returns (manifest, ""), or (None, what is wrong with it)."""
  try:
    manifest = json.loads((path / NAME).read_text())
    intact = manifest.pop("hash") == files.digest(manifest)
  except FileNotFoundError:
    return None, f"{NAME} is missing"
  except (ValueError, KeyError, AttributeError, TypeError):
    intact = False  # no JSON, no UTF-8, no dict ...
  if not intact:
    return None, f"{NAME} has changed since it was saved"
  if set(manifest) != _FIELDS or manifest["format"] != FORMAT:
    return None, f"{NAME} is of another version of this program"
  return manifest, ""


def problem(path, wanted, share):
  """Returns what is wrong with a step, or "".

  Args:
    path: of the step's folder.
    wanted: `origin` of the workdir.
    share: (index, count): hashes every count-th file only.
  """
  try:
    return next(_problems(path, wanted, share), "")
  except OSError as error:
    return f"cannot be read ({error})"


def _problems(path, wanted, share):
  manifest, unreadable = load(path)
  if unreadable:
    yield unreadable
    return
  if str(manifest["step"]) != path.name:
    yield f"{NAME} is that of step {manifest['step']}"
  for name, digest in wanted.items():
    if manifest[name] != digest:
      yield f"{name} of the workdir is not the one that it was saved with"
  known, names = manifest["files"], set(_names(path))
  for name in sorted(names.symmetric_difference(known)):
    yield f"{name} is " + ("missing" if name in known else "not part of it")
  for name, found in hashes(path, share).items():
    if found != known[name]:
      yield f"{name} has changed since it was saved"


def hashes(path, share):
  """Returns {file: [bytes, hash]} of a share of a step's files: `problem`."""
  index, count = share
  names = sorted(_names(path))[index::count]
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    found = pool.map(lambda name: files.hash_file(path / name), names)
    return dict(zip(names, found, strict=True))


def _names(path, prefix=""):
  """Yields the names of a step's files; hidden ones are the file system's."""
  for entry in (path / prefix).iterdir():
    name = f"{prefix}{entry.name}"
    if entry.is_dir():
      yield from _names(path, f"{name}/")
    elif not entry.name.startswith((NAME, ".")):
      yield name

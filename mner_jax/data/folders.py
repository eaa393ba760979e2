"""Data folders: which file holds which split and language; the pictures.

A folder holds `train`, `valid` and `test` (.txt, .conllu, .jsonl, ...) itself,
or in a subfolder for each language: `en/`, or `train_valid_test_en/` with
`train_conll_format.txt`, as the authors of MMNERD have it.
"""

import itertools

import xxhash

from mner_jax.config import UserError
from mner_jax.data import formats

SPLITS = {"train": ("train",), "valid": ("valid", "val", "dev"),
          "test": ("test",)}  # fmt: skip
_LANGUAGE_FOLDERS = (
  "{}", "train_valid_test_{}", "train_valid_test/train_valid_test_{}"
)  # fmt: skip


def find(folder, languages):
  """{split: {language: path}} of a data folder.

  The language is "" where one JSONL file holds several: its lines say which.
  """
  if not folder.is_dir():
    raise UserError(
      f"data.path: {folder} is not a folder; it should hold train.txt,"
      " valid.txt and test.txt"
    )
  found = {split: {} for split in SPLITS}
  for language in languages:
    for pattern in _LANGUAGE_FOLDERS:
      for split, path in _splits(folder / pattern.format(language)).items():
        found[split].setdefault(language, path)
  if not any(found.values()):
    for split, path in _splits(folder).items():
      shared = len(languages) > 1 and path.suffix == ".jsonl"
      if len(languages) > 1 and not shared:
        raise UserError(
          f"data.path: {folder} has no subfolders {', '.join(languages)}; for"
          " files of one language set data.languages to it, e.g. ('en',)"
        )
      found[split]["" if shared else languages[0]] = path
  return {split: files for split, files in found.items() if files}


def _splits(folder):
  """{split: path} of the files in a folder itself."""
  found = {}
  # One listing in place of many questions: the folder may be far away.
  present = {p.name for p in folder.iterdir()} if folder.is_dir() else ()
  for split, names in SPLITS.items():
    for name, end, suffix in itertools.product(
      names, ("", "_conll_format"), formats.SUFFIXES
    ):
      file = f"{name}{end}{suffix}"
      if file in present and (folder / file).is_file():
        found.setdefault(split, folder / file)
  return found


def languages(folder):
  """The languages that have a subfolder of files, sorted; ("",) if none."""
  found = set()
  for place in (folder, folder / "train_valid_test"):
    if place.is_dir():
      found |= {
        path.name.removeprefix("train_valid_test_")
        for path in place.iterdir()
        if _splits(path)
      }
  return tuple(sorted(found)) or ("",)


def image_files(folder):
  """Image id (with or without the suffix) -> path, from the folder's listing.

  Looking ids up here, never in the file system, keeps a data file from naming
  a picture outside of its folder.
  """
  if folder is None:
    return {}
  paths = listing(folder)
  return {p.stem: p for p in paths} | {p.name: p for p in paths}


def listing(folder):
  """The files of a folder, sorted."""
  return sorted(p for p in folder.iterdir() if p.is_file())


def hash_of(chunks):
  """A hash of what can be told as bytes or as text."""
  state = xxhash.xxh3_64()
  for chunk in chunks:
    state.update(chunk if isinstance(chunk, bytes) else str(chunk).encode())
    state.update(b"\0")
  return state.hexdigest()


def hash_of_file(path):
  """A hash of a file, of which little is in memory."""
  state = xxhash.xxh3_64()
  with path.open("rb") as file:
    while chunk := file.read(1 << 20):
      state.update(chunk)
  return state.hexdigest()

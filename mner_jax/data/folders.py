"""Data folders: which file holds which split and language; the pictures.

A folder holds `train`, `valid` and `test` (.txt, .conllu, .jsonl, ...) itself
or in a subfolder for each language: `en/`, or `train_valid_test_en/` with
`train_conll_format.txt`, which is the layout of MMNERD's authors.
"""

import itertools

from mner_jax.config import UserError
from mner_jax.data import formats, images

# Names of each split's file.
SPLITS = {
  "train": ("train",),
  "valid": ("valid", "val", "dev"),
  "test": ("test",),
}
_AUTHORS = "train_valid_test"
_LANGUAGE_FOLDERS = ("{}", _AUTHORS + "_{}", f"{_AUTHORS}/{_AUTHORS}_{{}}")


def find(folder, languages):
  """Returns {split: {language: path}} of a data folder.

  The language is "" where one JSONL file holds several: each line names its
  own.
  """
  if not folder.is_dir():
    raise UserError(
      f"data.path: {folder} is not a folder; it should hold train.txt,"
      " valid.txt and test.txt"
    )
  found = {split: {} for split in SPLITS}
  for language, pattern in itertools.product(languages, _LANGUAGE_FOLDERS):
    for split, path in _splits(folder / pattern.format(language)).items():
      found[split].setdefault(language, path)
  if not any(found.values()):
    for split, path in _splits(folder).items():
      several = len(languages) > 1
      if several and path.suffix != ".jsonl":
        raise UserError(
          f"data.path: {folder} has no subfolders {', '.join(languages)}; for"
          " files of one language set data.languages to it, e.g. ('en',)"
        )
      found[split]["" if several else languages[0]] = path
  return {split: files for split, files in found.items() if files}


def _splits(folder):
  """Returns {split: path} of the files directly in a folder."""
  found = {}
  # One listing instead of many lookups: the folder may be remote.
  present = {p.name for p in folder.glob("*")}
  for split, names in SPLITS.items():
    parts = itertools.product(names, ("", "_conll_format"), formats.SUFFIXES)
    files = [name for name in map("".join, parts) if name in present]
    if files:
      found[split] = folder / files[0]
  return found


def languages(folder):
  """Returns the languages that have a subfolder of files; ("",) if none."""
  places = (*folder.glob("*"), *folder.glob(f"{_AUTHORS}/*"))
  found = {p.name.removeprefix(f"{_AUTHORS}_") for p in places if _splits(p)}
  return tuple(sorted(found)) or ("",)


def image_files(folder):
  """Returns {image id, with or without the suffix: path} of a folder.

  Looking up ids here, not in the file system, keeps a data file from naming
  a picture outside of the folder. {} if the folder is None.
  """
  paths = sorted(p for p in folder.iterdir() if p.is_file()) if folder else []
  return {p.stem: p for p in paths} | {p.name: p for p in paths}


def picture(image, paths, resize=0):
  """Returns what an image id leads to.

  Args:
    image: the id; "" = none.
    paths: {id: path} of `image_files`, or None if no picture is wanted.
    resize: shortest side to store the picture with; 0 = as it is.

  Returns:
    (name of the file or "", status, bytes of the file); the status is "" (no
    image), "ok", "missing" or "broken".
  """
  if not image or paths is None:
    return "", "", b""
  if image not in paths:
    return "", "missing", b""
  path = paths[image]
  try:
    return path.name, "ok", images.shrink(path.read_bytes(), resize)
  except images.BrokenImageError:
    return path.name, "broken", b""

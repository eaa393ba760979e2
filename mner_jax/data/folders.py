"""Data folders: which file holds which split and language; the pictures.

A folder holds `train`, `valid` and `test` (.txt, .conllu, .jsonl, ...) itself
or in a subfolder for each language: `en/`, or `train_valid_test_en/` with
`train_conll_format.txt`, which is the layout of MMNERD's authors.
"""

import itertools

from PIL import Image

from mner_jax.config import UserError
from mner_jax.data import formats, images

# Names of each split's file.
SPLITS = {
  "train": ("train",),
  "valid": ("valid", "val", "dev"),
  "test": ("test",),
}
_AUTHORS = "train_valid_test"
_PLACES = ("{}", _AUTHORS + "_{}", f"{_AUTHORS}/{_AUTHORS}_{{}}")


def find(folder, languages):
  """Returns {split: {language: path}} of a data folder.

  The language is "" where one JSONL file holds several: each line names its
  own. Raises a UserError where two files could be meant.
  """
  if not folder.is_dir():
    raise UserError(
      f"data.path: {folder} is not a folder; it should hold train.txt,"
      " valid.txt and test.txt"
    )
  found = {split: {} for split in SPLITS}
  for language, place in itertools.product(languages, _PLACES):
    for split, path in _splits(folder / place.format(language)).items():
      _refuse_both(found[split].get(language), path)
      found[split][language] = path
  beside = [path for files in found.values() for path in files.values()]
  for split, path in _splits(folder).items() if any(languages) else ():
    _refuse_both(*beside[:1], path)
    several = len(languages) > 1
    if several and path.suffix != ".jsonl":
      raise UserError(
        f"data.path: {folder} has no subfolders {', '.join(languages)}; for"
        " files of one language set data.languages to it, e.g. ('en',)"
      )
    found[split]["" if several else languages[0]] = path
  return {split: files for split, files in found.items() if files}


def _refuse_both(*paths):
  if None not in paths and len(paths) > 1:
    raise UserError(
      f"data.path: both {' and '.join(map(str, paths))} are there; keep one"
    )


def names(folder, languages):
  """Describes which file names are known, and which there are."""
  below = itertools.product(languages, _PLACES)
  places = {folder, *(folder / place.format(name) for name, place in below)}
  paths = (path for place in places for path in place.glob("*"))
  present = sorted(str(path.relative_to(folder)) for path in paths)
  splits = ", ".join(map("/".join, SPLITS.values()))
  return (
    f"known are {splits} with {' '.join(formats.SUFFIXES)}; {folder} holds"
    f" {', '.join(present[:12]) or 'nothing'}{', ...' * (len(present) > 12)}"
  )


def _splits(folder):
  """Returns {split: path} of the files directly in a folder."""
  found = {}
  # One listing instead of many lookups: the folder may be remote.
  # `glob` takes a folder that one may not read for an empty one.
  present = {p.name for p in folder.iterdir()} if folder.is_dir() else {}
  for split, names in SPLITS.items():
    parts = itertools.product(names, ("", "_conll_format"), formats.SUFFIXES)
    files = [folder / name for name in map("".join, parts) if name in present]
    _refuse_both(*files[:2])
    if files:
      found[split] = files[0]
  return found


def languages(folder):
  """Returns the languages that have a subfolder of files; ("",) if none."""
  places = (*folder.glob("*"), *folder.glob(f"{_AUTHORS}/*"))
  found = {p.name.removeprefix(f"{_AUTHORS}_") for p in places if _splits(p)}
  return tuple(sorted(found)) or ("",)


def image_files(folder):
  """Returns {image id, with or without the suffix: path} of a folder.

  Looking up ids here, not in the file system, keeps a data file from naming
  a picture outside of the folder. Of files that differ in the suffix only, the
  id without leads to a picture. {} if the folder is None.
  """
  known = Image.registered_extensions()
  paths = [p for p in folder.iterdir() if p.is_file()] if folder else []
  paths.sort(key=lambda p: (p.suffix.lower() in known, p))
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

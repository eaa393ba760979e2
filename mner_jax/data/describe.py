"""Counts what is in data folders, and what they share.

  python -m mner_jax.data.describe PATH...

Reads the files themselves; nothing is built. Sentences are shared if they
have the same words, pictures if they have the same id.
"""

import collections
import itertools
import re

from etils import epath

from mner_jax.cli import launch
from mner_jax.config import UserError
from mner_jax.data import folders, formats, schemes

_SUFFIX = re.compile(r"\.(jpe?g|png|gif|webp|bmp)$", re.IGNORECASE)


def describe(paths, image_folder=None, **how):
  """Counts what is in data folders, and what they share.

  Args:
    paths: folders as `folders.find` knows them.
    image_folder: of the pictures, relative to each path; None = "images",
      where there is one.
    how: `scheme` and `tag_column` of `formats.read`.

  Returns:
    {path: {split and language: {name: number}}}; what two folders, or two
    splits, share: {(name, name): {"sentences" or "images": number}}; and the
    notes of `formats.read`.
  """
  counts, wholes, splits, notes = {}, {}, {}, []
  for path in map(epath.Path, paths):
    languages = folders.languages(path)
    files = folders.find(path, languages)
    if not files:
      present = folders.names(path, languages)
      raise UserError(f"{path}: no train, valid or test file in it; {present}")
    place, pictures = path / (image_folder or "images"), None
    if image_folder or place.is_dir():
      pictures = folders.image_files(place)
    columns, wholes[str(path)] = {}, []
    for split, by_language in files.items():
      found = []
      for language, file in by_language.items():
        found += formats.read(file, language, notes=notes, **how)
      wholes[str(path)] += found
      splits[f"{path} {split}"] = found
      for language in sorted({s.language for s in found}):
        members = [s for s in found if s.language == language]
        columns[f"{split} {language}".strip()] = _counts(members, pictures)
    counts[str(path)] = columns
  return counts, _shared(wholes) | _shared(splits), notes


def _counts(sentences, pictures):
  """Returns {name: number} of sentences.

  `pictures`: {image id: path} or None.
  """
  lengths = [len(s.words) for s in sentences]
  repaired = [schemes.repair(s.tags) for s in sentences]
  counts = {
    "sentences": len(lengths),
    "tokens": sum(lengths),
    "mean length": round(sum(lengths) / len(lengths), 2),
    "longest": max(lengths),
    "orphan tags": sum(orphans for _, orphans in repaired),
  }
  if pictures is not None:
    names = {s.image for s in sentences if s.image}
    found = (folders.picture(name, pictures) for name in names)
    status = collections.Counter(status for _, status, _ in found)
    counts["images"] = len(names)
    counts["images missing"] = status["missing"]
    counts["images broken"] = status["broken"]
  types = collections.Counter(
    tag[2:] for tags, _ in repaired for tag in tags if tag[0] == "B"
  )
  counts["entities"] = types.total()
  return counts | {f"  {name}": n for name, n in sorted(types.items())}


def _shared(groups):
  """What any two of {name: sentences} share: see `describe`."""
  kept = {}
  for name, sentences in groups.items():
    ids = (_SUFFIX.sub("", s.image) for s in sentences if s.image)
    kept[name] = {("images", i) for i in ids}
    kept[name] |= {("sentences", s.words) for s in sentences}
  pairs = {
    (a, b): collections.Counter(kind for kind, _ in kept[a] & kept[b])
    for a, b in itertools.combinations(kept, 2)
  }
  return {pair: counts for pair, counts in pairs.items() if counts}


def table(counts, shared, notes):
  """Returns the result of `describe` as text, a column for each split."""
  lines = []
  for path, columns in counts.items():
    rows = [["", *columns]]
    for name in dict.fromkeys(itertools.chain(*columns.values())):
      numbers = (column.get(name, 0) for column in columns.values())
      rows.append([name, *(f"{number:,}" for number in numbers)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines.append(path)
    for name, *cells in rows:
      padded = map(str.rjust, cells, widths[1:])
      lines.append("  ".join(["", name.ljust(widths[0]), *padded]))
    lines.append("")
  lines += notes
  lines.append("shared" if shared else "nothing is shared")
  for (a, b), kinds in shared.items():
    numbers = f"{kinds['sentences']:,} sentences, {kinds['images']:,} images"
    lines.append(f"  {a} - {b}: {numbers}")
  return "\n".join(lines)


def arguments(parser):
  """Defines the command's flags."""
  add = parser.add_argument
  add("paths", nargs="+", metavar="PATH", help="a data folder")
  add("--scheme", default="iob2", choices=schemes.SCHEMES, help="of the tags")
  add("--tag_column", default="-1", help="as data.tag_column (default: last)")
  add("--images", help="folder of the pictures, relative to each PATH")


def main(args):
  """Describes the folders named on the command line."""
  how = {"scheme": args.scheme, "tag_column": args.tag_column}
  print(table(*describe(args.paths, args.images, **how)))


if __name__ == "__main__":
  launch(main, arguments, __doc__)

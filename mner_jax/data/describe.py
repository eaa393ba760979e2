"""Says what is in data folders, and what they share.

  python -m mner_jax.data.describe PATH...

Reads the files themselves; nothing is built. Sentences are shared if they
have the same words, pictures if they have the same id.
"""

import collections
import itertools
import re
import statistics

from etils import epath

from mner_jax.cli import launch
from mner_jax.config import UserError
from mner_jax.data import folders, formats, images, schemes, wordpiece

_SUFFIX = re.compile(r"\.(jpe?g|png|gif|webp|bmp)$", re.IGNORECASE)


def describe(paths, *, scheme="iob2", image_folder=None, tokenizer=None,
             max_pieces=512):  # fmt: skip
  """What is in data folders, and what they share.

  Args:
    paths: folders as `folders.find` knows them.
    scheme: of the tags.
    image_folder: of the pictures, relative to each path; None = "images",
      where there is one.
    tokenizer: of the `tokenizers` library, to count pieces; or None.
    max_pieces: of a window.

  Returns:
    {"splits": a dict for each split of each language, "overlaps": a dict for
    each pair of splits, and of folders, that share something}.
  """
  rows, groups = [], {}
  for path in map(epath.Path, paths):
    files = folders.find(path, folders.languages(path))
    if not files:
      raise UserError(f"{path}: no train, valid or test file in it")
    place = path / (image_folder or "images")
    if image_folder and not place.is_dir():
      raise UserError(f"--images: {place} is not a folder")
    pictures = folders.image_files(place) if place.is_dir() else None
    for split, by_language in files.items():
      found = [
        sentence
        for language, file in by_language.items()
        for sentence in formats.read(file, language, scheme)
      ]
      groups[str(path), split] = found
      for language in sorted({s.language for s in found}):
        members = [s for s in found if s.language == language]
        row = {"path": str(path), "split": split, "language": language}
        row |= _text_row(members) | _image_row(members, pictures)
        if tokenizer:
          row |= _piece_row(members, tokenizer, max_pieces)
        rows.append(row)
  return {"splits": rows, "overlaps": _overlaps(groups)}


def _text_row(sentences):
  lengths = [len(s.words) for s in sentences]
  types, orphans = collections.Counter(), 0
  for s in sentences:
    tags, count = schemes.repair(s.tags)
    types.update(tag[2:] for tag in tags if tag.startswith("B-"))
    orphans += count
  return {
    "sentences": len(lengths),
    "tokens": sum(lengths),
    "mean_length": round(statistics.fmean(lengths), 2),
    "longest": max(lengths),
    "orphan_tags": orphans,
    "entities": dict(sorted(types.items())),
  }


def _image_row(sentences, pictures):
  """Which pictures are there; {} where there is no folder of them."""
  if pictures is None:
    return {}
  names = {s.image for s in sentences if s.image}
  broken = 0
  for name in names & pictures.keys():
    try:
      images.decode(pictures[name].read_bytes())
    except images.BrokenImageError:
      broken += 1
  return {
    "images": len(names),
    "images_missing": len(names - pictures.keys()),
    "images_broken": broken,
  }


def _piece_row(sentences, tokenizer, max_pieces):
  windows = wordpiece.windows(tokenizer, sentences, max_pieces)
  words = [s.words for s in sentences]
  pieces = sum(
    len(encoding.ids)
    for encoding in tokenizer.encode_batch(
      words, is_pretokenized=True, add_special_tokens=False
    )
  )
  return {
    "pieces_per_word": round(pieces / sum(map(len, words)), 3),
    "windows": len(windows),
    "unk_words": sum(w.unk_words for w in windows),
  }


def _overlaps(groups):
  """What any two splits share, and any two folders as a whole."""
  names = [*((path, "") for path, _ in groups), *groups]  # "" = all its splits
  kept = {name: {"sentences": set(), "images": set()} for name in names}
  for (path, split), sentences in groups.items():
    for name in ((path, split), (path, "")):
      kept[name]["sentences"].update(s.words for s in sentences)
      kept[name]["images"].update(
        _SUFFIX.sub("", s.image) for s in sentences if s.image
      )
  found = []
  for first, second in itertools.combinations(kept, 2):
    whole = [not split for _, split in (first, second)]
    if any(whole) and (not all(whole) or first[0] == second[0]):
      continue  # a folder as a whole is compared with other folders only
    shared = {k: len(kept[first][k] & kept[second][k]) for k in kept[first]}
    if any(shared.values()):
      names = (" ".join(name).strip() for name in (first, second))
      found.append(dict(zip(("first", "second"), names, strict=True)) | shared)
  return found


def table(found):
  """The result of `describe` as lines of text."""
  heads = {
    "sentences": "sentences", "tokens": "tokens", "mean_length": "mean",
    "longest": "longest", "orphan_tags": "orphans", "images": "images",
    "images_missing": "missing", "images_broken": "broken",
    "pieces_per_word": "pieces/word", "windows": "windows", "unk_words": "unk",
  }  # fmt: skip
  lines = []
  for path, rows in itertools.groupby(found["splits"], lambda row: row["path"]):
    rows = list(rows)
    keys = [key for key in heads if key in rows[0]]
    cells = [["", "", *(heads[key] for key in keys)]]
    for row in rows:
      numbers = (f"{row[key]:,}" for key in keys)
      cells.append([row["split"], row["language"], *numbers])
    lines += [path, *_columns(cells)]
    types = sorted({kind for row in rows for kind in row["entities"]})
    cells = [["entities", "", "all", *types]]
    for row in rows:
      counts = [row["entities"].get(kind, 0) for kind in types]
      numbers = (f"{count:,}" for count in (sum(counts), *counts))
      cells.append([row["split"], row["language"], *numbers])
    lines += ["", *_columns(cells), ""]
  lines.append("shared" if found["overlaps"] else "nothing is shared")
  for row in found["overlaps"]:
    lines.append(
      f"  {row['first']} - {row['second']}: {row['sentences']:,} sentences,"
      f" {row['images']:,} images"
    )
  return "\n".join(lines)


def _columns(rows):
  """Rows of cells as lines; the first two columns to the left."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    "  "
    + "  ".join(
      cell.ljust(width) if i < 2 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]


def arguments(parser):
  """Defines the command's flags."""
  add = parser.add_argument
  add("paths", nargs="+", metavar="PATH", help="a data folder")
  add(
    "--tokenizer", help="folder with tokenizer.json or vocab.txt: count pieces"
  )
  add("--max_pieces", type=int, default=512, help="of a window (default: 512)")
  add("--scheme", default="iob2", choices=schemes.SCHEMES, help="of the tags")
  add("--images", help="folder of the pictures, relative to each PATH")


def main(args):
  """Describes the folders named on the command line."""
  if args.max_pieces < 8:
    raise UserError("--max_pieces must be at least 8")
  tokenizer = None
  if args.tokenizer:
    tokenizer = wordpiece.published(epath.Path(args.tokenizer))
  found = describe(
    args.paths,
    scheme=args.scheme,
    image_folder=args.images,
    tokenizer=tokenizer,
    max_pieces=args.max_pieces,
  )
  print(table(found))


if __name__ == "__main__":
  launch(main, arguments, __doc__)

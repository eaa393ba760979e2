"""A split of a built data set, in memory except for its pictures."""

import contextlib
import dataclasses
import itertools
import json

from mner_jax.config import UserError
from mner_jax.data import files, formats, schemes


@dataclasses.dataclass(frozen=True)
class Split:
  """Sentences in the order of the source.

  Attributes:
    sentences: Sentence of each example.
    image_status: "" (no image), "ok", "missing" or "broken", of each.
    image_names: the picture's file, of each; "" = none.
    rows: row in `records` of each example's picture.
    records: the TFDS data source of the pictures.
    folder: where it lies.
    notes: what reading the files left to tell.
  """

  sentences: list[formats.Sentence]
  image_status: list[str]
  image_names: list[str]
  rows: list[int]
  records: object
  folder: object = None
  notes: tuple[str, ...] = ()

  def image(self, index):
    """Returns the file's bytes of example `index`, whose status is "ok"."""
    with damaged(self.folder):
      return self.records[self.rows[index]]["image"]


@contextlib.contextmanager
def damaged(folder):
  """Names the folder to delete where TFDS cannot read what it has written."""
  try:
    yield
  except (UserError, OSError):
    raise
  except Exception as error:  # of many kinds
    if not folder.exists():
      raise
    raise UserError(
      f"data.cache_dir: the data set built in {folder} is damaged"
      f" ({' '.join(str(error).split())[:80]}); delete that folder, and it is"
      " built again"
    ) from error


def read(builder, split, languages, types):
  """Reads the Split of a built data set: the sentences of these languages.

  They are in the order of the languages, and each in that of its file; those of
  one file with several languages are as they are.

  Args:
    builder: `builders._Builder`, prepared.
    split: "train", "valid" or "test".
    languages: whose sentences; each must have some.
    types: {old: new} entity types, see `schemes.rename`.
  """
  pictures = f"{split}_pictures"
  records = builder.as_data_source(split=pictures)
  for end in itertools.accumulate(builder.info.splits[pictures].shard_lengths):
    records[end - 1]  # raises if its file is cut or missing
  notes = [*builder.info.metadata["notes"][split]]
  found = Split([], [], [], [], records, builder.data_path, notes)
  (record,) = builder.as_data_source(split=split)
  examples = json.loads(record["text"])
  known = builder.files[split]
  if "" not in known:
    if others := sum(s["language"] not in known for s, *_ in examples):
      notes.append(f"{others} sentences in other languages left out")
    order = {language: i for i, language in enumerate(languages)}
    examples.sort(key=lambda example: order.get(example[0]["language"], -1))
  for sentence, name, status, row in examples:
    if sentence["language"] in languages:
      sentence["words"] = tuple(sentence["words"])
      sentence["tags"] = schemes.rename(sentence["tags"], types)
      found.sentences.append(formats.Sentence(**sentence))
      found.image_status.append(status)
      found.image_names.append(name)
      found.rows.append(row)
  if absent := set(languages) - {s.language for s in found.sentences}:
    raise UserError(f"data.languages: no {split} sentence in {min(absent)!r}")
  return found


def refuse_no_image(split):
  """Raises a UserError where pictures are named and none of them is found."""
  status = split.image_status
  if "missing" in status and not {"ok", "broken"} & {*status}:
    name = split.sentences[status.index("missing")].image
    raise UserError(
      f"data.images: no picture that the train split names is in that folder,"
      f" for example {name!r}; give the files' names, without a folder, or"
      " train on text alone, as in configs/synthetic_text.py"
    )


def refuse_images(splits):
  """Raises a UserError that lists the missing and broken images."""
  wrong = dict.fromkeys(
    f"{sentence.image} ({split.image_status[i]})"
    for split in splits
    for i, sentence in enumerate(split.sentences)
    if split.image_status[i] in ("missing", "broken")
  )
  if wrong:
    listed = ", ".join([*wrong][:10]) + ", ..." * (len(wrong) > 10)
    raise UserError(
      f"data.strict: {len(wrong)} images are missing or broken: {listed}"
    )


def refuse_orphans(split):
  """Raises a UserError at the first orphan I- of a split."""
  for sentence in split.sentences:
    repaired, _ = schemes.repair(sentence.tags)
    for word, tag in enumerate(sentence.tags):
      if tag != repaired[word]:
        raise UserError(
          f"{sentence.where(word)}: {tag} does not follow a tag of its type;"
          " correct it, or set data.orphans to 'repair'"
        )


def notes(split):
  """Describes what is wrong in a split, in words; "" = nothing."""
  counts = {
    "orphan I- tags": sum(schemes.repair(s.tags)[1] for s in split.sentences),
    "images missing": split.image_status.count("missing"),
    "images broken": split.image_status.count("broken"),
  }
  counted = (f"{count} {name}" for name, count in counts.items() if count)
  return ", ".join([*counted, *split.notes])


def fingerprint(splits):
  """Returns a hash of the sentences and of which have a picture."""
  return files.hash_of(
    chunk
    for split in splits
    for s, status in zip(split.sentences, split.image_status, strict=True)
    for chunk in (*s.words, *s.tags, s.language, s.image, status)
  )


def labels(splits, given=()):
  """Returns the sorted entity types of the splits, or `given` once checked.

  Raises a UserError at the first tag whose type is not among `given`.
  """
  found = set()
  for sentence in (s for split in splits for s in split.sentences):
    for word, tag in enumerate(sentence.tags):
      if given and tag[2:] not in ("", *given):
        raise UserError(
          f"{sentence.where(word)}: the type of {tag} is not in data.labels"
          f" ({', '.join(given)})"
        )
      found.add(tag[2:])
  return given or tuple(sorted(found - {""}))  # "": the type of O

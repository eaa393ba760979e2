"""A split of a built data set, in memory except for its pictures."""

import dataclasses

from mner_jax.config import UserError
from mner_jax.data import files, formats, schemes

# Features of a built data set that are texts. Several image ids may lead to the
# file `image_name`; for `image_status` see Split.
TEXTS = "language source origin image_id image_name image_status".split()


@dataclasses.dataclass(frozen=True)
class Split:
  """Sentences in the order of the source.

  Attributes:
    sentences: Sentence of each example.
    image_status: "" (no image), "ok", "missing" or "broken", of each.
    image_names: the picture's file, of each; "" = none.
    rows: row of each example in `records`.
    records: the TFDS data source.
  """

  sentences: list[formats.Sentence]
  image_status: list[str]
  image_names: list[str]
  rows: list[int]
  records: object

  def image(self, index):
    """Returns the file's bytes of example `index`, whose status is "ok"."""
    return self.records[self.rows[index]]["image"]


def read(builder, split, languages, types):
  """Reads the Split of a built data set: the sentences of these languages.

  Args:
    builder: of TFDS, prepared.
    split: "train", "valid" or "test".
    languages: whose sentences; each must have some.
    types: {old: new} entity types, see `schemes.rename`.
  """
  records = builder.as_data_source(split=split)
  found = Split([], [], [], [], records)
  for row, record in enumerate(records):
    language, source, origin, image, name, status = (
      record[text].decode() for text in TEXTS
    )
    if language in languages:
      words = tuple(word.decode() for word in record["words"])
      tags = schemes.rename([tag.decode() for tag in record["tags"]], types)
      sentence = formats.Sentence(words, tags, image, language, source, origin)
      found.sentences.append(sentence)
      found.image_status.append(status)
      found.image_names.append(name)
      found.rows.append(row)
  if absent := set(languages) - {s.language for s in found.sentences}:
    raise UserError(f"data.languages: no {split} sentence in {min(absent)!r}")
  return found


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
  return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


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

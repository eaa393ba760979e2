"""A split of a built data set, in memory but for its pictures."""

import dataclasses

from mner_jax.config import UserError
from mner_jax.data import folders, formats, schemes

_LISTED = 10  # images named in a message


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
    """The file's bytes of example `index`, whose status is "ok"."""
    return self.records[self.rows[index]]["image"]


def read(builder, name, languages, types):
  """The Split of a built data set: sentences of these languages.

  Args:
    builder: of TFDS, prepared.
    name: "train", "valid" or "test".
    languages: whose sentences; each must have some.
    types: {old: new} entity types, see `schemes.rename`.
  """
  records = builder.as_data_source(split=name)
  found = Split([], [], [], [], records)
  for row in range(len(records)):
    record = records[row]
    if record["language"].decode() not in languages:
      continue
    tags = tuple(t.decode() for t in record["tags"])
    found.sentences.append(
      formats.Sentence(
        words=tuple(w.decode() for w in record["words"]),
        tags=schemes.rename(tags, types) if types else tags,
        image=record["image_id"].decode(),
        language=record["language"].decode(),
        source=record["source"].decode(),
        origin=record["origin"].decode(),
      )
    )
    found.image_status.append(record["image_status"].decode())
    found.image_names.append(record["image_name"].decode())
    found.rows.append(row)
  if absent := set(languages) - {s.language for s in found.sentences}:
    raise UserError(f"data.languages: no {name} sentence is in {min(absent)!r}")
  return found


def refuse_images(splits):
  """Raises a UserError that lists the missing and broken images."""
  wrong = {
    f"{sentence.image} ({status})": None
    for split in splits
    for sentence, status in zip(
      split.sentences, split.image_status, strict=True
    )
    if status not in ("", "ok")
  }
  if wrong:
    more = ", ..." if len(wrong) > _LISTED else ""
    raise UserError(
      f"data.strict: {len(wrong)} images are missing or broken:"
      f" {', '.join(list(wrong)[:_LISTED])}{more}"
    )


def refuse_orphans(split):
  """Raises a UserError at the first orphan I- of a split."""
  for sentence in split.sentences:
    repaired, count = schemes.repair(sentence.tags)
    if count:
      pairs = zip(repaired, sentence.tags, strict=True)
      word = next(i for i, (new, old) in enumerate(pairs) if new != old)
      raise UserError(
        f"{sentence.where(word)}: {sentence.tags[word]} follows no tag of its"
        " type; correct it, or set data.orphans to 'repair'"
      )


def notes(split):
  """What is not as it should be in a split, in words; "" = nothing."""
  counts = {
    "orphan I- tags": sum(schemes.repair(s.tags)[1] for s in split.sentences),
    "images missing": split.image_status.count("missing"),
    "images broken": split.image_status.count("broken"),
  }
  return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def fingerprint(splits):
  """A hash of the splits' sentences and of which have a picture."""
  return folders.hash_of(
    chunk
    for split in splits
    for s, status in zip(split.sentences, split.image_status, strict=True)
    for chunk in (*s.words, *s.tags, s.language, s.image, status)
  )


def labels(splits, given=()):
  """The entity types of the splits, or `given` once they are checked.

  Raises a UserError at the first tag whose type is not among `given`.
  """
  found = set()
  for split in splits:
    for sentence in split.sentences:
      types = {tag[2:] for tag in sentence.tags if tag != "O"}
      if given and (unknown := types - set(given)):
        word = next(
          i for i, tag in enumerate(sentence.tags) if tag[2:] in unknown
        )
        raise UserError(
          f"{sentence.where(word)}: tag {sentence.tags[word]} is of none of"
          f" the types in data.labels ({', '.join(given)})"
        )
      found |= types
  return given or tuple(sorted(found))

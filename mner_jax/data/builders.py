"""TFDS data sets: the synthetic corpus, and text files + a folder of images.

Both are built once, as array_record files and without TensorFlow. A hash of
the source is in the config's name, so a changed source is a new data set.
"""

import contextlib
import dataclasses
import importlib.resources
import io
import itertools
import sys

import numpy as np
import tensorflow_datasets as tfds
import xxhash
from etils import epath

from mner_jax.config import UserError
from mner_jax.data import formats, images
from mner_jax.data.synthetic import corpus, pictures

SPLITS = {"train": ("train",), "valid": ("valid", "val", "dev"),
          "test": ("test",)}  # fmt: skip
_SUFFIXES = (".txt", ".conllu")
_SYNTHETIC_SEED = 0


@dataclasses.dataclass(eq=False, kw_only=True)
class SourceConfig(tfds.core.BuilderConfig):
  """Where a data set comes from; its name carries the source's hash."""

  # {split: {language: path}}
  files: dict = dataclasses.field(default_factory=dict)
  images: epath.Path | None = None


class _SentencesBuilder(
  tfds.core.GeneratorBasedBuilder, skip_registration=True
):
  """Sentences with at most one picture each, in the order of the source."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(
        {
          "words": tfds.features.Sequence(text),
          "tags": tfds.features.Sequence(text),
          "language": text,
          "source": text,
          "origin": text,
          "image_id": text,
          # "" (no image), "ok", "missing" or "broken"
          "image_status": text,
          # The file's bytes; a scalar, as an Image feature is never absent.
          "image": tfds.features.Tensor(shape=(), dtype=np.object_),
        }
      ),
    )

  def _example(self, sentence, status, image):
    return {
      "words": sentence.words,
      "tags": sentence.tags,
      "language": sentence.language,
      "source": sentence.source,
      "origin": sentence.origin,
      "image_id": sentence.image,
      "image_status": status,
      "image": image,
    }


class SyntheticMner(_SentencesBuilder, skip_registration=True):
  """The embedded corpus of `mner_jax.data.synthetic`."""

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split):
    for i, example in enumerate(corpus.examples(split, seed=_SYNTHETIC_SEED)):
      data = b""
      if example.scene:
        rng = corpus.picture_rng(_SYNTHETIC_SEED, example.sentence.image)
        buffer = io.BytesIO()
        pictures.draw(example.scene, rng).save(buffer, "PNG")
        data = buffer.getvalue()
      yield i, self._example(example.sentence, "ok" if data else "", data)


class TextImageFolder(_SentencesBuilder, skip_registration=True):
  """`train`, `valid` and `test` text files and a folder of images."""

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(files)
      for split, files in self.builder_config.files.items()
    }

  def _generate_examples(self, files):
    pictures_by_id = _image_files(self.builder_config.images)
    key = 0
    for language, path in files.items():
      before = key
      for sentence in formats.read_conll(path, language):
        yield (
          key,
          self._example(sentence, *self._image(sentence, pictures_by_id)),
        )
        key += 1
      if key == before:
        raise UserError(f"{path}: no sentence in it")

  def _image(self, sentence, pictures_by_id):
    if not sentence.image or self.builder_config.images is None:
      return "", b""
    path = pictures_by_id.get(sentence.image)
    if path is None:
      return "missing", b""
    try:
      data = path.read_bytes()
    except OSError as error:
      raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
      images.decode(data)
    except images.BrokenImageError:
      return "broken", b""
    return "ok", data


def _image_files(folder):
  """Image id (with or without the suffix) -> path, from the folder's listing.

  Looking ids up here, never in the file system, keeps a data file from naming
  a picture outside of its folder.
  """
  if folder is None:
    return {}
  paths = _listing(folder)
  return {p.stem: p for p in paths} | {p.name: p for p in paths}


def _listing(folder):
  return sorted(p for p in folder.iterdir() if p.is_file())


def _find_files(folder, languages):
  """{split: {language: path}} of a data folder.

  The files stand in the folder itself, or in a subfolder for each language.
  """
  if not folder.is_dir():
    raise UserError(
      f"data.path: {folder} is not a folder; it should hold train.txt,"
      " valid.txt and test.txt"
    )
  places = {language: folder / language for language in languages}
  if not any(place.is_dir() for place in places.values()):
    if len(languages) > 1:
      raise UserError(
        f"data.path: {folder} has no subfolders {', '.join(languages)}; for"
        " files of one language set data.languages to it, e.g. ('en',)"
      )
    places = {languages[0]: folder}
  found = {}
  for split, names in SPLITS.items():
    for language, place in places.items():
      for name, suffix in itertools.product(names, _SUFFIXES):
        path = place / f"{name}{suffix}"
        if path.is_file():
          found.setdefault(split, {}).setdefault(language, path)
  return found


def _hash(chunks):
  state = xxhash.xxh3_64()
  for chunk in chunks:
    state.update(chunk if isinstance(chunk, bytes) else str(chunk).encode())
    state.update(b"\0")
  return state.hexdigest()


def _folder_builder(config, languages):
  folder = epath.Path(config.path).expanduser()
  files = _find_files(folder, languages)
  image_folder = None
  chunks = []
  for split, entries in files.items():
    for language, path in entries.items():
      name = f"{path.parent.name}/{path.name}"  # stands in messages
      chunks += [split, language, name, path.read_bytes()]
  chunks.append(bool(config.images))
  if config.images:
    image_folder = folder / config.images  # an absolute path stands alone
    if not image_folder.is_dir():
      raise UserError(
        f"data.images: {image_folder} is not a folder; name the folder of the"
        " images, or train without any by --config.data.images="
      )
    # Reading every picture would take minutes; a changed one has a new time.
    for path in _listing(image_folder):
      stat = path.stat()
      chunks += [path.name, stat.length, stat.mtime]
  source = SourceConfig(name=_hash(chunks), files=files, images=image_folder)
  return TextImageFolder, source


def _synthetic_builder():
  package = importlib.resources.files("mner_jax.data.synthetic")
  modules = sorted(
    (p for p in package.iterdir() if p.name.endswith(".py")),
    key=lambda p: p.name,
  )
  chunks = [_SYNTHETIC_SEED, *(p.read_bytes() for p in modules)]
  return SyntheticMner, SourceConfig(name=_hash(chunks))


@dataclasses.dataclass(frozen=True)
class Split:
  """A split in memory, but for its pictures.

  Attributes:
    sentences: Sentence of each example.
    image_status: "" (no image), "ok", "missing" or "broken", of each.
    rows: row of each example in `records`.
    records: the TFDS data source.
  """

  sentences: list[formats.Sentence]
  image_status: list[str]
  rows: list[int]
  records: object

  def image(self, index):
    """The file's bytes of example `index`, whose status is "ok"."""
    return self.records[self.rows[index]]["image"]


def load(config, splits=tuple(SPLITS), languages=None):
  """Splits of a data set, built on first use.

  Args:
    config: a DataConfig, where the data is.
    splits: names out of "train", "valid" and "test".
    languages: whose sentences; each must have a file for each split. None =
      all of `config`.

  Returns:
    {name: Split}.
  """
  known = tuple(dict.fromkeys((*config.languages, *config.eval_languages)))
  languages = languages or known
  if config.path == "synthetic":
    if unknown := set(known) - set(corpus.LANGUAGES):
      raise UserError(
        f"data.languages: the synthetic corpus has no {sorted(unknown)[0]!r},"
        f" only {', '.join(corpus.LANGUAGES)}"
      )
    builder_class, source = _synthetic_builder()
  else:
    builder_class, source = _folder_builder(config, known)
  builder = builder_class(
    config=source,
    data_dir=config.cache_dir or None,
    file_format="array_record",
  )
  for split, language in itertools.product(splits, languages):
    if source.files and language not in source.files.get(split, {}):
      raise UserError(
        f"data.path: {config.path} has no {split}{_SUFFIXES[0]} for"
        f" {language!r}"
      )
  _build(builder)
  return {split: _read(builder, split, set(languages)) for split in splits}


def _build(builder):
  if builder.is_prepared():
    return
  print(f"building the data set in {builder.data_dir}", file=sys.stderr)
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  try:
    # TFDS prints where it writes; standard output is for results.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
  except OSError as error:
    raise UserError(
      f"data.cache_dir: cannot build the data set in {builder.data_dir}:"
      f" {error}"
    ) from None


def fingerprint(splits):
  """A hash of the splits' sentences and of which have a picture."""
  return _hash(
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


def _read(builder, split, languages):
  records = builder.as_data_source(split=split)
  sentences, statuses, rows = [], [], []
  for row in range(len(records)):
    record = records[row]
    if record["language"].decode() not in languages:
      continue
    sentences.append(
      formats.Sentence(
        words=tuple(w.decode() for w in record["words"]),
        tags=tuple(t.decode() for t in record["tags"]),
        image=record["image_id"].decode(),
        language=record["language"].decode(),
        source=record["source"].decode(),
        origin=record["origin"].decode(),
      )
    )
    statuses.append(record["image_status"].decode())
    rows.append(row)
  return Split(sentences, statuses, rows, records)

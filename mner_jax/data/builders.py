"""TFDS data sets: the synthetic corpus, and text files + a folder of images.

All are built once, as array_record files and without TensorFlow. A hash of
the source is in the config's name, so a changed source is a new data set.
"""

import contextlib
import dataclasses
import importlib.resources
import io
import itertools
import shutil
import sys

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from mner_jax.config import UserError
from mner_jax.data import dataset, folders, formats, images, schemes
from mner_jax.data.synthetic import corpus, pictures

_SYNTHETIC_SEED = 0


@dataclasses.dataclass(eq=False, kw_only=True)
class SourceConfig(tfds.core.BuilderConfig):
  """Where a data set comes from; its name carries the source's hash."""

  # {split: {language: path}}
  files: dict = dataclasses.field(default_factory=dict)
  images: epath.Path | None = None
  scheme: str = "iob2"
  resize: int = 0
  size: int = 0  # bytes, about


class _SentencesBuilder(
  tfds.core.GeneratorBasedBuilder, skip_registration=True
):
  """Sentences with at most one picture each, in the order of the source."""

  # To be raised with every change of what is written for the same source.
  VERSION = tfds.core.Version("1.1.0")

  def _info(self):
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(types=[]),
      features=tfds.features.FeaturesDict(
        {
          "words": tfds.features.Sequence(text),
          "tags": tfds.features.Sequence(text),
          "language": text,
          "source": text,
          "origin": text,
          "image_id": text,
          # The file that the id leads to; several ids may lead to one.
          "image_name": text,
          # "" (no image), "ok", "missing" or "broken"
          "image_status": text,
          # The file's bytes; a scalar, as an Image feature is never absent.
          "image": tfds.features.Tensor(shape=(), dtype=np.object_),
        }
      ),
    )

  def _example(self, sentence, name, status, image):
    metadata = self.info.metadata
    types = {tag[2:] for tag in sentence.tags if tag != "O"}
    metadata["types"] = sorted(types.union(metadata["types"]))
    return {
      "words": sentence.words,
      "tags": sentence.tags,
      "language": sentence.language,
      "source": sentence.source,
      "origin": sentence.origin,
      "image_id": sentence.image,
      "image_name": name,
      "image_status": status,
      "image": image,
    }


class SyntheticMner(_SentencesBuilder, skip_registration=True):
  """The embedded corpus of `mner_jax.data.synthetic`."""

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split) for split in folders.SPLITS}

  def _generate_examples(self, split):
    for i, example in enumerate(corpus.examples(split, seed=_SYNTHETIC_SEED)):
      data = b""
      if example.scene:
        rng = corpus.picture_rng(_SYNTHETIC_SEED, example.sentence.image)
        buffer = io.BytesIO()
        pictures.draw(example.scene, rng).save(buffer, "PNG")
        data = buffer.getvalue()
      sentence, status = example.sentence, "ok" if data else ""
      yield i, self._example(sentence, sentence.image, status, data)


class TextImageFolder(_SentencesBuilder, skip_registration=True):
  """`train`, `valid` and `test` text files and a folder of images."""

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(files)
      for split, files in self.builder_config.files.items()
    }

  def _generate_examples(self, files):
    source = self.builder_config
    pictures_by_id = folders.image_files(source.images)
    key = 0
    for language, path in files.items():
      before = key
      for sentence in formats.read(path, language, source.scheme):
        picture = self._picture(sentence, pictures_by_id)
        yield key, self._example(sentence, *picture)
        key += 1
        if not sentence.language:
          raise UserError(
            f"{sentence.where(0)}: no language; several are in data.languages,"
            " so each line must say its own"
          )
      if key == before:
        raise UserError(f"{path}: no sentence in it")

  def _picture(self, sentence, pictures_by_id):
    """The picture's name, status and bytes."""
    if not sentence.image or self.builder_config.images is None:
      return "", "", b""
    path = pictures_by_id.get(sentence.image)
    if path is None:
      return "", "missing", b""
    try:
      data = path.read_bytes()
    except OSError as error:
      raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
      data = images.shrink(data, self.builder_config.resize)
    except images.BrokenImageError:
      return path.name, "broken", b""
    return path.name, "ok", data


class Mmnerd(TextImageFolder, skip_registration=True):
  """MMNERD, from its manual folder."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "put train_valid_test_en/ and its siblings from"
    " github.com/wangdsh/MMNERD into it, and the pictures, which its authors"
    " give on request, into its folder images/"
  )


class Twitter2015(TextImageFolder, skip_registration=True):
  """Twitter-2015, from its manual folder."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "put train.txt, valid.txt and test.txt from data/twitter2015 of"
    " github.com/jefferyYu/UMT into it, and the pictures linked there, those"
    " of twitter2015_images, into its folder images/"
  )


class Twitter2017(TextImageFolder, skip_registration=True):
  """Twitter-2017, from its manual folder."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "put train.txt, valid.txt and test.txt from data/twitter2017 of"
    " github.com/jefferyYu/UMT into it, and the pictures linked there, those"
    " of twitter2017_images, into its folder images/"
  )


_NAMED = {
  "mmnerd": Mmnerd,
  "twitter2015": Twitter2015,
  "twitter2017": Twitter2017,
}


def _folder_builder(config, languages):
  builder_class = _NAMED.get(config.path, TextImageFolder)
  folder = epath.Path(config.path).expanduser()
  if config.path in _NAMED:
    # Where TFDS keeps what it cannot download itself.
    root = config.cache_dir or tfds.core.constants.get_default_data_dir()
    folder = epath.Path(root).expanduser() / "downloads/manual" / config.path
    if not folder.is_dir():
      raise UserError(
        f"data.path: {config.path} is read from {folder}, which is no folder:"
        f" {builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS}"
      )
  files = folders.find(folder, languages)
  image_folder, size = None, 0
  chunks = [config.scheme, config.resize, bool(config.images)]
  for split, entries in files.items():
    for language, path in entries.items():
      name = f"{path.parent.name}/{path.name}"  # stands in messages
      chunks += [split, language, name, folders.hash_of_file(path)]
      size += 4 * path.stat().length
  if config.images:
    image_folder = folder / config.images  # an absolute path stands alone
    if not image_folder.is_dir():
      raise UserError(
        f"data.images: {image_folder} is not a folder; name the folder of the"
        " images, or train without any by --config.data.images="
      )
    # Reading every picture would take minutes; a changed one has a new time.
    for path in folders.listing(image_folder):
      stat = path.stat()
      chunks += [path.name, stat.length, stat.mtime]
      size += min(stat.length, 2 * config.resize**2 or stat.length)
  source = SourceConfig(
    name=folders.hash_of(chunks),
    files=files,
    images=image_folder,
    scheme=config.scheme,
    resize=config.resize,
    size=size,
  )
  return builder_class, source


def _synthetic_builder():
  package = importlib.resources.files("mner_jax.data.synthetic")
  sources = {
    path.name: path.read_bytes()
    for path in package.iterdir()
    if path.name.endswith((".py", ".json"))
  }
  del sources["__main__.py"]  # it only prints and writes what is drawn
  chunks = [_SYNTHETIC_SEED, *(sources[name] for name in sorted(sources))]
  return SyntheticMner, SourceConfig(name=folders.hash_of(chunks))


def load(config, splits=tuple(folders.SPLITS), languages=None):
  """Splits of a data set, built on first use.

  Args:
    config: a DataConfig, where the data is.
    splits: names out of "train", "valid" and "test".
    languages: whose sentences; each must have a file for each split. None =
      all of `config`.

  Returns:
    {name: dataset.Split}.
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
  drawn = config.path == "synthetic"  # from no files
  for split, language in itertools.product(splits, languages):
    if not drawn and not {language, ""} & set(source.files.get(split, ())):
      raise UserError(
        f"data.path: {config.path} has no {split}.txt for {language!r}"
      )
  _build(builder)
  names = schemes.label_map(config.label_map)
  if unknown := sorted(names.keys() - set(builder.info.metadata["types"])):
    raise UserError(
      f"data.label_map: no tag is of the type {unknown[0]!r}, only of"
      f" {', '.join(builder.info.metadata['types'])}"
    )
  found = {
    name: dataset.read(builder, name, languages, names) for name in splits
  }
  if config.strict:
    dataset.refuse_images(found.values())
  if config.orphans == "error" and "train" in found:
    dataset.refuse_orphans(found["train"])
  return found


def _check_disk(builder):
  place = builder.data_dir_root
  if "://" in str(place):  # no disk
    return
  while not place.exists():
    place = place.parent
  # What is written first is copied into its final form.
  free, needed = shutil.disk_usage(place).free, 2 * builder.builder_config.size
  if free < needed:
    raise UserError(
      f"data.cache_dir: {place} has {free / 1e9:.1f} GB free, building the data"
      f" set takes up to {needed / 1e9:.1f} GB; name a folder on another disk"
    )


def _build(builder):
  if builder.is_prepared():
    return
  _check_disk(builder)
  print(f"building the data set in {builder.data_dir}", file=sys.stderr)
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  try:
    # TFDS prints where it writes; standard output is for results.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
  except OSError as error:
    if builder.is_prepared():
      return  # another process was faster
    raise UserError(
      f"data.cache_dir: cannot build the data set in {builder.data_dir}:"
      f" {error}"
    ) from None

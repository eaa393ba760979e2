"""TFDS data sets: the synthetic corpus, and text files + a folder of images.

Each is built once, as array_record files and without TensorFlow. A hash of
the source is in the config's name, so a changed source is a new data set.
"""

import contextlib
import io
import itertools
import pathlib
import sys

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from mner_jax.config import UserError
from mner_jax.data import dataset, folders, formats, schemes
from mner_jax.data.files import hash_file, hash_of
from mner_jax.data.synthetic import corpus, pictures

# Data sets with a name, and where their authors publish the text files.
_NAMED = {
  "mmnerd": "train_valid_test_en/ and its siblings in github.com/wangdsh/MMNERD",
  "twitter2015": "data/twitter2015/ in github.com/jefferyYu/UMT",
  "twitter2017": "data/twitter2017/ in github.com/jefferyYu/UMT",
}


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Sentences with at most one picture each, in the order of the source.

  Attributes:
    files: {split: {language: anything}}; the language "" = each sentence has
      its own.
    examples: function of a split that yields (Sentence, name of its picture's
      file, status of the picture, bytes of the picture).
  """

  # Raise it with every change of what is written for the same source.
  VERSION = tfds.core.Version("1.1.0")

  def __init__(self, name, content, cache_dir, files, examples):
    self.name, self.files, self.examples = name, files, examples
    super().__init__(
      config=tfds.core.BuilderConfig(name=hash_of(content)),
      data_dir=cache_dir or None,
      file_format="array_record",
    )

  def _info(self):
    text = tfds.features.Text()
    features = dict.fromkeys(("words", "tags"), tfds.features.Sequence(text))
    features |= dict.fromkeys(dataset.TEXTS, text)
    # The file's bytes; a scalar, as an Image feature is never absent.
    features["image"] = tfds.features.Tensor(shape=(), dtype=np.object_)
    return tfds.core.DatasetInfo(
      builder=self,
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(types=[]),
      features=tfds.features.FeaturesDict(features),
    )

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split) for split in self.files}

  def _generate_examples(self, split):
    metadata = self.info.metadata
    for key, (sentence, name, status, data) in enumerate(self.examples(split)):
      types = {tag[2:] for tag in sentence.tags if tag != "O"}
      metadata["types"] = sorted(types.union(metadata["types"]))
      image = {"image_id": sentence.image, "image_name": name}
      image |= {"image_status": status, "image": data}
      yield key, vars(sentence) | image


def _synthetic_builder(cache_dir):
  """The builder of the embedded corpus of `mner_jax.data.synthetic`."""
  folder = pathlib.Path(corpus.__file__).parent
  files = sorted([*folder.glob("*.py"), *folder.glob("*.json")])
  return _Builder(
    "synthetic_mner",
    [path.read_bytes() for path in files],
    cache_dir,
    dict.fromkeys(folders.SPLITS, corpus.LANGUAGES),
    synthetic_examples,
  )


def synthetic_examples(split):
  """Yields the examples of the synthetic corpus, see `_Builder.examples`."""
  for sentence, scene in corpus.examples(split):
    buffer = io.BytesIO()
    if scene:
      picture = pictures.draw(scene, corpus.picture_rng(sentence.image))
      picture.save(buffer, "PNG")
    status = "ok" if scene else ""
    yield sentence, sentence.image, status, buffer.getvalue()


def _folder_builder(config, languages):
  """The builder of the text files and images that a DataConfig names."""
  name, folder = "text_image_folder", epath.Path(config.path).expanduser()
  if config.path in _NAMED:
    # Where TFDS keeps what it cannot download itself.
    root = config.cache_dir or tfds.core.constants.get_default_data_dir()
    name = config.path
    folder = epath.Path(root).expanduser() / "downloads/manual" / name
    if not folder.is_dir():
      raise UserError(
        f"data.path: {name} is read from {folder}, which is not a folder; copy"
        f" {_NAMED[name]} to it, and the pictures, which the authors link there"
        " or give on request, into its folder images/"
      )
  files = folders.find(folder, languages)
  content = [config.scheme, config.resize, bool(config.images)]
  for split, by_language in files.items():
    for language, path in by_language.items():
      # Messages name a file by these two parts, so they are written too.
      named = f"{path.parent.name}/{path.name}"
      content += [split, language, named, hash_file(path)]
  paths = None
  if config.images:
    image_folder = folder / config.images  # or an absolute path, as it is
    if not image_folder.is_dir():
      raise UserError(
        f"data.images: {image_folder} is not a folder; name the folder of the"
        " images, or train without any by --config.data.images="
      )
    # Reading every picture would take minutes; a changed one has a new time.
    paths = folders.image_files(image_folder)
    for path in sorted(set(paths.values())):
      stat = path.stat()
      content += [path.name, stat.length, stat.mtime]

  def examples(split):
    for language, path in files[split].items():
      sentence = None
      for sentence in formats.read(path, language, config.scheme):
        if not sentence.language:
          where = sentence.where(0)
          raise UserError(
            f"{where}: no language, but data.languages has several"
          )
        yield sentence, *folders.picture(sentence.image, paths, config.resize)
      if sentence is None:
        raise UserError(f"{path}: no sentence in it")

  return _Builder(name, content, config.cache_dir, files, examples)


def load(config, splits=tuple(folders.SPLITS), languages=None):
  """Loads splits of a data set, which is built on first use.

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
    builder = _synthetic_builder(config.cache_dir)
  else:
    builder = _folder_builder(config, known)
  for split, language in itertools.product(splits, languages):
    if not {language, ""} & set(builder.files.get(split, ())):
      raise UserError(
        f"data.path: {config.path} has no {split} split for {language!r}"
      )
  _build(builder)
  types = schemes.label_map(config.label_map, builder.info.metadata["types"])
  found = {s: dataset.read(builder, s, languages, types) for s in splits}
  if config.strict:
    dataset.refuse_images(found.values())
  if config.orphans == "error" and "train" in found:
    dataset.refuse_orphans(found["train"])
  return found


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
    if not builder.is_prepared():  # by another process, which was faster
      raise UserError(
        f"data.cache_dir: cannot build the data set in {builder.data_dir}:"
        f" {error}"
      ) from None

"""TFDS data sets: the synthetic corpus, and text files + a folder of images.

Each is built once, as array_record files and without TensorFlow. A hash of
the source is in the config's name, so a changed source is a new data set.
"""

import contextlib
import dataclasses
import io
import json
import pathlib
import re
import sys

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from mner_jax.config import UserError
from mner_jax.data import dataset, folders, formats, schemes
from mner_jax.data.files import hash_file, hash_of, length_and_time
from mner_jax.data.synthetic import corpus, pictures

# Data sets with a name, and where their authors publish the text files.
_NAMED = {
  "mmnerd": "train_valid_test_en/ in github.com/wangdsh/MMNERD",
  "twitter2015": "data/twitter2015/ in github.com/jefferyYu/UMT",
  "twitter2017": "data/twitter2017/ in github.com/jefferyYu/UMT",
}


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Sentences with at most one picture each, in the order of the source.

  Attributes:
    files: {split: {language: anything}}; the language "" = each sentence has
      its own.
    examples: function of a split and a list of notes, to which it adds, that
      yields (Sentence, name of its picture's file, status of the picture, bytes
      of the picture).
  """

  # Raise it with every change of what is written for the same source.
  VERSION = tfds.core.Version("2.2.0")

  def __init__(self, name, content, cache_dir, files, examples):
    self.name, self.files, self.examples = name, files, examples
    key = hash_of(content)
    root = cache_dir or tfds.core.constants.get_default_data_dir()
    with dataset.damaged(epath.Path(root).expanduser() / name / key):
      super().__init__(
        config=tfds.core.BuilderConfig(name=key),
        data_dir=cache_dir or None,
        file_format="array_record",
      )

  def _info(self):
    # A file's bytes; a scalar, as an Image feature is never absent.
    image = tfds.features.Tensor(shape=(), dtype=np.object_)
    features = {"text": tfds.features.Text(), "image": image}
    return tfds.core.DatasetInfo(
      builder=self,
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(types=[], notes={}),
      features=tfds.features.FeaturesDict(features),
    )

  def _split_generators(self, dl_manager):
    generators = {}
    for split in self.files:
      texts = []  # left by the pictures, which come first
      generators[f"{split}_pictures"] = self._generate_examples(split, texts)
      generators[split] = _all_text(texts)
    return generators

  def _generate_examples(self, split, texts):
    """Yields each picture of a split once; adds its sentences to `texts`."""
    metadata, places = self.info.metadata, {}
    yield 0, {"text": "", "image": b""}  # a TFDS split may not be empty
    notes = metadata["notes"][split] = []
    for sentence, name, status, data in self.examples(split, notes):
      types = {tag[2:] for tag in sentence.tags if tag != "O"}
      metadata["types"] = sorted(types.union(metadata["types"]))
      if status == "ok" and name not in places:
        places[name] = len(places) + 1
        yield places[name], {"text": "", "image": data}
      row = dict(vars(sentence))
      texts.append((row, name, status, places.get(name, 0)))
    fill_sources([row for row, *_ in texts])


def fill_sources(sentences):
  """Names MMNERD's sources, "tweet" and "caption", by its image ids.

  Ids of other data may look like its O_12: they count beside a clear one only.

  Args:
    sentences: dicts of the fields of all of a split's, changed in place.
  """
  forms = {"caption": r"\d{8}---.+", "tweet": r"1[67](_\d\d){1,2}_\d+(\.jpg)?"}
  found = {}
  for source, form in forms.items():
    ids = {s["image"] for s in sentences if re.fullmatch(form, s["image"])}
    found |= dict.fromkeys(ids, source)
  for s in sentences:
    unclear = found and re.fullmatch(r"O_\d+(\.jpg)?", s["image"])
    name = "tweet" if unclear else found.get(s["image"], "")
    s["source"] = s["source"] or name


def _all_text(texts):
  """Yields the one record of a split's sentences: see `dataset.read`.

  TFDS takes seconds to decode as many records as there are sentences.
  """
  yield 0, {"text": json.dumps(texts), "image": b""}


def _synthetic_builder(cache_dir):
  """The builder of the embedded corpus of `mner_jax.data.synthetic`."""
  folder = pathlib.Path(corpus.__file__).parent
  files = sorted([*folder.glob("*.py"), *folder.glob("*.json")])
  return _Builder(
    "synthetic_mner",
    [path.read_bytes() for path in files],
    cache_dir,
    dict.fromkeys(folders.SPLITS, corpus.LANGUAGES),
    _synthetic_examples,
  )


def _synthetic_examples(split, notes):
  """Yields the examples of the synthetic corpus, see `_Builder.examples`."""
  for sentence, scene in corpus.examples(split):
    buffer = io.BytesIO()
    if scene:
      picture = pictures.draw(scene, corpus.picture_rng(sentence.image))
      picture.save(buffer, "PNG")
    status = "ok" if scene else ""
    yield sentence, sentence.image, status, buffer.getvalue()


def place(config):
  """Returns (name, folder) of the data set that a DataConfig names."""
  if config.path not in _NAMED:
    return "text_image_folder", epath.Path(config.path).expanduser()
  # Where TFDS keeps what it cannot download itself.
  root = config.cache_dir or tfds.core.constants.get_default_data_dir()
  folder = epath.Path(root).expanduser() / "downloads/manual" / config.path
  if not folder.is_dir():
    raise UserError(
      f"data.path: {config.path} is read from {folder}, which is not a folder;"
      f" copy {_NAMED[config.path]} to it, and the pictures, which the authors"
      " link there or give on request, into its folder images/"
    )
  return config.path, folder


def _folder_builder(config, name, folder, languages):
  """The builder of a folder's text files and its images."""
  files = folders.find(folder, languages)
  content = [config.scheme, config.tag_column]
  content += [config.resize, bool(config.images)]
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
      content += [path.name, *length_and_time(path)]

  def examples(split, notes):
    for language, path in files[split].items():
      options = (language, config.scheme, config.tag_column, notes)
      for sentence in formats.read(path, *options):
        if not sentence.language:
          where = sentence.where(0)
          raise UserError(
            f"{where}: no language, but data.languages has several"
          )
        yield sentence, *folders.picture(sentence.image, paths, config.resize)

  return _Builder(name, content, config.cache_dir, files, examples)


def inputs(config):
  """Returns a Config's `data`, without pictures if no branch sees them."""
  if config.model.multimodal:
    return config.data
  return dataclasses.replace(config.data, images="")


def load(config, splits=tuple(folders.SPLITS)):
  """Loads splits of a data set, which is built on first use.

  Test has the sentences of `eval_languages` where they are given, all else
  those of `languages`; each must have a file for the split.

  Args:
    config: a DataConfig.
    splits: names out of "train", "valid" and "test".

  Returns:
    {name: dataset.Split}.
  """
  known = tuple(dict.fromkeys((*config.languages, *config.eval_languages)))
  wanted = dict.fromkeys(splits, config.languages)
  if "test" in wanted and config.eval_languages:  # those of train first
    wanted["test"] = [x for x in known if x in config.eval_languages]
  if config.path == "synthetic":
    builder, folder = _synthetic_builder(config.cache_dir), None
  else:
    name, folder = place(config)
    # Another order of languages is not another data set.
    builder = _folder_builder(config, name, folder, sorted(known))
  for split, languages in wanted.items():
    for language in languages:
      if not {language, ""} & set(builder.files.get(split, ())):
        raise UserError(
          f"data.path: {config.path} has no {split} split for {language!r}"
          + (f"; {folders.names(folder, known)}" if folder else "")
        )
  _build(builder)
  with dataset.damaged(builder.data_path):
    types = schemes.label_map(config.label_map, builder.info.metadata["types"])
    found = {s: dataset.read(builder, s, x, types) for s, x in wanted.items()}
  if config.strict:
    dataset.refuse_images(found.values())
  if "train" in found:
    dataset.refuse_no_image(found["train"])
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

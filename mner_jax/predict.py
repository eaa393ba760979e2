"""Tags text with a trained model, with or without pictures.

  python -m mner_jax.predict --workdir=DIR --text="Anna naps." --image=a.jpg
  python -m mner_jax.predict --workdir=DIR --input=F --output=F2

F is CoNLL (.txt .conllu .conll .tsv: a word a line, more columns are not
read) or JSONL ({"text": ...} or {"tokens": [...]}, and "image" where there is
one); F2 is JSONL, a line for each sentence, in order. Each may be "-", for
standard input (JSONL, unless --input_format=conll) and output. A picture is
looked up in --images by its name, with or without the suffix; one that is not
there or cannot be shown is counted, and the sentence is tagged without it.

A line of the output, whose `start` and `end` are characters of `text`, ends
exclusive, and whose `score` is the CRF's probability of that very entity:

  {"text", "tokens", "tags", "entities": [{"type", "text", "start", "end",
   "word_start", "word_end", "score"}]}

For displaCy, manual=True: {"text": p["text"], "ents": [{**e, "label":
e["type"]} for e in p["entities"]]}. For seqeval: p["tags"].

From Python:

  tagger = Tagger.load("runs/synthetic")
  tagger(["Anna lebt in Bonn.", ["Anna", "sings"]], images=["a.jpg", None])
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import sys

import jax
from etils import epath
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax import checkpoint, sharding
from mner_jax.cli import launch, read_workdir
from mner_jax.config import MeshConfig, UserError
from mner_jax.data import (
  batches,
  dataset,
  folders,
  formats,
  images,
  wordpiece,
  words,
)
from mner_jax.data.images import BrokenImageError
from mner_jax.evaluation import evaluate as evaluation

_CHUNK = 1024  # sentences in memory


class Tagger:
  """A trained model; call it with sentences. Works on the first device."""

  def __init__(self, config, params, tokenizer):
    self._config, self._params = config, params
    self._tokenizer = tokenizer

  @classmethod
  def load(cls, workdir):
    """The checkpoint of a run that is best on dev; raises UserError."""
    workdir = epath.Path(workdir)
    config = dataclasses.replace(
      read_workdir(workdir), mesh=MeshConfig(1, 1, 1)
    )
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    _, params = checkpoint.restore_best(
      workdir, evaluation.abstract_params(config, mesh)
    )
    return cls(config, params, wordpiece.load(workdir / "tokenizer"))

  def __call__(self, sentences, images=None):
    """Tags sentences; what one of them says does not depend on the others.

    Args:
      sentences: texts, which are split into words, or lists of words. Of
        any length: long ones go through the encoder in windows.
      images: for each sentence the path or the bytes of its picture, or
        None. A model without image encoders does not look at them.

    Returns:
      A dict for each sentence, see the module; of words, `text` is these with
      spaces between them.

    Raises:
      UserError: at a picture that cannot be read.
    """
    sentences = list(sentences)
    images = [None] * len(sentences) if images is None else list(images)
    if len(images) != len(sentences):
      raise UserError(f"{len(sentences)} sentences, but {len(images)} images")
    read = [_text_and_spans(s, i) for i, s in enumerate(sentences)]
    pictures = [None if x is None else self._picture(x) for x in images]
    return self.tag(read, pictures)

  def _picture(self, image):
    path = image
    if not isinstance(image, bytes):
      try:
        image = epath.Path(path).read_bytes()
      except OSError as error:
        raise UserError(
          f"{path}: cannot be read ({error.strerror or error})"
        ) from None
    try:
      return self.prepare(image)
    except BrokenImageError as error:
      name = "a picture" if image is path else path
      raise UserError(f"{name}: not a picture that can be shown ({error})"
                      ) from None  # fmt: skip

  def prepare(self, data):
    """A picture's bytes as training stored them; raises BrokenImageError."""
    return images.shrink(data, self._config.data.resize)

  def tag(self, read, pictures):
    """As a call, of [(text, [(start, end)] of its words)] and bytes or None."""
    results = [
      {"text": text, "tokens": [text[a:b] for a, b in spans], "tags": [],
       "entities": []}
      for text, spans in read
    ]  # fmt: skip
    kept = [i for i, result in enumerate(results) if result["tokens"]]
    if not kept:
      return results
    examples = self._examples([results[i]["tokens"] for i in kept],
                              [pictures[i] for i in kept])  # fmt: skip
    mesh = sharding.make_mesh(self._config.mesh, jax.devices()[:1])
    evaluator = evaluation.Evaluator(examples.config, mesh)
    emissions = evaluator.emissions(self._params, examples)
    decoded = evaluator.decode(self._params, emissions, marginals=True)
    for i, (tags, scores) in zip(kept, decoded, strict=True):
      results[i]["tags"] = tags
      results[i]["entities"] = _entities(*read[i], tags, scores)
    return results

  def _examples(self, sentences, pictures):
    split = dataset.Split(
      sentences=[
        formats.Sentence(tuple(s), ("O",) * len(s)) for s in sentences
      ],
      image_status=["ok" if data else "" for data in pictures],
      image_names=[""] * len(sentences),
      rows=range(len(sentences)),
      records=[{"image": data} for data in pictures],
    )
    # One sentence shall not cost as much as a whole batch.
    rows = min(
      self._config.train.batch_size, 1 << (len(sentences) - 1).bit_length()
    )
    config = dataclasses.replace(
      self._config,
      train=dataclasses.replace(self._config.train, batch_size=rows),
    )
    return batches.Examples(split, self._tokenizer, config)


def _text_and_spans(sentence, index):
  """(text, [(start, end)] of its words) of a text or a list of words."""
  if isinstance(sentence, str):
    return sentence, words.split(sentence)
  spans, start = [], 0
  for word in sentence:
    if not isinstance(word, str) or not word:
      raise UserError(f"sentence {index}: {word!r:.40} is not a word")
    spans.append((start, start + len(word)))
    start += len(word) + 1
  return " ".join(sentence), spans


def _entities(text, spans, tags, scores):
  entities = []
  for kind, first, last in get_entities(tags):
    start, end = spans[first][0], spans[last][1]
    entities.append(
      {
        "type": kind, "text": text[start:end], "start": start, "end": end,
        "word_start": first, "word_end": last + 1,
        "score": round(float(scores[last]), 6),
      }
    )  # fmt: skip
  return entities


def _read(path, form):
  """(text, spans, image name or "") of each sentence of a file."""
  if form == "conll":
    for sentence in formats.read_conll(path, scheme=None):
      yield *_text_and_spans(sentence.words, 0), sentence.image
    return
  for number, record in formats.records(path):
    where = f"{path}:{number}"
    if "tokens" in record:
      sentence = formats.field(record, "tokens", list, where)
      formats.check_words(sentence, where)
    elif "text" in record:
      sentence = formats.field(record, "text", str, where)
    else:
      raise UserError(f"{where}: neither 'text' nor 'tokens' in it")
    image = ""
    if record.get("image") is not None:
      image = formats.field(record, "image", str, where)
    yield *_text_and_spans(sentence, number), image


class _Pictures:
  """The pictures of a folder by name; counts those it does not have."""

  def __init__(self, tagger, folder):
    self._prepare = tagger.prepare
    self._paths = folders.image_files(folder)
    self.counts = collections.Counter()

  def __call__(self, name):
    """The bytes, or None."""
    if not name:
      return None
    try:
      return self._prepare(self._paths[name].read_bytes())
    except KeyError:
      self.counts["missing"] += 1
    except (OSError, BrokenImageError):
      self.counts["broken"] += 1
    return None


def _predict_file(tagger, args):
  """Writes a line for each sentence; says on stderr what was not usable."""
  path, form = args.input, args.input_format
  if not form:
    suffix = ".jsonl" if path == "-" else epath.Path(path).suffix
    if suffix not in formats.SUFFIXES:
      raise UserError(
        f"--input: {path}: the suffix is none of {' '.join(formats.SUFFIXES)};"
        " say --input_format"
      )
    form = "jsonl" if suffix == ".jsonl" else "conll"
  folder = args.images
  if folder is None and path != "-":
    folder = epath.Path(path).parent / "images"
    folder = folder if folder.is_dir() else None
  elif folder is not None and not epath.Path(folder).is_dir():
    raise UserError(f"--images: {folder} is not a folder")
  pictures = _Pictures(tagger, folder and epath.Path(folder))
  counts = collections.Counter()
  sentences = _read(path, form)
  with _output(args.output) as write:
    while chunk := list(itertools.islice(sentences, _CHUNK)):
      read = [(text, spans) for text, spans, _ in chunk]
      for result in tagger.tag(read, [pictures(name) for *_, name in chunk]):
        write(result)
        counts["sentences"] += 1
        counts["without a word"] += not result["tokens"]
  counts |= {f"images {k}": n for k, n in pictures.counts.items()}
  said = [f"{n} {name}" for name, n in counts.items() if n]
  print(", ".join(said) or "no sentence", file=sys.stderr)


def _target(path):
  """The file that a link names: it is written anew, not the link."""
  return epath.Path(path if "://" in path else os.path.realpath(path))


def _check_output(path, source):
  if path == "-":
    return
  # A device such as /dev/null would become a file.
  if not path or (os.path.exists(path) and not os.path.isfile(path)):
    raise UserError(
      f"--output: {path or repr(path)} is no file to write; - is standard"
      " output"
    )
  if source not in (None, "-") and _target(source) == _target(path):
    raise UserError(f"--output: {path} is the --input; name another file")


@contextlib.contextmanager
def _output(path):
  """A function that writes a prediction; a file is there once all are."""
  if path == "-":

    def write(result):
      sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
      sys.stdout.flush()

    yield write
    return
  path = _target(path)
  temporary = path.with_name(path.name + ".tmp")
  try:
    with temporary.open("w") as file:
      yield lambda result: file.write(
        json.dumps(result, ensure_ascii=False) + "\n"
      )
    temporary.replace(path)
  except OSError as error:
    raise UserError(
      f"--output: {path}: cannot be written ({error.strerror or error})"
    ) from None
  finally:
    temporary.unlink(missing_ok=True)


def arguments(parser):
  """Defines the command's flags."""
  add = parser.add_argument
  add("--workdir", required=True, help="folder of a train.py run")
  add("--text", help="a sentence")
  add("--image", metavar="FILE", help="the sentence's picture")
  add("--input", metavar="FILE", help="CoNLL or JSONL; - is a JSONL pipe")
  add(
    "--input_format",
    choices=("conll", "jsonl"),
    help="of --input (default: by its suffix)",
  )
  add("--images", metavar="DIR", help="pictures (default: images/ beside FILE)")
  add(
    "--output", metavar="FILE", default="-", help="JSONL (default: -, stdout)"
  )


def main(args):
  """Tags --text, or the sentences of --input."""
  if (args.text is None) == (args.input is None):
    raise UserError("give one of --text and --input")
  if args.text is None and args.image:
    raise UserError("--image is the picture of --text; of --input: --images")
  if args.text is not None and not words.split(args.text):
    raise UserError("--text: no word in it")
  _check_output(args.output, args.input)
  tagger = Tagger.load(args.workdir)
  if args.input is not None:
    _predict_file(tagger, args)
    return
  (result,) = tagger([args.text], [args.image])
  with _output(args.output) as write:
    write(result)


if __name__ == "__main__":
  launch(main, arguments, __doc__)

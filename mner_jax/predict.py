"""Tags text with a trained model, with or without pictures.

  python -m mner_jax.predict --workdir=DIR --text="Anna naps." --image=a.jpg
  python -m mner_jax.predict --workdir=DIR --input=F --output=F2
  python -m mner_jax.predict --workdir=DIR --save=DIR2

DIR is the folder of a run; or DIR2, which --save writes: all that a tagger
needs, without the run's data, logs and paths; or the Hub name of such a folder.

F is CoNLL (.txt .conllu .conll .tsv: a word a line, columns behind a tab are
ignored) or JSONL ({"text": ...} or {"tokens": [...]}, and optionally "image").
F2 is JSONL, a line per sentence, in order. Each may be "-", for standard input
(JSONL, unless --input_format=conll) and output. A picture is looked up in
--images by its name, with or without the suffix; one that is missing or broken
is counted, and the sentence is tagged without it.

A line of the output, where `start` and `end` are characters of `text`, ends
exclusive, and `score` is the CRF's probability of exactly that entity:

  {"text", "tokens", "tags", "entities": [{"type", "text", "start", "end",
   "word_start", "word_end", "score"}]}

--html=F3 also writes the sentences as one page, which needs no network: their
entities, pictures, and where in its picture each word looks.

For displaCy, manual=True: {"text": p["text"], "ents": [{**e, "label":
e["type"]} for e in p["entities"]]}. For seqeval: p["tags"].

From Python:

  tagger = Tagger.load("runs/synthetic")
  tagger(["Anna lebt in Bonn.", ["Anna", "sings"]], images=["a.jpg", None])
"""

import contextlib
import itertools
import json
import os
import sys

from etils import epath
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax import cli
from mner_jax.config import UserError
from mner_jax.data import batches, dataset, folders, formats, words
from mner_jax.data.images import BrokenImageError, shrink
from mner_jax.evaluation import decoding, evaluate, model_folder, report

_CHUNK = 256  # sentences in memory, with their pictures


class Tagger:
  """A trained model; call it with sentences. Runs on the first device."""

  def __init__(self, config, params, tokenizer):
    self.config = config
    self._params, self._tokenizer = params, tokenizer

  @classmethod
  def load(cls, name):
    """The model of a run's folder, of one by --save, or of a Hub name.

    Of a run, the checkpoint that is best on dev. Raises a UserError if it is
    none of these, damaged or edited.
    """
    return cls(*model_folder.load(name))

  def __call__(self, sentences, images=None):
    """Tags sentences, each independently of the others.

    Args:
      sentences: texts, which are split into words, or lists of words. Of
        any length: long ones go through the encoder in windows.
      images: for each sentence the path or the bytes of its picture, or
        None. A model without image encoders reads them, and ignores them.

    Returns:
      A dict for each sentence, see the module; for a list of words, `text`
      joins them with spaces.

    Raises:
      UserError: not a word, or not a picture that can be shown.
      OSError: a picture's file cannot be read.
    """
    if isinstance(sentences, str):
      raise UserError("sentences must be a list, also for one sentence")
    sentences = list(sentences)
    images = [None] * len(sentences) if images is None else list(images)
    if len(images) != len(sentences):
      raise UserError(f"{len(sentences)} sentences, but {len(images)} images")
    pictures = []
    for image in images:
      try:
        pictures.append(None if image is None else self.prepare(image))
      except BrokenImageError as error:
        name = "a picture" if isinstance(image, bytes) else image
        raise UserError(
          f"{name}: not a picture that can be shown ({error})"
        ) from None
    return self.tag(sentences, pictures)

  def prepare(self, image):
    """The bytes of a picture, given as path or bytes, as training stored them.

    Raises OSError and BrokenImageError.
    """
    if not isinstance(image, bytes):
      image = epath.Path(image).read_bytes()
    return shrink(image, self.config.data.resize)

  def tag(self, sentences, pictures):
    """Like a call, with pictures from `prepare`; None or b"" = none."""
    texts = [_text_and_spans(sentence) for sentence in sentences]
    results = []
    for text, spans in texts:
      tokens = [text[start:end] for start, end in spans]
      empty = {"tags": [], "entities": []}
      results.append({"text": text, "tokens": tokens, **empty})
    kept = [i for i, result in enumerate(results) if result["tokens"]]
    if not kept:
      return results
    tokens = [results[i]["tokens"] for i in kept]
    examples = self._examples(tokens, [pictures[i] for i in kept])
    evaluator = self._evaluator(len(tokens))
    emissions = evaluator.emissions(self._params, examples)
    decoded = decoding.decode(
      self._params, emissions, self.config.tags, marginals=True
    )
    for i, (tags, scores) in zip(kept, decoded, strict=True):
      entities = _entities(*texts[i], tags, scores)
      results[i] |= {"tags": tags, "entities": entities}
    return results

  def page(self, tagged, count):
    """The data of a page for `report.render`, but its name.

    Args:
      tagged: [(result of `tag`, its picture, fields of `collect_tagged`)];
        each has a word.
      count: of all sentences with a word.
    """
    tokens = [result["tokens"] for result, *_ in tagged]
    examples = self._examples(tokens, [picture for _, picture, _ in tagged])
    fields = [_marked(result) | more for result, _, more in tagged]
    model = self._evaluator(len(tagged)), self._params
    return report.collect_tagged(*model, examples, fields, count)

  def _evaluator(self, count):
    # Avoid padding a single sentence to a full batch.
    rows = 1 << (count - 1).bit_length()
    rows = min(self.config.train.batch_size, rows)
    mesh = model_folder.mesh(self.config)
    return evaluate.Evaluator(self.config, mesh, rows)

  def _examples(self, tokens, pictures):
    split = dataset.Split(
      sentences=[formats.Sentence(tuple(t), ("O",) * len(t)) for t in tokens],
      image_status=["ok" if picture else "" for picture in pictures],
      image_names=[""] * len(tokens),
      rows=range(len(tokens)),
      records=[{"image": picture} for picture in pictures],
    )
    return batches.Examples(split, self._tokenizer, self.config)


def _text_and_spans(sentence):
  """(text, [(start, end)] of its words) of a text or a list of words."""
  if isinstance(sentence, str):
    return sentence, words.split(sentence)
  spans, start = [], 0
  for word in sentence:
    if not isinstance(word, str) or not word:
      raise UserError(f"{word!r:.40} is not a word")
    spans.append((start, start + len(word)))
    start += len(word) + 1
  return " ".join(sentence), spans


def _entities(text, spans, tags, scores):
  found = []
  for kind, first, last in get_entities(tags):
    start, end = spans[first][0], spans[last][1]
    entity = {"type": kind, "text": text[start:end], "start": start, "end": end}
    entity |= {"word_start": first, "word_end": last + 1}
    found.append(entity | {"score": round(float(scores[last]), 6)})
  return found


def _marked(result):
  """A page's entities of a result, see `errors.align`, and its spaces."""
  spaces, end = [], 0
  for token in result["tokens"]:
    start = result["text"].index(token, end)
    spaces.append(int(start > end))  # before the word
    end = start + len(token)
  # No gold: one type, and the score in place of what is wrong.
  entities = [
    (e["word_start"], e["word_end"], e["type"], "", f"{e['score']:.2f}")
    for e in result["entities"]
  ]
  return {"entities": entities, "spaces": spaces, "tags": result["tags"]}


def _read(path, form):
  """Yields (text or list of words, image name or "") of a file's sentences."""
  suffix = ".jsonl" if path == "-" else epath.Path(path).suffix
  suffix = f".{form}" if form else suffix
  if suffix not in formats.SUFFIXES:
    raise UserError(
      f"--input: {path}: the suffix is none of {' '.join(formats.SUFFIXES)};"
      " give --input_format"
    )
  if suffix != ".jsonl":
    notes = []
    for sentence in formats.read_conll(path, scheme=None, notes=notes):
      yield sentence.words, sentence.image
    for note in notes:
      print(note, file=sys.stderr)
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
    yield sentence, formats.field(record, "image", str, where, "")


def _tag_file(tagger, args):
  """Yields (result, picture, its status) of --input; counts go to stderr."""
  folder = epath.Path(args.images) if args.images else None
  if not folder and args.input != "-":
    folder = epath.Path(args.input).parent / "images"
    folder = folder if folder.is_dir() else None
  config, paths = tagger.config, folders.image_files(folder)
  paths = paths if config.model.multimodal else None  # no encoder sees them
  names = "sentences", "without a word", "images missing", "images broken"
  counts = dict.fromkeys(names, 0)

  def picture(image):
    try:
      return folders.picture(image, paths, config.data.resize)
    except OSError:  # of one file; the sentences before are not to be lost
      return image, "broken", b""

  sentences = _read(args.input, args.input_format)
  while chunk := list(itertools.islice(sentences, _CHUNK)):
    texts, images = zip(*chunk, strict=True)
    seen = [picture(image) for image in images]
    results = tagger.tag(texts, [data for *_, data in seen])
    for result, (_, status, data) in zip(results, seen, strict=True):
      counts["sentences"] += 1
      counts["without a word"] += not result["tokens"]
      if status in ("missing", "broken"):
        counts[f"images {status}"] += 1
      yield result, data, status
  found = [f"{n} {name}" for name, n in counts.items() if n]
  print(", ".join(found) or "no sentence", file=sys.stderr)


def _absolute(path):
  """The file that a path or a link leads to."""
  return epath.Path(path if "://" in path else os.path.realpath(path))


@contextlib.contextmanager
def _output(path, source):
  """The file to write; it appears under its name once it is complete."""
  if path == "-":
    yield sys.stdout
    return
  path = _absolute(path)  # a link stays a link
  temporary = path.with_name(path.name + ".tmp")
  if source and _absolute(source) in (path, temporary):
    raise UserError(f"{path} is the --input; name another file to write")
  try:
    with temporary.open("w") as file:
      yield file
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def _place(text):
  """The type of --output: standard output, too."""
  return text if text == "-" else cli.output(text)


def arguments(parser):
  """Defines the command's flags."""
  add = parser.add_argument
  add("--workdir", required=True, help="a run, a saved model, or a Hub name")
  either = parser.add_mutually_exclusive_group(required=True).add_argument
  either("--text", help="a sentence")
  either("--input", metavar="FILE", help="CoNLL or JSONL; - is a JSONL pipe")
  save_help = "write the model, and nothing else of its run, to a new folder"
  either("--save", metavar="DIR", help=save_help)
  add("--image", metavar="FILE", help="the picture of --text")
  formats_help = "of --input (default: by its suffix)"
  add("--input_format", choices=("conll", "jsonl"), help=formats_help)
  add("--images", metavar="DIR", help="pictures (default: images/ beside FILE)")
  output = {"type": cli.output, "metavar": "FILE"}
  output_help = "JSONL (default: -, standard output)"
  add("--output", **output | {"type": _place}, default="-", help=output_help)
  add("--html", **output, help="also a page to look at")


def main(args):
  """Tags --text, or the sentences of --input; or saves the model."""
  if args.image and args.text is None:
    raise UserError("--image is the picture of --text; of --input: --images")
  if args.input is None and (args.images or args.input_format):
    raise UserError("--images and --input_format belong to --input")
  if args.text is not None and not words.split(args.text):
    raise UserError("--text: no word in it")
  if args.html and _absolute(args.html) == _absolute(args.output):
    raise UserError("--html and --output are one file; name another")
  if args.save is not None:
    if args.html or args.output != "-":
      raise UserError("--save tags nothing: leave out --html and --output")
    model_folder.save(args.workdir, args.save)
    return
  shown, count = [], 0
  with (
    _output(args.output, args.input) as file,
    _output(args.html or "-", args.input) as page,
  ):
    tagger = Tagger.load(args.workdir)
    if args.input is None:
      results = tagger([args.text], [args.image])
      seen = (tagger.prepare(args.image), "ok") if args.image else (None, "")
      tagged = [(*results, *seen)]
    else:
      tagged = _tag_file(tagger, args)
    for number, (result, picture, status) in enumerate(tagged, 1):
      print(json.dumps(result, ensure_ascii=False), file=file, flush=True)
      count += bool(result["tokens"])
      if args.html and result["tokens"] and count <= report.MAX_SENTENCES:
        shown.append((result, picture, {"number": number, "image": status}))
    if args.html:
      name = os.path.basename(os.path.abspath(args.workdir))
      page.write(report.render(tagger.page(shown, count) | {"name": name}))


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__)

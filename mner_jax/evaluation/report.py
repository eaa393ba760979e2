"""report.html: one file to look at a run and at what it gets wrong.

An evaluation becomes one JSON object, and that is put into `report.html`
beside this module, whose script builds the page from it. The file opens
without a network; nothing in it but that script can run.
"""

import base64
import collections
import dataclasses
import hashlib
import importlib.resources
import io
import json
import math
import re

import jax
import numpy as np
from etils import epath
from PIL import Image

from mner_jax import files
from mner_jax.data import batches, wordpiece
from mner_jax.evaluation import errors
from mner_jax.evaluation import evaluate as evaluation
from mner_jax.evaluation import significance as statistics
from mner_jax.training import log as progress

# What a report holds at most; a page of 20 MB still opens on a phone.
MAX_SENTENCES = 1000
MAX_BYTES = 18_000_000
_PICTURE_SIDE = 224  # pixels
_PICTURE_BYTES = 9000  # so that 1,000 of them and their weights fit
_CURVE_POINTS = 200


def _score_groups(scores, sentences, predicted):
  """[{"name", "rows"}]: the scores of `<split>_metrics.json` and intervals."""
  gold = [s.tags for s in sentences]

  def row(name, values, counts):
    interval = statistics.bootstrap(counts[None])  # one seed
    return {**values, "name": name, "interval": interval}

  def of_type(tags, name):
    return [[t if t[2:] == name else "O" for t in ts] for ts in tags]

  everything = statistics.sentence_counts(gold, predicted)
  total = {
    name: scores[name] for name in ("f1", "precision", "recall", "f1_strict")
  }
  total["support"] = scores["counts"]["entities"]
  groups = [{"name": "", "rows": [row("all", total, everything)]}]
  members = {
    "language": [s.language for s in sentences],
    "source": [s.source or "other" for s in sentences],
  }
  for group in ("language", "type", "source"):
    rows = []
    for name, values in scores[f"per_{group}"].items():
      if group == "type":
        sides = (of_type(tags, name) for tags in (gold, predicted))
        counts = statistics.sentence_counts(*sides)
      else:
        counts = everything[[m == name for m in members[group]]]
      rows.append(row(name, values, counts))
    if len(rows) > 1:
      groups.append({"name": group, "rows": rows})
  return groups


def _curves(workdir):
  """{metric: [[step, value], ...]} of metrics.jsonl, losses thinned."""
  curves = collections.defaultdict(list)
  for values in progress.read(epath.Path(workdir) / "metrics.jsonl"):
    for name in values.keys() - {"step", "grad_norm", "skipped", "loss"}:
      if math.isfinite(values[name]):
        curves[name].append((values["step"], values[name]))
  thinned = {}
  for name, points in sorted(curves.items()):
    parts = points
    if not name.endswith("_f1"):
      parts = np.array_split(points, min(len(points), _CURVE_POINTS))
      parts = [np.mean(part, axis=0) for part in parts]
    thinned[name] = [[round(s), float(f"{v:.5g}")] for s, v in parts]
  return thinned


def _run(config, params, scores):
  """[(what, value)] of the model and its training."""
  model = config.model
  encoders = {model.text.encoder: model.text}
  encoders |= {"ViT": model.vit} if model.vit.enabled else {}
  encoders |= {"ResNet": model.resnet} if model.resnet.enabled else {}
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
  rows = [
    (f"{name} encoder", e.weights or "from scratch")
    for name, e in encoders.items()
  ]
  if model.multimodal:
    released = ", as released" if model.released else ""
    rows.append(("fusion", model.fusion + released))
    rows.append(("contrastive loss", config.loss.contrastive))
  rows.append(("decoder", model.decoder))
  return [
    *rows,
    ("parameters", f"{count:,}"),
    ("trained on", f"{config.data.path}: {', '.join(config.data.languages)}"),
    ("epochs", f"{config.train.epochs}"),
    ("batch size", f"{config.train.batch_size}"),
    ("learning rate", f"{config.optim.learning_rate:g}"),
    ("seed", f"{config.seed}"),
    ("checkpoint", f"step {scores['checkpoint_step']:,}, best on dev"),
  ]


def _data(split, counts):
  """[(what, value)] of the split that is scored."""

  def tally(values):
    found = collections.Counter(values)
    return ", ".join(f"{k} {n:,}" for k, n in sorted(found.items()))

  sentences = split.sentences
  rows = [
    ("by language", tally(s.language for s in sentences)),
    ("by source", tally(s.source or "other" for s in sentences)),
    ("words", f"{sum(len(s.words) for s in sentences):,}"),
    ("pictures", f"{split.image_status.count('ok'):,}"),
  ]
  known = {"sentences": "sentences", "entities": "entities (gold)"}
  first = [(known[k], f"{counts[k]:,}") for k in known]
  rest = [
    (k.replace("_", " "), f"{n:,}") for k, n in counts.items() if k not in known
  ]
  return [*first, *rows, *rest]


def _choose(aligned, seed=0):
  """Sentences to show, the most telling first: with errors, then without."""
  wrong = np.array([any(e[4] != "correct" for e in s) for s in aligned], bool)
  # Files are sorted by language; a part of them must not be.
  order = np.random.default_rng(seed).permutation(len(aligned))
  order = np.concatenate([order[wrong[order]], order[~wrong[order]]])
  return order[:MAX_SENTENCES].tolist(), wrong


def _part(split, ids):
  """These sentences of a Split."""
  fields = ("sentences", "image_status", "image_names", "rows")
  return dataclasses.replace(
    split, **{f: [getattr(split, f)[i] for i in ids] for f in fields}
  )


def _base64(array):
  return base64.b64encode(array.astype(np.uint8).tobytes()).decode()


def encode_attention(weights):
  """[words, P] of sum 1 a word -> bytes in base64.

  "patches" counts in 255ths of "peak", the sentence's largest weight of a
  patch; "class", the class token's share, in 255ths of 1.
  """
  patches = weights[:, 1:]  # [words, P - 1]
  peak = max(float(patches.max()), 1e-9)
  return {
    "peak": float(f"{peak:.4g}"),
    "patches": _base64(np.rint(255 * patches / peak)),
    "class": _base64(np.rint(255 * weights[:, 0])),
  }


def _picture(pixels):
  """[S, S, 3] uint8 -> a data URI."""
  image = Image.fromarray(pixels)
  image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
  for quality in (80, 60, 40, 20):
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    if buffer.tell() <= _PICTURE_BYTES:
      break
  return (
    "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
  )


def _pixels(examples):
  """(image id, pixels) of each sentence as the model saw them, or None."""
  model = examples.config.model
  name = "pixels" if model.vit.enabled else "scene_pixels"
  done = -1
  for i, window in enumerate(examples.windows):
    if window.sentence == done:
      continue
    done = window.sentence
    rows = examples.rows(examples.config.data.buckets[-1], [i])
    if model.multimodal and rows["has_image"][0]:
      yield int(rows["image_id"][0]), rows[name][0]
    else:
      yield None


def _sentences(evaluated, aligned, tokenizer):
  """The sentences that are shown, their pictures, and a line about them."""
  config, split = evaluated.examples.config, evaluated.examples.split
  ids, wrong = _choose(aligned)
  examples = batches.Examples(_part(split, ids), tokenizer, config)
  attention = [None] * len(ids)
  if config.model.vit.enabled and config.model.fusion == "collaboration":
    attention = evaluated.evaluator.attention(evaluated.params, examples)
  shown, pictures, known, size = [], [], {}, 0
  for i, weights, seen in zip(ids, attention, _pixels(examples), strict=True):
    sentence = split.sentences[i]
    record = {
      "number": i + 1,
      "words": sentence.words,
      "language": sentence.language,
      "source": sentence.source or "other",
      "origin": sentence.origin,
      "entities": aligned[i],
      "image": split.image_status[i],
    }
    new = None
    if seen is not None:
      image_id, pixels = seen
      record["picture"] = known.get(image_id, len(pictures))
      if image_id not in known:
        new = _picture(pixels)
      if weights is not None:
        record["attention"] = encode_attention(weights)
    added = len(_json([record, new]))
    if size + added > MAX_BYTES:
      continue
    size += added
    shown.append(record)
    if new:
      known[image_id] = len(pictures)
      pictures.append(new)
  with_error = sum(wrong[s["number"] - 1] for s in shown)
  note = f"All {len(aligned):,} sentences of the split."
  if len(shown) < len(aligned):
    note = (
      f"{len(shown):,} of the {len(aligned):,} sentences of the split:"
      f" {with_error:,} of the {wrong.sum():,} with an error, and"
      f" {len(shown) - with_error:,} without, drawn at random. A report holds at"
      f" most {MAX_SENTENCES:,} sentences and {MAX_BYTES // 10**6} MB."
    )
  shown.sort(key=lambda record: record["number"])
  return shown, pictures, note


def collect(evaluated, workdir, split):
  """All that a report shows, as one JSON object.

  Args:
    evaluated: evaluation.Evaluation of a split.
    workdir: of the run.
    split: its name.
  """
  workdir, scores = epath.Path(workdir), evaluated.scores
  examples = evaluated.examples
  config, sentences = examples.config, examples.split.sentences
  aligned = [
    errors.align(sentence.tags, tags)
    for sentence, tags in zip(sentences, evaluated.predicted, strict=True)
  ]
  tokenizer = wordpiece.load(workdir / "tokenizer")
  shown, pictures, note = _sentences(evaluated, aligned, tokenizer)
  return {
    "name": workdir.resolve().name,
    "split": split,
    "run": _run(config, evaluated.params, scores),
    "data": _data(examples.split, scores["counts"]),
    "config": dataclasses.asdict(config),
    "remarks": evaluation.remarks(scores),
    "curves": _curves(workdir),
    "scores": _score_groups(scores, sentences, evaluated.predicted),
    "confusion": errors.confusion(aligned),
    "sentences": shown,
    "pictures": pictures,
    "note": note,
    "grid": config.model.vit.image_size // max(1, config.model.vit.patch_size),
  }


def _json(data):
  """JSON in which no character can end the element that it stands in."""
  text = json.dumps(data, separators=(",", ":"), allow_nan=False)
  for character in "<>&":
    text = text.replace(character, f"\\u{ord(character):04x}")
  return text


def render(data):
  """The page of what `collect` returns.

  The policy in its head allows its own script and style, by their hashes, and
  pictures that are in the file: nothing else runs or is loaded.
  """
  page = (
    importlib.resources.files("mner_jax.evaluation") / "report.html"
  ).read_text(encoding="utf-8")

  def allowed(element):
    (text,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"

  policy = (
    f"default-src 'none'; script-src {allowed('script')};"
    f" style-src {allowed('style')}; img-src data:; base-uri 'none';"
    " form-action 'none'"
  )
  return page.replace("__POLICY__", policy).replace("__DATA__", _json(data))


def write(evaluated, workdir, split):
  """Writes DIR/report.html, process 0 only; returns a line that says so."""
  data = collect(evaluated, workdir, split)
  path = epath.Path(workdir) / "report.html"
  page = render(data)
  if jax.process_index() == 0:
    files.write(path, page)
  return f"{path}: {len(page) / 1e6:.1f} MB. {data['note']}"

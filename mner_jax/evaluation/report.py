"""report.html: one file to inspect a run and its errors.

An evaluation becomes one JSON object, which is inserted into `report.html`
beside this module, whose script builds the page from it. The file opens
without a network, and no other script in it can run.
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

from mner_jax.data import batches, files, wordpiece
from mner_jax.evaluation import errors, significance
from mner_jax.evaluation import evaluate as evaluation

# Limits of a report; a page of 20 MB still opens on a phone.
MAX_SENTENCES = 1000
MAX_BYTES = 18_000_000
_PICTURE_SIDE = 224  # pixels
_PICTURE_QUALITY = 70  # about 9 KB, so that 1,000 of them and their weights fit
_CURVE_POINTS = 200


def _score_groups(scores, sentences, predicted):
  """[{"name", "rows"}]: the scores of `<split>_metrics.json` and intervals."""
  gold = [s.tags for s in sentences]
  everything = significance.sentence_counts(gold, predicted)

  def counts_of(group, name):  # [N, 3]
    if group == "type":
      gold_and_predicted = (
        [[t if t[2:] == name else "O" for t in tags] for tags in side]
        for side in (gold, predicted)
      )
      return significance.sentence_counts(*gold_and_predicted)
    if group in ("language", "source"):
      members = [(getattr(s, group) or "other") == name for s in sentences]
      return everything[members]
    return everything

  total = {k: scores[k] for k in ("f1", "precision", "recall", "f1_strict")}
  total["support"] = scores["counts"]["entities"]
  groups = {"": {"all": total}}
  groups |= {g: scores[f"per_{g}"] for g in ("language", "type", "source")}
  result = []
  for group, found in groups.items():
    rows = []
    for name, values in found.items():
      interval = significance.bootstrap(counts_of(group, name)[None])
      rows.append({**values, "name": name, "interval": interval})
    if len(rows) > 1 or not group:
      result.append({"name": group, "rows": rows})
  return result


def _curves(workdir):
  """{metric: [[step, value], ...]} of metrics.jsonl, losses thinned."""
  curves = collections.defaultdict(list)
  for line in files.read_lines(workdir / "metrics.jsonl"):
    for name in line.keys() - {"step", "grad_norm", "skipped", "loss"}:
      if math.isfinite(line[name]):
        curves[name].append((line["step"], line[name]))
  for name, points in curves.items():
    if not name.endswith("_f1"):
      parts = np.array_split(points, min(len(points), _CURVE_POINTS))
      points = [np.mean(part, axis=0) for part in parts]
    curves[name] = [[round(s), float(f"{v:.5g}")] for s, v in points]
  return dict(sorted(curves.items()))


def run_facts(config, params, step):
  """[(label, value)] of the model and its training up to `step`."""
  model, data = config.model, config.data
  encoders = {model.text.encoder: model.text}
  encoders |= {"ViT": model.vit, "ResNet": model.resnet}
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
  rows = {
    f"{name} encoder": encoder.weights or "from scratch"
    for name, encoder in encoders.items()
    if getattr(encoder, "enabled", True)
  }
  if model.multimodal:
    rows["fusion"] = model.fusion + ", as released" * model.released
    rows["contrastive loss"] = config.loss.contrastive
  rows |= {
    "decoder": model.decoder,
    "parameters": f"{count:,}",
    "trained on": f"{data.path}: {', '.join(data.languages)}",
    "epochs": str(config.train.epochs),
    "batch size": str(config.train.batch_size),
    "learning rate": f"{config.optim.learning_rate:g}",
    "seed": str(config.seed),
    "checkpoint": f"step {step:,}, best on dev",
  }
  return list(rows.items())


def _data(split, counts):
  """[(label, value)] of the split that is scored."""

  def tally(values):
    found = sorted(collections.Counter(values).items())
    return ", ".join(f"{name} {count:,}" for name, count in found)

  sentences = split.sentences
  return [
    *((name.replace("_", " "), f"{n:,}") for name, n in counts.items()),
    ("words", f"{sum(len(s.words) for s in sentences):,}"),
    ("pictures", f"{split.image_status.count('ok'):,}"),
    ("by language", tally(s.language for s in sentences)),
    ("by source", tally(s.source or "other" for s in sentences)),
  ]


def _base64(data):
  return base64.b64encode(data).decode()


def encode_attention(weights):
  """[words, P], each row with sum 1 -> bytes in base64.

  "patches" counts in 255ths of "peak", the sentence's largest weight of a
  patch; "class", the class token's share, in 255ths of 1.
  """
  patches = weights[:, 1:]  # [words, P - 1]
  peak = max(float(patches.max()), 1e-9)

  def encoded(shares):
    return _base64(np.rint(255 * shares).astype(np.uint8).tobytes())

  return {
    "peak": float(f"{peak:.4g}"),
    "patches": encoded(patches / peak),
    "class": encoded(weights[:, 0]),
  }


def _data_uri(pixels):
  """[S, S, 3] uint8 -> a small picture as a data URI."""
  image, buffer = Image.fromarray(pixels), io.BytesIO()
  image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
  image.save(buffer, "WEBP", quality=_PICTURE_QUALITY)
  return f"data:image/webp;base64,{_base64(buffer.getvalue())}"


def _pixels(examples):
  """Yields (image id, pixels) as the model sees a sentence's picture, or None.

  [S, S, 3] uint8, one for each sentence.
  """
  data, model = examples.config.data, examples.config.model
  name = "pixels" if model.vit.enabled else "scene_pixels"
  for i, window in enumerate(examples.windows):
    if window.start == 0:
      rows = examples.rows(data.buckets[-1], [i])
      seen = model.multimodal and rows["has_image"][0]
      yield (int(rows["image_id"][0]), rows[name][0]) if seen else None


def _part(split, ids):
  """These sentences of a Split."""
  fields = ("sentences", "image_status", "image_names", "rows")
  parts = {name: [getattr(split, name)[i] for i in ids] for name in fields}
  return dataclasses.replace(split, **parts)


def _sentences(evaluated, aligned, tokenizer):
  """The part of `collect` that `_that_fit` makes, and a note on it."""
  config, split = evaluated.examples.config, evaluated.examples.split
  # Those with errors first, each group in random order: files are sorted by
  # language, and a part of them must not be.
  wrong = [any(e[4] != "correct" for e in entities) for entities in aligned]
  ids = np.random.default_rng(0).permutation(len(aligned)).tolist()
  ids = sorted(ids, key=lambda i: not wrong[i])[:MAX_SENTENCES]
  examples = batches.Examples(_part(split, ids), tokenizer, config)
  fields = [
    {
      "number": i + 1,
      "source": split.sentences[i].source or "other",
      "entities": aligned[i],
      "image": split.image_status[i],
    }
    for i in ids
  ]
  part = _that_fit(evaluated.evaluator, evaluated.params, examples, fields)
  shown = sorted(part["sentences"], key=lambda record: record["number"])
  note = f"{len(shown):,} of the split's {len(aligned):,} sentences"
  if len(shown) < len(aligned):
    note += (
      f": of the {sum(wrong):,} with an error as many as fit {_limits()}, then"
      " others, both at random"
    )
  return part | {"sentences": shown, "note": note + "."}


def _limits():
  return f"({MAX_SENTENCES:,} sentences, {MAX_BYTES // 10**6} MB)"


def _that_fit(evaluator, params, examples, fields):
  """The records of the first sentences, up to MAX_BYTES, and their pictures.

  `fields`: of each sentence, what its record holds besides.
  """
  model, sentences = examples.config.model, examples.split.sentences
  attention = [None] * len(sentences)
  if model.vit.enabled and model.fusion == "collaboration" and sentences:
    attention = evaluator.attention(params, examples)
  shown, pictures, size = [], {}, 0
  for sentence, extra, weights, seen in zip(
    sentences, fields, attention, _pixels(examples), strict=True
  ):
    record = vars(sentence) | extra
    if seen:
      name, pixels = seen
      record["picture"] = name
      if name not in pictures:
        pictures[name] = _data_uri(pixels)
        size += len(pictures[name])
      if weights is not None:
        record["attention"] = encode_attention(weights)
    size += len(_json(record))
    if size > MAX_BYTES:
      break
    shown.append(record)
  grid = model.vit.image_size // max(1, model.vit.patch_size)
  return {"sentences": shown, "pictures": pictures, "grid": grid}


def collect(evaluated, workdir, split):
  """All that a report shows, as one JSON object.

  Args:
    evaluated: evaluation.Evaluation of a split.
    workdir: of the run.
    split: its name.
  """
  workdir, scores = epath.Path(workdir), evaluated.scores
  predicted, examples = evaluated.predicted, evaluated.examples
  sentences, config = examples.split.sentences, examples.config
  gold = [s.tags for s in sentences]
  aligned = list(map(errors.align, gold, predicted))
  tokenizer = wordpiece.load(workdir / "tokenizer")
  return {
    "name": workdir.resolve().name,
    "split": split,
    "run": run_facts(config, evaluated.params, scores["checkpoint_step"]),
    "data": _data(examples.split, scores["counts"]),
    "config": dataclasses.asdict(config),
    "remarks": evaluation.remarks(scores),
    "curves": _curves(workdir),
    "scores": _score_groups(scores, sentences, predicted),
    "confusion": errors.confusion(aligned),
    **_sentences(evaluated, aligned, tokenizer),
  }


def collect_tagged(evaluator, params, examples, fields, count):
  """All that a page of sentences without gold shows, except its name.

  Args:
    evaluator: evaluation.Evaluator.
    params: of the model.
    examples: at most MAX_SENTENCES sentences.
    fields: for each of them "number", "image", "entities", and "spaces".
    count: how many sentences there are.
  """
  part = _that_fit(evaluator, params, examples, fields)
  note = f"{len(part['sentences']):,} of {count:,} sentences with a word"
  if len(part["sentences"]) < count:
    note += f": the first that fit {_limits()}"
  note += ". Beside a type: the model's probability of exactly that entity."
  return part | {"note": note, "types": examples.config.data.labels}


def _json(data):
  """JSON in which no character can end the element that contains it."""
  text = json.dumps(data, separators=(",", ":"), allow_nan=False)
  for character in "<>&":
    text = text.replace(character, f"\\u{ord(character):04x}")
  return text


def render(data):
  """The page that shows what `collect` or `collect_tagged` returns.

  The policy in its head allows its own script and style, by their hashes, and
  pictures that are in the file: nothing else runs or is loaded.
  """
  template = importlib.resources.files("mner_jax.evaluation") / "report.html"
  page = template.read_text(encoding="utf-8")

  def allowed(element):
    (text,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"

  policy = (
    f"default-src 'none'; script-src {allowed('script')};"
    f" style-src {allowed('style')}; img-src data:; base-uri 'none';"
    " form-action 'none'"
  )
  return page.replace("__POLICY__", policy).replace("__DATA__", _json(data))


def write(evaluated, workdir, split):
  """Writes DIR/report.html, process 0 only; returns a line about it."""
  data = collect(evaluated, workdir, split)
  path, page = epath.Path(workdir) / "report.html", render(data)
  if jax.process_index() == 0:
    files.write(path, page)
  return f"{path}: {len(page) / 1e6:.1f} MB. {data['note']}"

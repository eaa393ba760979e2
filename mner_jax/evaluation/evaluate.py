"""Evaluation: predict a split, score it as papers do.

Every word of the file is scored against the file's own tags. A long sentence
went through the encoder in windows; their emissions are put together and
decoded by ONE Viterbi.
"""

import collections
import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import seqeval.metrics
import seqeval.scheme
from etils import epath
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax import checkpoint, files, sharding
from mner_jax.data import batches, builders, schemes, wordpiece
from mner_jax.data.synthetic import corpus
from mner_jax.models import crf
from mner_jax.models.mner import MultimodalNER
from mner_jax.training import log as progress

# Sentences, and words with their padding, in one Viterbi.
_DECODE_ROWS, _DECODE_WORDS = 128, 1 << 16


def abstract_params(config, mesh):
  """Shapes and shardings of the model's parameters."""
  model = MultimodalNER(config)
  key = jax.random.key(0)
  example = batches.empty(config, 1, config.data.buckets[0])
  params = jax.eval_shape(model.init, key, example)["params"]
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    params,
    sharding.shardings(params, mesh),
  )


_viterbi = jax.jit(lambda *inputs: crf.viterbi(*inputs)[0])
_entity_probabilities = jax.jit(crf.entity_probabilities)


def _marginals(params, emissions, paths, lengths, names):
  """[B, W]: the probability of each entity of the paths, at its last word."""
  entities = [
    (row, first, last, names.index(f"I-{kind}"))
    for row, (path, length) in enumerate(zip(paths, lengths, strict=True))
    for kind, first, last in get_entities([names[t] for t in path[:length]])
  ]
  found = np.zeros(paths.shape, np.float32)
  if entities:
    # Repeated up to a power of two: few shapes to compile.
    size = 1 << (len(entities) - 1).bit_length()
    rows, first, last, inner = np.resize(entities, (size, 4)).T
    found[rows, last] = _entity_probabilities(
      params, emissions[rows], lengths[rows], first, last, inner
    )
  return found


def _emissions(model, params, batch):
  return model.apply({"params": params}, batch).emissions


def _attention(model, params, batch):
  """[B, W, P]: see `Evaluator.attention`."""
  _, state = model.apply({"params": params}, batch, mutable=["intermediates"])
  branch = state["intermediates"]["fusion"]["vit"]
  (weights,) = branch["attention"]["weights"]  # [B, N, W, P]
  return jnp.mean(weights, axis=1)


@functools.cache
def _jitted(function, config, mesh):
  """One program for all splits: (params, batch) -> what `function` says."""
  model = MultimodalNER(config)
  # Replicated: every host stitches and decodes all sentences.
  return jax.jit(
    functools.partial(function, model), out_shardings=sharding.replicated(mesh)
  )


class Evaluator:
  """Predicts and scores splits; compiled once per bucket."""

  def __init__(self, config, mesh):
    self._config, self._mesh = config, mesh
    self._tags = config.tags

  def emissions(self, params, examples, before_batch=lambda step: None):
    """The emissions of each sentence, [words, K] each, whole.

    `before_batch` is called with the number of each batch and may raise.
    """
    return self._by_word(_emissions, params, examples, before_batch)

  def attention(self, params, examples):
    """Where in its picture each word looks, [words, P] of each sentence.

    The collaboration's weights over the ViT's tokens, the class token first,
    averaged over the heads; of a model that has both. Without a picture a
    sentence's weights mean nothing.
    """
    return self._by_word(_attention, params, examples)

  def _by_word(self, what, params, examples, before_batch=lambda step: None):
    """What a function of a batch says of each sentence's words, [words, ...]."""
    compute = _jitted(what, self._config, self._mesh)
    process = (jax.process_index(), jax.process_count())
    plan = examples.plan()
    parts = [None] * len(examples.windows)
    steps = (0, plan.steps_per_epoch)
    for step, batch in enumerate(
      batches.load(examples, plan, steps, process=process)
    ):
      before_batch(step)
      rows = compute(params, sharding.put_batch(batch, self._mesh))
      rows = jax.device_get(rows)
      for row, window in enumerate(plan.batch(step)[1]):
        if window != batches.PADDING:
          count = len(examples.windows[window].first_piece)
          parts[window] = rows[row, :count]
    whole = [[] for _ in examples.split.sentences]
    for window, part in zip(examples.windows, parts, strict=True):
      whole[window.sentence].append(part)
    return [np.concatenate(parts) for parts in whole]

  def predict(self, params, examples, **options):
    """The tags of each sentence, as lists of strings."""
    emissions = self.emissions(params, examples, **options)
    return [tags for tags, _ in self.decode(params, emissions)]

  def decode(self, params, emissions, *, marginals=False):
    """The best path of each sentence, by one Viterbi over all of it.

    Args:
      params: of the model.
      emissions: [words, K] of each sentence.
      marginals: whether to compute them.

    Returns:
      [(tags, scores)] of each sentence: strings, and [words] the marginal
      probability of each entity at its last word, see
      `crf.entity_probabilities`; None without `marginals`.
    """
    scores = jax.device_get(crf.params_of(params, len(self._tags)))
    # Equal lengths together: little padding, few shapes to compile.
    by_length = collections.defaultdict(list)
    for i, e in enumerate(emissions):
      by_length[1 << (max(8, len(e)) - 1).bit_length()].append(i)
    found = [None] * len(emissions)
    for length, members in sorted(by_length.items()):
      count = max(1, min(_DECODE_ROWS, _DECODE_WORDS // length))
      for begin in range(0, len(members), count):
        rows = members[begin : begin + count]
        padded = np.zeros((count, length, len(self._tags)), np.float32)
        lengths = np.ones(count, np.int32)
        for row, i in enumerate(rows):
          padded[row, : len(emissions[i])] = emissions[i]
          lengths[row] = len(emissions[i])
        paths = jax.device_get(_viterbi(scores, padded, lengths))
        if marginals:
          sure = _marginals(scores, padded, paths, lengths, self._tags)
        for row, i in enumerate(rows):
          own = slice(lengths[row])
          tags = [self._tags[t] for t in paths[row, own]]
          found[i] = tags, sure[row, own] if marginals else None
    return found

  def score(self, params, examples, **options):
    """Predicts a split and scores it: see `score`."""
    return score(examples, self.predict(params, examples, **options))


def _scores(gold, predicted):
  """Micro scores, conlleval-like and strict, and the gold entities."""
  # An orphan I- begins an entity by default; strict IOB2 drops it.
  report = seqeval.metrics.classification_report(
    gold, predicted, output_dict=True, zero_division=0
  )
  strict = seqeval.metrics.classification_report(
    gold, predicted, output_dict=True, zero_division=0, mode="strict",
    scheme=seqeval.scheme.IOB2,
  )  # fmt: skip

  def row(name):
    # A split without entities, or a type only one mode sees, has no row.
    scores, exact = report.get(name, {}), strict.get(name, {})
    return {
      "f1": float(scores.get("f1-score", 0)),
      "precision": float(scores.get("precision", 0)),
      "recall": float(scores.get("recall", 0)),
      "f1_strict": float(exact.get("f1-score", 0)),
      "support": int(scores.get("support", 0)),
    }

  types = {
    name: row(name) for name in sorted(report) if not name.endswith(" avg")
  }
  return row("micro avg"), types


def score(examples, predicted):
  """The scores of `<split>_metrics.json`, as fractions.

  Args:
    examples: batches.Examples, whose sentences hold the gold tags.
    predicted: the tags of each sentence.
  """
  sentences = examples.split.sentences
  gold = [list(s.tags) for s in sentences]
  total, types = _scores(gold, predicted)

  def grouped(key):
    groups = collections.defaultdict(list)
    for i, sentence in enumerate(sentences):
      groups[key(sentence)].append(i)
    return {
      name: _scores([gold[i] for i in ids], [predicted[i] for i in ids])[0]
      for name, ids in sorted(groups.items())
    }

  status = collections.Counter(examples.split.image_status)
  support = total.pop("support")
  return {
    **total,
    "per_language": grouped(lambda s: s.language),
    "per_type": types,
    "per_source": grouped(lambda s: s.source or "other"),
    "counts": {
      "sentences": len(sentences),
      "entities": support,
      "missing_images": status["missing"],
      "broken_images": status["broken"],
      "windowed_sentences": sum(
        count > 1
        for count in collections.Counter(
          w.sentence for w in examples.windows
        ).values()
      ),
      "unk_words": sum(w.unk_words for w in examples.windows),
      "orphan_tags": sum(schemes.repair(s.tags)[1] for s in sentences),
    },
  }


class Evaluation(NamedTuple):
  """A split's scores, and what they were computed from."""

  scores: dict  # of `<split>_metrics.json`
  predicted: list[list[str]]  # tags of each sentence
  examples: batches.Examples
  params: Any
  evaluator: Evaluator


def evaluate(config, workdir, split, *, shuffle_images=False):
  """Scores a split with the checkpoint that is best on dev.

  Args:
    config: the run's resolved Config; its languages say what is scored.
    workdir: of the run.
    split: "train", "valid" or "test".
    shuffle_images: give each sentence the picture of another one, drawn
      without putting back: a control of what the pictures are worth.

  Returns:
    Evaluation.
  """
  workdir = epath.Path(workdir)
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_batch_size(config.train.batch_size, mesh)
  languages = config.data.eval_languages or config.data.languages
  data = builders.load(config.data, (split,), languages)[split]
  order = None
  if shuffle_images:
    order = np.random.default_rng(config.seed).permutation(len(data.sentences))
  tokenizer = wordpiece.load(workdir / "tokenizer")
  examples = batches.Examples(data, tokenizer, config, picture_of=order)
  step, params = checkpoint.restore_best(workdir, abstract_params(config, mesh))
  evaluator = Evaluator(config, mesh)
  predicted = evaluator.predict(params, examples)
  scores = score(examples, predicted)
  scores["checkpoint_step"] = step
  if split == "test" and (best := _best_test_epoch(workdir)):
    scores["best_test_epoch"] = best
  if config.data.path == "synthetic":
    drawn = corpus.examples(split, languages=languages)
    scores["synthetic_ceilings"] = {
      "text": corpus.ceiling(drawn, pictures=False),
      "text_and_pictures": corpus.ceiling(drawn, pictures=True),
    }
  return Evaluation(scores, predicted, examples, params, evaluator)


def _best_test_epoch(workdir):
  """{"f1", "step"} of the evaluation best on TEST, where test was scored."""
  lines = progress.read(workdir / "metrics.jsonl")
  scored = [values for values in lines if "test_f1" in values]
  if not scored:
    return None
  best = max(scored, key=lambda m: m["test_f1"])
  return {"f1": best["test_f1"], "step": best["step"]}


def table(scores):
  """The scores as lines of text, in per cent."""
  header = ("F1", "precision", "recall", "strict F1", "entities")
  lines = [f"{'':12}" + "".join(f"{name:>11}" for name in header)]
  total = {**scores, "support": scores["counts"]["entities"]}
  groups = [("all", total)]
  for group in ("per_language", "per_type", "per_source"):
    if len(scores[group]) > 1:
      groups += [("", None), *scores[group].items()]
  for name, row in groups:
    if row is None:
      lines.append("")
      continue
    keys = ("f1", "precision", "recall", "f1_strict")
    values = "".join(f"{100 * row[key]:11.2f}" for key in keys)
    lines.append(f"{name:12}{values}{row['support']:11d}")
  counts = ", ".join(
    f"{count} {name.replace('_', ' ')}"
    for name, count in scores["counts"].items()
  )
  return "\n".join([*lines, "", counts, *remarks(scores)])


def remarks(scores):
  """What must stand beside the scores so that nobody misreads them."""
  lines = []
  if best := scores.get("best_test_epoch"):
    lines.append(
      f"best test epoch (selected on test, not a fair score): F1"
      f" {100 * best['f1']:.2f} after step {best['step']}"
    )
  if ceilings := scores.get("synthetic_ceilings"):
    lines.append(
      "synthetic corpus: by its construction the best reader reaches F1"
      f" {100 * ceilings['text']:.2f} on the text alone,"
      f" {100 * ceilings['text_and_pictures']:.2f} with the pictures"
    )
  return lines


def write(scores, path):
  """Writes the scores, as `<split>_metrics.json`; process 0 only."""
  if jax.process_index() == 0:
    files.write(path, json.dumps(scores, indent=2) + "\n")


def write_predictions(evaluated, workdir):
  """Writes `test_predictions.jsonl`, a line a sentence; process 0 only."""
  lines = []
  for sentence, tags in zip(
    evaluated.examples.split.sentences, evaluated.predicted, strict=True
  ):
    record = {
      "language": sentence.language,
      "source": sentence.source,
      "gold": sentence.tags,
      "tags": tags,
    }
    lines.append(json.dumps(record) + "\n")
  if jax.process_index() == 0:
    files.write(epath.Path(workdir) / "test_predictions.jsonl", "".join(lines))

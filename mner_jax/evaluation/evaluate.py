"""Evaluation: predicts a split and scores it as papers do.

Every word of the file is scored against the file's own tags. A long sentence
goes through the encoder in windows; their emissions are stitched together and
decoded by ONE Viterbi.

B sentences, W words, P image tokens, K tags.
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

from mner_jax import checkpoint, sharding
from mner_jax.data import batches, builders, files, schemes, wordpiece
from mner_jax.evaluation import decoding
from mner_jax.models.mner import MultimodalNER


def abstract_params(config, mesh):
  """The shapes and shardings of the model's parameters."""
  model = MultimodalNER(config)
  example = batches.empty(config, 1, config.data.buckets[0])
  params = jax.eval_shape(model.init, jax.random.key(0), example)["params"]
  shardings = sharding.shardings(params, mesh)
  return jax.tree.map(lambda x, s: x.update(sharding=s), params, shardings)


def _emissions(model, params, batch):
  return model.apply({"params": params}, batch).emissions


def _attention(model, params, batch):
  """[B, W, P]: see `Evaluator.attention`."""
  _, state = model.apply({"params": params}, batch, mutable=["intermediates"])
  branch = state["intermediates"]["fusion"]["vit"]
  (weights,) = branch["attention"]["weights"]  # [B, heads, W, P]
  return jnp.mean(weights, axis=1)


@functools.cache
def _jitted(function, config, mesh):
  """One program of (params, batch) that all splits and Evaluators share."""
  model = MultimodalNER(config)

  @functools.wraps(function)
  def compute(params, batch):
    return function(model, sharding.gather_fsdp(params, mesh), batch)

  # Replicated: every process stitches and decodes all sentences.
  return jax.jit(compute, out_shardings=sharding.replicated(mesh))


class Evaluator:
  """Predicts and scores splits; compiled once per bucket."""

  def __init__(self, config, mesh, batch_size=None):
    """`batch_size`: rows over all devices; None = those of training."""
    self._config, self._mesh = config, mesh
    self._batch_size = batch_size

  def rows(self, function, params, examples, before_batch=lambda step: None):
    """Runs a function of the model over a split.

    Args:
      function: (model, params, batch) -> a tree of arrays [B, ...].
      params: of the model.
      examples: batches.Examples.
      before_batch: called with the number of each batch; may raise.

    Yields:
      (window, its row of the tree), in no particular order.
    """
    compute = _jitted(function, self._config, self._mesh)
    plan = examples.plan(batch_size=self._batch_size)
    steps = (0, plan.steps_per_epoch)
    own = sharding.own_rows(plan.batch_size, self._mesh)
    loaded = batches.load(examples, plan, steps, rows=own)
    for step, batch in enumerate(loaded):
      before_batch(step)
      batch = sharding.put_batch(batch, plan.batch_size, self._mesh)
      tree = jax.device_get(compute(params, batch))
      for row, window in enumerate(plan.batch(step)[1]):
        if window != batches.PADDING:
          yield window, jax.tree.map(lambda x, row=row: x[row], tree)

  def _by_sentence(self, function, params, examples, **options):
    """The rows of `rows` as one array [words, ...] for each sentence."""
    rows = dict(self.rows(function, params, examples, **options))
    parts = [[] for _ in examples.split.sentences]
    for i, window in enumerate(examples.windows):
      parts[window.sentence].append(rows[i][: len(window.first_piece)])
    return [np.concatenate(p) for p in parts]

  def emissions(self, params, examples, **options):
    """The emissions of each sentence, [words, K]; options as in `rows`."""
    return self._by_sentence(_emissions, params, examples, **options)

  def attention(self, params, examples):
    """Where in its picture each word looks, [words, P] for each sentence.

    The collaboration's weights over the ViT's tokens, the class token first,
    averaged over the heads; only for a model that has both. The weights of a
    sentence without a picture are meaningless.
    """
    return self._by_sentence(_attention, params, examples)

  def predict(self, params, examples, **options):
    """The tags of each sentence, as lists of strings; options as in `rows`."""
    emissions = self.emissions(params, examples, **options)
    decoded = decoding.decode(params, emissions, self._config.tags)
    return [tags for tags, _ in decoded]

  def score(self, params, examples, **options):
    """Predicts and scores a split: see `score`; options as in `rows`."""
    return score(examples, self.predict(params, examples, **options))


def _scores(gold, predicted):
  """(micro scores, {type: scores}), both conlleval-like and strict."""

  def report(**mode):
    return seqeval.metrics.classification_report(
      gold, predicted, output_dict=True, zero_division=0, **mode
    )

  # An orphan I- begins an entity by default; strict IOB2 drops it.
  default = report()
  strict = report(mode="strict", scheme=seqeval.scheme.IOB2)

  def row(name):
    # A split without entities, or a type only one mode sees, has no row.
    found, exact = default.get(name, {}), strict.get(name, {})
    return {
      "f1": float(found.get("f1-score", 0)),
      "precision": float(found.get("precision", 0)),
      "recall": float(found.get("recall", 0)),
      "f1_strict": float(exact.get("f1-score", 0)),
      "support": int(found.get("support", 0)),
    }

  types = [name for name in sorted(default) if not name.endswith(" avg")]
  return row("micro avg"), {name: row(name) for name in types}


def score(examples, predicted):
  """The scores of `<split>_metrics.json`, as fractions.

  Args:
    examples: batches.Examples, whose sentences hold the gold tags.
    predicted: the tags of each sentence.
  """
  sentences, status = examples.split.sentences, examples.split.image_status
  gold = [list(s.tags) for s in sentences]
  total, types = _scores(gold, predicted)
  windowed = {w.sentence for w in examples.windows if w.start > 0}

  def grouped(names):
    groups = collections.defaultdict(lambda: ([], []))
    for name, *pair in zip(names, gold, predicted, strict=True):
      for side, tags in zip(groups[name], pair, strict=True):
        side.append(tags)
    return {name: _scores(*groups[name])[0] for name in sorted(groups)}

  counts = {
    "sentences": len(sentences),
    "entities": total.pop("support"),
    "missing_images": status.count("missing"),
    "broken_images": status.count("broken"),
    "windowed_sentences": len(windowed),
    "unk_words": sum(w.unk_words for w in examples.windows),
    "orphan_tags": sum(schemes.repair(s.tags)[1] for s in sentences),
  }
  return {
    **total,
    "per_language": grouped(s.language for s in sentences),
    "per_type": types,
    "per_source": grouped(s.source or "other" for s in sentences),
    "counts": counts,
  }


class Evaluation(NamedTuple):
  """A split's scores and what they were computed from."""

  scores: dict  # of `<split>_metrics.json`
  predicted: list[list[str]]  # tags of each sentence
  examples: batches.Examples
  params: Any
  evaluator: Evaluator


def evaluate(config, workdir, split, *, shuffle_images=False):
  """Scores a split with the checkpoint that is best on dev.

  Args:
    config: the run's resolved Config; its languages are those scored, of the
      test split its eval_languages.
    workdir: of the run.
    split: "train", "valid" or "test".
    shuffle_images: give each sentence the picture of another one, drawn
      without replacement: a control of what the pictures are worth.

  Returns:
    Evaluation.
  """
  workdir = epath.Path(workdir)
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_batch_size(config.train.batch_size, mesh)
  data = builders.load(builders.inputs(config), (split,))[split]
  order = None
  if shuffle_images:
    order = np.random.default_rng(config.seed).permutation(len(data.sentences))
  tokenizer = wordpiece.load(workdir / "tokenizer")
  examples = batches.Examples(data, tokenizer, config, picture_of=order)
  step, params = checkpoint.restore_best(workdir, abstract_params(config, mesh))
  evaluator = Evaluator(config, mesh)
  predicted = evaluator.predict(params, examples)
  scores = score(examples, predicted) | {"checkpoint_step": step}
  log = files.read_lines(workdir / "metrics.jsonl")
  tested = [line for line in log if "test_f1" in line]
  if split == "test" and tested:
    best = max(tested, key=lambda line: line["test_f1"])
    scores["best_test_epoch"] = {"f1": best["test_f1"], "step": best["step"]}
  return Evaluation(scores, predicted, examples, params, evaluator)


def table(scores):
  """The scores as lines of text, in per cent."""

  def line(name, row):
    shares = (row[key] for key in ("f1", "precision", "recall", "f1_strict"))
    cells = "".join(f"{100 * share:11.2f}" for share in shares)
    return f"{name:12}{cells}{row['support']:11d}"

  counts = scores["counts"]
  total = {**scores, "support": counts["entities"]}
  header = "         F1  precision     recall  strict F1   entities"
  lines = [f"{'':12}{header}", line("all", total)]
  for group in ("per_language", "per_type", "per_source"):
    if len(scores[group]) > 1:
      lines += ["", *(line(*item) for item in scores[group].items())]
  note = ", ".join(f"{n} {name}" for name, n in counts.items())
  return "\n".join([*lines, "", note.replace("_", " "), *remarks(scores)])


def remarks(scores):
  """Lines that belong beside the scores, so that nobody misreads them."""
  if not (best := scores.get("best_test_epoch")):
    return []
  return [
    f"best test epoch (selected on test, not a fair score): F1"
    f" {100 * best['f1']:.2f} after step {best['step']}"
  ]


def write(scores, path):
  """Writes scores as JSON; process 0 only."""
  if jax.process_index() == 0:
    files.write(path, json.dumps(scores, indent=2) + "\n")

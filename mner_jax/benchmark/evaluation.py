"""Evaluation: the emissions, the Viterbi and the scores of a split.

The synthetic test split through a model of the config's sizes with random
weights, pictures decoded and all, as `eval.py` does it.
"""

import dataclasses

import jax

from mner_jax import sharding
from mner_jax.benchmark import timing
from mner_jax.data import batches, builders, wordpiece
from mner_jax.evaluation import evaluate as evaluation
from mner_jax.models.mner import MultimodalNER

_DATA = {"path": "synthetic", "languages": ("de", "en", "es", "fr")}


def run(config, *, batch_sizes, repeats):
  """Rows {"what", "batch", "ms", "spread_ms", "examples_per_second"}."""
  data = dataclasses.replace(config.data, **_DATA, eval_languages=())
  split = builders.load(data, ("test",), data.languages)["test"]
  vocabulary = wordpiece.count_vocabulary(split.sentences, 2000)
  tokenizer = wordpiece.bert_tokenizer(vocabulary)
  mesh = sharding.make_mesh(config.mesh)
  rows = []
  for size in batch_sizes:
    sharding.check_batch_size(size, mesh)
    sized = dataclasses.replace(
      config,
      data=data,
      train=dataclasses.replace(config.train, batch_size=size),
    )
    examples = batches.Examples(split, tokenizer, sized)
    params = _random_params(sized, mesh)
    evaluator = evaluation.Evaluator(sized, mesh)
    emissions = evaluator.emissions(params, examples)
    predicted = [tags for tags, _ in evaluator.decode(params, emissions)]
    # Random weights tag nearly all words, which costs seqeval most.
    steps = {
      "emissions": lambda e=evaluator, p=params, x=examples: e.emissions(p, x),
      "viterbi": lambda e=evaluator, p=params, x=emissions: e.decode(p, x),
      "scores": lambda x=examples, y=predicted: evaluation.score(x, y),
    }
    times = timing.interleave(steps, repeats=repeats)
    count = len(split.sentences)
    for what, (seconds, spread) in times.items():
      rows.append(
        {
          "what": what,
          "batch": size,
          "ms": 1e3 * seconds,
          "spread_ms": 1e3 * spread,
          "examples_per_second": count / seconds,
        }
      )
  return rows


def _random_params(config, mesh):
  model = MultimodalNER(config)
  placed = jax.tree.map(
    lambda x: x.sharding, evaluation.abstract_params(config, mesh)
  )
  example = batches.empty(config, 1, config.data.buckets[0])
  init = jax.jit(
    lambda key: model.init(key, example)["params"], out_shardings=placed
  )
  return init(jax.random.key(0))

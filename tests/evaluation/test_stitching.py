"""Emissions of sentences that go through the encoder in windows."""

import random

import jax
import numpy as np
import pytest

from mner_jax import sharding
from mner_jax.data import batches, dataset, formats, wordpiece
from mner_jax.evaluation import evaluate as evaluation
from mner_jax.models.mner import MultimodalNER


@pytest.fixture(scope="module")
def examples(tiny, change):
  """Items of 555 and 40 characters and a short one, some of them invisible."""
  config = change(tiny, model__vit__enabled=False, model__resnet__enabled=False)
  rng = random.Random(0)
  sentences = [
    formats.Sentence(
      tuple(rng.choices("新故宫画山水人\u200b", k=count)), ("O",) * count
    )
    for count in (555, 3, 40)
  ]
  nothing = [""] * 3
  split = dataset.Split(sentences, nothing, nothing, [0, 1, 2], None)
  vocabulary = wordpiece.count_vocabulary(sentences, 96)
  tokenizer = wordpiece.bert_tokenizer(vocabulary)
  return batches.Examples(split, tokenizer, config)


def test_stitched_emissions_do_not_depend_on_the_order(examples, monkeypatch):
  config = examples.config
  model = MultimodalNER(config)
  params = model.init(jax.random.key(0), batches.empty(config, 1, 16))["params"]
  evaluator = evaluation.Evaluator(config, sharding.make_mesh(config.mesh))
  in_order = evaluator.emissions(params, examples)
  assert [len(e) for e in in_order] == [555, 3, 40]
  assert len(examples.windows) > 30
  order = [ids.tolist() for _, ids in map(examples.plan().batch, range(2))]
  for seed in (1, 2):
    plan = examples.plan(seed=seed)
    assert [plan.batch(i)[1].tolist() for i in range(2)] != order
    monkeypatch.setattr(examples, "plan", lambda plan=plan: plan)
    shuffled = evaluator.emissions(params, examples)
    monkeypatch.undo()
    for one, other in zip(in_order, shuffled, strict=True):
      np.testing.assert_allclose(one, other, atol=1e-6)
  # Each word's row is its own: a neighbour's would be another.
  assert np.abs(np.diff(in_order[0], axis=0)).max() > 1e-3

"""From numbers that are not finite no update is made."""

import types

import jax
import numpy as np
import pytest

from mner_jax.config import UserError
from mner_jax.training import finite
from mner_jax.training import step as stepping

GOOD = {"loss": 2.0, "crf": 1.0, "contrastive_vit": 1.0, "grad_norm": 1.0,
        "finite": {"text": True, "vit": True}}  # fmt: skip
NAN = float("nan")


def test_a_bad_batch_changes_nothing_but_the_step(tiny, change, random_batch):
  config = change(tiny, model__vit__enabled=False, model__resnet__enabled=False)
  tx = stepping.make_optimizer(config.optim, 100)
  key = jax.random.key_data(jax.random.key(0))
  state = jax.jit(stepping.make_init(config, tx))(key)
  step = jax.jit(stepping.make_train_step(config, tx))
  batch = random_batch(config)
  state, metrics = step(state, batch)
  assert finite._first(jax.device_get(metrics)) is None
  bad = {**batch, "weight": np.full(8, np.inf, np.float32)}
  after, metrics = step(state, bad)
  assert finite._first(jax.device_get(metrics)) == "crf"
  assert int(after.step) == int(state.step) + 1
  for name in ("params", "opt_state", "rng"):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(after, name), getattr(state, name)
    )
  # The same program still learns from a good one.
  again, _ = step(after, batch)
  assert np.any(
    again.params["text"]["pooler"]["kernel"]
    != after.params["text"]["pooler"]["kernel"]
  ) or np.any(
    again.params["emissions"]["kernel"] != after.params["emissions"]["kernel"]
  )


@pytest.mark.parametrize(
  ("change", "part"),
  [
    ({}, None),
    ({"loss": NAN, "crf": NAN, "grad_norm": NAN}, "crf"),
    ({"loss": NAN, "contrastive_vit": NAN}, "contrastive_vit"),
    ({"loss": float("inf")}, "loss"),
    (
      {"grad_norm": NAN, "finite": {"text": True, "vit": False}},
      "gradient of vit",
    ),
    ({"grad_norm": float("inf")}, "norm of the gradient"),
  ],
)
def test_the_first_bad_part_is_named(change, part):
  split = types.SimpleNamespace(
    sentences=[types.SimpleNamespace(origin=f"a.txt:{i}") for i in range(9)]
  )
  examples = types.SimpleNamespace(
    split=split, windows=[types.SimpleNamespace(sentence=i) for i in range(9)]
  )
  plan = types.SimpleNamespace(batch=lambda step: (16, [step, 8, -1]))
  metrics = {**GOOD, **change}
  if part is None:
    assert finite.Guard(0, 0, examples, plan).check(3, metrics) is None
    return
  with pytest.raises(UserError) as error:
    finite.Guard(0, 0, examples, plan).check(3, metrics)
  said = str(error.value)
  assert f"step 3: {part} is not finite; windows [2, 8]" in said
  assert "a.txt:2, a.txt:8." in said
  guard = finite.Guard(2, 1, examples, plan)
  assert guard.check(3, metrics) == part
  with pytest.raises(UserError, match="2 left out before"):
    guard.check(4, metrics)

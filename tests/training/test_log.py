"""Numbers that are not finite: what they leave alone, how they are named."""

import jax
import numpy as np
import pytest

from mner_jax.config import replace
from mner_jax.training import log as logs
from mner_jax.training import step as stepping
from tests.conftest import TEXT_ONLY, random_state

GOOD = {"loss": 2.0, "crf": 1.0, "contrastive_vit": 1.0, "grad_norm": 1.0}
GOOD["finite"] = {"text": True, "vit": True}
NAN, INF = float("nan"), float("inf")


def test_a_bad_batch_changes_nothing_but_the_step(tiny, random_batch):
  config = replace(tiny, TEXT_ONLY)
  tx = stepping.make_optimizer(config.optim, 100)
  state = random_state(config)
  step = jax.jit(stepping.make_train_step(config, tx))
  batch = random_batch(config)
  state, metrics = step(state, batch)
  assert logs.first_nonfinite(jax.device_get(metrics)) is None
  bad = {**batch, "weight": np.full(8, np.inf, np.float32)}
  after, metrics = step(state, bad)
  assert logs.first_nonfinite(jax.device_get(metrics)) == "crf"
  assert int(after.step) == int(state.step) + 1
  same = state._replace(step=after.step)
  jax.tree.map(np.testing.assert_array_equal, after, same)
  # The same program still learns from a good one.
  again, _ = step(after, batch)
  kernels = (x.params["emissions"]["kernel"] for x in (again, after))
  assert np.any(np.not_equal(*kernels))


BAD_VIT = {"text": True, "vit": False}
NONFINITE = {
  "nothing": ({}, None),
  "a loss": ({"loss": NAN, "crf": NAN, "grad_norm": NAN}, "crf"),
  "another": ({"loss": NAN, "contrastive_vit": NAN}, "contrastive_vit"),
  "their sum": ({"loss": INF}, "loss"),
  "a gradient": ({"grad_norm": NAN, "finite": BAD_VIT}, "gradient of vit"),
  "its norm": ({"grad_norm": INF}, "norm of the gradient"),
}


@pytest.mark.parametrize("case", NONFINITE)
def test_the_first_bad_part_is_named(case):
  changed, part = NONFINITE[case]
  assert logs.first_nonfinite({**GOOD, **changed}) == part

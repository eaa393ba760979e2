"""The whole model against its PyTorch reference: values, gradients, steps."""

import copy
import re

import jax
import numpy as np
import pytest
import torch
from flax import traverse_util

from mner_jax.config import replace
from mner_jax.models.mner import MultimodalNER, losses
from mner_jax.training import step as stepping
from tests.conftest import NO_DROPOUT, abstract_state, random_state
from tests.parity import reference


@pytest.fixture(scope="module", params=[False, True], ids=["ours", "released"])
def pair(request, tiny, random_batch, tmp_path_factory):
  fields = {"model.released": request.param, "model.resnet.stages": (1, 2)}
  folder = tmp_path_factory.mktemp("weights")
  return make_pair(replace(tiny, fields), random_batch, folder)


def make_pair(config, random_batch, folder, **options):
  """(config, our parameters, reference, batch), dropout 0."""
  config = replace(config, NO_DROPOUT)
  torch.manual_seed(0)
  model = reference.randomise(reference.Reference(config, **options))
  batch = random_batch(config)
  batch["image_id"][3] = batch["image_id"][2]  # a translation
  batch["has_image"][:] = True
  batch["has_image"][5] = False
  batch["weight"][7] = 0  # a row that only pads
  shapes = abstract_state(config).params
  params = convert(config, model.state_dict(), shapes, folder)
  return config, params, model, batch


def convert(config, named, shapes, folder):
  """Our parameters; counters, and what the model does not use, left out."""
  left_out = r"num_batches|position_ids|post_layernorm"
  if config.model.released:
    left_out += r"|fusion\.\w+\.attention\.query"
  named = {n: x for n, x in named.items() if not re.search(left_out, n)}
  return reference.to_params(named, shapes, folder)


def evaluation(pair):
  """Our emissions and losses."""
  config, params, _, batch = pair
  output = jax.jit(MultimodalNER(config).apply)({"params": params}, batch)
  total, parts = losses(config, output, batch)
  return output.emissions, {"loss": total, **parts}


def training(pair):
  """Our (emissions, losses), what modules kept, and the gradients."""
  config, params, _, batch = pair
  trainable, frozen = stepping.split_frozen(params, config.optim.frozen)
  options = {"deterministic": False, "rngs": {"dropout": jax.random.key(3)}}

  def loss(trainable):
    params = {"params": stepping.merge(trainable, frozen)}
    output, kept = MultimodalNER(config).apply(
      params, batch, mutable="intermediates", **options
    )
    total, parts = losses(config, output, batch)
    return total, ((output.emissions, {"loss": total, **parts}), kept)

  grads, more = jax.jit(jax.grad(loss, has_aux=True))(trainable)
  return *more, grads


def assert_same_values(pair, found):
  """Returns the loss of the reference."""
  _, _, model, batch = pair
  emissions, want = model(reference.tensors(batch))
  words = np.arange(16)[None] < batch["num_words"][:, None]
  difference = np.array(found[0]) - emissions.detach().numpy()
  assert np.abs(difference[words]).max() <= 2e-5
  assert want.keys() == found[1].keys()
  for name, x in want.items():
    np.testing.assert_allclose(found[1][name], x.item(), 1e-5, err_msg=name)
  return want["loss"]


def assert_same_gradients(pair, loss, got, folder, unused, zero):
  """Of `loss`; `unused` modules have none, those of patterns `zero` are 0."""
  config, _, model, _ = pair
  model.zero_grad()
  loss.backward()
  named = {n: p for n, p in model.named_parameters() if p.requires_grad}
  without = [n.rpartition(".")[0] for n, p in named.items() if p.grad is None]
  assert {*without} == {*unused}
  named = {n: 0 * p if p.grad is None else p.grad for n, p in named.items()}
  want = convert(config, named, got, folder)
  got, want = (traverse_util.flatten_dict(x, sep="/") for x in (got, want))
  assert got.keys() == want.keys()
  norms = {name: np.linalg.norm(g) for name, g in want.items()}
  total = np.sqrt(sum(x**2 for x in norms.values()))
  seen = set()
  for name, g in want.items():
    error = np.linalg.norm(got[name] - np.array(g))
    assert error <= 1e-4 * max(norms[name], 1e-3 * total), name
    found = {pattern for pattern in zero if re.fullmatch(pattern, name)}
    assert found or norms[name] > 1e-5 * total, name
    assert not found or norms[name] <= 1e-6 * total, name
    seen |= found
  assert seen == {*zero}


def test_emissions_and_losses(pair):
  assert_same_values(pair, evaluation(pair))


def test_the_gradient_of_every_parameter(pair, tmp_path):
  # A key's bias moves all of a query's scores alike; with one key (the scene)
  # the softmax is 1 whatever they are.
  zero = [
    r"(text|vit)/layers/attention/key/bias",
    r"fusion/resnet/attention/(query|key)/(kernel|bias)",
  ]
  unused = ["vit.vision_model.post_layernorm"]
  if pair[0].model.released:  # queries go through the key projection
    unused += [f"fusion.{x}.attention.query" for x in ("vit", "resnet")]
  else:
    zero.append(r"fusion/vit/attention/key/bias")
  found, _, grads = training(pair)
  loss = assert_same_values(pair, found)
  assert_same_gradients(pair, loss, grads, tmp_path, unused, zero)


def test_five_adam_steps(pair):
  config, params, model, batch = pair
  tx = stepping.make_optimizer(config.optim, 5)
  state = random_state(config)._replace(params=params)
  step = jax.jit(stepping.make_train_step(config, tx))
  model = copy.deepcopy(model).train()
  used = [p for p in model.parameters() if p.requires_grad]
  adam = torch.optim.Adam(used, lr=config.optim.learning_rate)
  decay = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: 1 - k / 5)
  for _ in range(5):
    state, metrics = step(state, batch)
    adam.zero_grad()
    want = model(reference.tensors(batch))[1]
    want["loss"].backward()
    adam.step()
    decay.step()
    for name, value in want.items():
      np.testing.assert_allclose(metrics[name], value.item(), 1e-4)

"""The whole model against its PyTorch reference: values, gradients, steps."""

import re

import jax
import numpy as np
import pytest
import torch
from flax import traverse_util

from mner_jax.config import replace
from mner_jax.models.mner import MultimodalNER, losses
from mner_jax.training import step as stepping
from tests.conftest import NO_DROPOUT
from tests.parity import reference

# Gradients that are zero by mathematics. A key's bias moves all of a query's
# scores alike; with one key (the scene) the softmax is 1 whatever they are.
ZERO = (
  r"(text|vit)/layers/attention/key/bias",
  r"fusion/vit/attention/key/bias",
  r"fusion/resnet/attention/(query|key)/(kernel|bias)",
)
# Where queries go through the key projection, its bias moves them.
ZERO_RELEASED = (ZERO[0], ZERO[2])


@pytest.fixture(scope="module", params=[False, True], ids=["ours", "released"])
def pair(request, tiny, random_batch, tmp_path_factory):
  """(config, our parameters, reference, batch), dropout 0."""
  fields = {"model.released": request.param, "model.resnet.stages": (1, 2)}
  config = replace(tiny, fields | NO_DROPOUT)
  torch.manual_seed(0)
  model = reference.Reference(config, *reference.encoders(config))
  generator = torch.Generator().manual_seed(1)
  with torch.no_grad():
    for p in model.parameters():
      p.add_(0.1 * torch.randn(p.shape, generator=generator))
  batch = random_batch(config)
  batch["image_id"][3] = batch["image_id"][2]  # a translation
  batch["has_image"][:] = True
  batch["has_image"][5] = False
  batch["weight"][7] = 0  # a row that only pads
  init, folder = MultimodalNER(config).init, tmp_path_factory.mktemp("weights")
  abstract = jax.eval_shape(init, jax.random.key(0), batch)
  params = convert(config, model.state_dict(), abstract, folder)
  return config, params, model, batch


def convert(config, named, abstract, folder):
  """Our parameters; counters, and what the model does not use, left out."""
  left_out = r"num_batches|position_ids|post_layernorm"
  if config.model.released:
    left_out += r"|fusion\.\w+\.attention\.query"
  named = {n: x for n, x in named.items() if not re.search(left_out, n)}
  return reference.to_params(named, abstract["params"], folder)


def relative(got, want):
  return np.abs(np.array(got) - want).max() / max(1, np.abs(want).max())


def test_emissions_and_losses(pair):
  config, params, model, batch = pair
  model.eval()
  with torch.no_grad():
    emissions, want = model(reference.tensors(batch))
  output = jax.jit(MultimodalNER(config).apply)({"params": params}, batch)
  total, parts = losses(config, output, batch)
  words = np.arange(16)[None] < batch["num_words"][:, None]
  difference = np.array(output.emissions) - emissions.numpy()
  assert np.abs(difference[words]).max() <= 2e-5
  assert want.keys() == {"loss", *parts}
  for name, value in {"loss": total, **parts}.items():
    assert relative(value, want[name].item()) <= 1e-5, name


def test_the_gradient_of_every_parameter(pair, tmp_path):
  config, params, model, batch = pair
  trainable, frozen = stepping.split_frozen(params, config.optim.frozen)

  def loss(trainable):
    merged = {"params": stepping.merge(trainable, frozen)}
    output = MultimodalNER(config).apply(merged, batch)
    return losses(config, output, batch)[0]

  got = jax.jit(jax.grad(loss))(trainable)
  got = traverse_util.flatten_dict(got, sep="/")
  model.zero_grad()
  model(reference.tensors(batch))[1]["loss"].backward()
  unused = {
    n for n, p in model.named_parameters() if p.requires_grad and p.grad is None
  }
  named = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
  # The released fusion never uses its query projection; ours has none.
  if config.model.released:
    assert {n for n in unused if n.startswith("fusion")} == {
      f"fusion.{branch}.attention.query.{leaf}"
      for branch in ("vit", "resnet")
      for leaf in ("weight", "bias")
    }
    assert not any("fusion" in name and "query" in name for name in got)
  assert {n for n in unused if not n.startswith("fusion")} == {
    "vit.vision_model.post_layernorm.weight",
    "vit.vision_model.post_layernorm.bias",
  }
  want = convert(config, named, {"params": trainable}, tmp_path)
  want = traverse_util.flatten_dict(want, sep="/")
  assert got.keys() == want.keys()
  total = np.sqrt(sum(np.sum(np.square(g)) for g in want.values()))
  zero = ZERO_RELEASED if config.model.released else ZERO
  seen = set()
  for name, g in want.items():
    g = np.array(g)
    if pattern := next((p for p in zero if re.fullmatch(p, name)), None):
      seen.add(pattern)
      assert np.linalg.norm(got[name]) <= 1e-6 * total, name
      assert np.linalg.norm(g) <= 1e-6 * total, name
      continue
    assert np.linalg.norm(g) > 1e-5 * total, name
    error = np.linalg.norm(got[name] - g)
    assert error <= 1e-4 * max(np.linalg.norm(g), 1e-3 * total), name
  assert seen == set(zero)


def test_five_adam_steps(pair):
  config, params, model, batch = pair
  tx = stepping.make_optimizer(config.optim, 5)
  trainable, _ = stepping.split_frozen(params, config.optim.frozen)
  key = jax.random.key_data(jax.random.key(0))
  start = jax.numpy.zeros((), int), params, tx.init(trainable), key
  state = stepping.TrainState(*start)
  step = jax.jit(stepping.make_train_step(config, tx))
  before = {n: x.clone() for n, x in model.state_dict().items()}
  used = [p for p in model.parameters() if p.requires_grad]
  adam = torch.optim.Adam(used, lr=config.optim.learning_rate)
  decay = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: 1 - k / 5)
  model.train()
  for _ in range(5):
    state, metrics = step(state, batch)
    adam.zero_grad()
    want = model(reference.tensors(batch))[1]
    want["loss"].backward()
    adam.step()
    decay.step()
    for name, value in want.items():
      assert relative(metrics[name], value.item()) <= 1e-4, name
  model.load_state_dict(before)

"""The assembled model: sizes, equations in their place, invariances."""

import functools
import math
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mner_jax import cli, pretrained
from mner_jax.config import Config, UserError, replace
from mner_jax.data import batches
from mner_jax.models import crf
from mner_jax.models.layers import run_layers
from mner_jax.models.mner import MultimodalNER, losses
from mner_jax.training import step as stepping
from tests.conftest import TEXT_ONLY


def shapes(config):
  """The abstract parameters."""
  batch = batches.empty(config, 1, 8)
  init = MultimodalNER(config).init
  return jax.eval_shape(init, jax.random.key(0), batch)["params"]


@functools.cache
def init(config):
  model = MultimodalNER(config)
  batch = batches.empty(config, 1, 8)
  params = jax.jit(model.init)(jax.random.key(0), batch)["params"]
  # Zero residual scales and CRF scores near 0 would hide mistakes.
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return jax.tree.unflatten(
    tree,
    [
      x + 0.1 * jax.random.normal(k, x.shape)
      for x, k in zip(leaves, keys, strict=True)
    ],
  )


@functools.partial(jax.jit, static_argnums=0)
def apply(config, params, batch):
  return MultimodalNER(config).apply({"params": params}, batch)


@functools.partial(jax.jit, static_argnums=0)
def per_sentence(config, params, batch):
  """Viterbi tags and CRF loss of each row."""
  out = apply(config, params, batch)
  nll = -crf.log_likelihood(
    out.crf, out.emissions, batch["tags"], batch["num_words"]
  )
  tags, _ = crf.viterbi(out.crf, out.emissions, batch["num_words"])
  return nll, tags


def size(tree):
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def test_full_size_model_has_the_published_parameter_counts():
  labels = ("LOC", "MISC", "ORG", "PER")
  config = pretrained.fill_sizes(replace(Config(), {"data.labels": labels}))
  batch = batches.empty(config, 2, 32)
  model = MultimodalNER(config)
  params = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
  assert size(params["text"]) == 177_853_440
  # CLIPVisionModel has 87,456,000; its final norm (2 x 768) is not used.
  assert size(params["vit"]) == 87_456_000 - 1536
  # torchvision: 60,192,808 with the classifier; BatchNorm's scale and bias
  # are two numbers per channel there and here.
  assert size(params["resnet"]) == 60_192_808 - 2_049_000
  out = jax.eval_shape(model.apply, {"params": params}, batch)
  assert out.emissions.shape == (2, 32, 9)
  assert out.text.shape == out.images["vit"].shape == (2, 768)


CONFIGS = sorted(pathlib.Path("mner_jax/configs").glob("[a-z]*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid(path):
  assert cli.load(path)


LONG = pytest.mark.slow
BASELINES = [pytest.param(name, marks=LONG) for name in ("UMT", "MAF")]


@pytest.fixture(scope="module", params=["2M-NER", *BASELINES])
def config(request, tiny, change):
  """The Config of each model that looks at pictures in its own way."""
  if request.param == "2M-NER":
    return tiny
  return change(
    tiny, model__fusion=request.param.lower(), model__vit__enabled=False,
    model__text__num_layers=1, model__resnet__stages=(1,),
    loss__contrastive={"UMT": "none", "MAF": "clip"}[request.param],
  )  # fmt: skip


def test_padding_bucket_and_order_change_nothing(config, random_batch):
  params = init(config)
  batch = random_batch(config, 8, 16)
  nll, tags = per_sentence(config, params, batch)
  order = np.random.default_rng(0).permutation(8)
  longer = batches.empty(config, 8, 32)
  for name, x in batch.items():
    x = x[order]
    if x.ndim == 2:  # [B, T] and [B, W]: garbage in the padding
      longer[name][:] = 3
      longer[name][:, :16] = x
    else:
      longer[name] = x
  other_nll, other_tags = per_sentence(config, params, longer)
  np.testing.assert_allclose(other_nll, nll[order], rtol=2e-5)
  np.testing.assert_array_equal(other_tags[:, :16], tags[order])


def test_padding_rows_change_no_loss_and_no_gradient(config, random_batch):
  params = init(config)
  batch = random_batch(config, 6, 16)
  padded = {
    name: np.concatenate([x, y])
    for (name, x), y in zip(
      batch.items(), batches.empty(config, 2, 16).values(), strict=True
    )
  }

  @jax.jit
  @jax.value_and_grad
  def loss(params, batch):
    return losses(config, apply(config, params, batch), batch)[0]

  value, grads = loss(params, batch)
  other, other_grads = loss(params, padded)
  np.testing.assert_allclose(value, other, rtol=1e-5)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
    grads,
    other_grads,
  )


def test_without_a_picture_its_pixels_do_not_matter(config, random_batch):
  params = init(config)
  batch = random_batch(config)
  batch["has_image"][:4] = False
  first = apply(config, params, batch).emissions
  pixels = {name: 255 - x for name, x in batch.items() if "pixels" in name}
  changed = batch | pixels
  second = apply(config, params, changed).emissions
  np.testing.assert_array_equal(first[:4], second[:4])
  seen = np.abs(first - second).max(axis=(1, 2)) > 1e-4
  np.testing.assert_array_equal(seen, batch["has_image"])


def test_total_loss_is_the_papers(tiny, change, random_batch):
  config = change(tiny, loss__alpha=0.7)
  params, batch = init(config), random_batch(config)
  total, parts = losses(config, apply(config, params, batch), batch)
  aligned = parts["contrastive_vit"] + parts["contrastive_resnet"]
  want = 2 * (0.7 * parts["crf"] + 0.3 * aligned)
  np.testing.assert_allclose(total, want, rtol=1e-6)
  nll, _ = per_sentence(config, params, batch)
  np.testing.assert_allclose(parts["crf"], nll.mean(), rtol=1e-5)


def test_words_are_their_first_pieces(tiny, change, random_batch):
  """Moving a word's first piece index changes its emissions, only its."""
  config = change(tiny, model__vit__enabled=False, model__resnet__enabled=False)
  params, batch = init(config), random_batch(config)
  before = apply(config, params, batch).emissions
  moved = dict(batch, first_piece=batch["first_piece"].copy())
  moved["first_piece"][0, 1] += 1
  after = apply(config, params, moved).emissions
  changed = np.abs(before - after).max(axis=2) > 1e-6
  assert changed[0, 1] and changed.sum() == 1
  released = change(config, model__released=True)
  moved["first_piece"] = batch["first_piece"] + 1
  np.testing.assert_array_equal(
    apply(released, params, moved).emissions, before
  )


class DenseAndDropout(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dropout(0.5, deterministic=False)(nn.Dense(32)(x))


def test_layers_drop_different_units_the_same_in_any_program():
  x = jnp.ones((64, 32))

  keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}

  def run(layer, unroll=1, remat=False):
    return run_layers(layer, 3, x, unroll=unroll, remat=remat)

  @functools.partial(jax.jit, static_argnums=(1, 2))
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params, *program):
    call = nn.apply(run, DenseAndDropout())
    out = call({"params": params}, *program, rngs=keys)
    return jnp.sum(out**2), out

  drawn = jax.jit(nn.init(run, DenseAndDropout()))(keys)["params"]["Dense_0"][
    "kernel"
  ]
  assert drawn.shape == (3, 32, 32) and (drawn[0] != drawn[1]).all()
  kernel = jnp.broadcast_to(jnp.eye(32), drawn.shape)
  params = {"Dense_0": {"kernel": kernel, "bias": jnp.zeros((3, 32))}}
  want = loss(params)
  assert 0.08 < (want[0][1] != 0).mean() < 0.17  # 1 / 8; of one mask, 1 / 2
  for program in ((0, False), (2, True)):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5),
      loss(params, *program),
      want,
    )


def test_frozen_layers_do_not_move_and_the_others_do_as_ever(
  tiny, change, random_batch
):
  fields = {"model.text.num_layers": 3, "model.dropout": 0.0} | TEXT_ONLY
  fields |= {"model.text.dropout": 0.0, "model.text.attention_dropout": 0.0}
  whole = replace(tiny, fields)
  split = change(whole, model__text__frozen_layers=2)
  batch = random_batch(whole)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(0.1, 0.2, x.shape).astype("f4"), shapes(whole)
  )
  layers = params["text"]["layers"]
  lower, upper = (
    jax.tree.map(lambda x, rows=rows: x[rows], layers)
    for rows in (slice(2), slice(2, 3))
  )
  text = params["text"] | {"lower_layers": lower, "layers": upper}
  states = []
  for config, own in ((whole, params), (split, params | {"text": text})):
    tx = stepping.make_optimizer(config.optim, 9)
    trainable, _ = stepping.split_frozen(own, config.optim.frozen)
    key = jax.random.key_data(jax.random.key(0))
    state = stepping.TrainState(
      jnp.zeros((), int), own, tx.init(trainable), key
    )
    states.append(
      jax.jit(stepping.make_train_step(config, tx))(state, batch)[0]
    )
  moments, want = (state.opt_state[0].mu for state in reversed(states))
  assert "lower_layers" not in moments["text"]
  of_upper = jax.tree.map(lambda x: x[2:], want["text"]["layers"])
  want = want | {"text": want["text"] | {"layers": of_upper}}
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    moments,
    want,
  )
  after = states[1].params["text"]
  jax.tree.map(np.testing.assert_array_equal, after["lower_layers"], lower)
  for moved, x in zip(
    *map(jax.tree.leaves, (after["layers"], upper)), strict=True
  ):
    assert (moved != x).any()
  with pytest.raises(UserError, match="frozen_layers must be at most 3"):
    pretrained.fill_sizes(change(whole, model__text__frozen_layers=4))
  with pytest.raises(UserError, match="no parameter's name matches"):
    stepping.check_frozen(params, ("^text/layer_[01]/",))


DECAY = {"kernel", "embedding", "position_embedding", "transitions"}
DO_NOT_DECAY = {"bias", "scale", "class_embedding", "start", "end"}


def test_what_decays(tiny):
  """With a gradient of 0 an update is the decay."""
  decaying = replace(tiny, {"optim.weight_decay": 1.0})
  params = jax.tree.map(lambda x: np.ones((1,) * x.ndim, "f4"), shapes(tiny))
  tx = stepping.make_optimizer(decaying.optim, 9)
  zero = jax.tree.map(np.zeros_like, params)
  updates, _ = jax.jit(tx.update)(zero, tx.init(params), params)
  decayed, still = set(), set()
  for path, x in traverse_util.flatten_dict(updates).items():
    (decayed if x.all() else still).add(path[-1])
  assert (decayed, still) == (DECAY, DO_NOT_DECAY)


@pytest.mark.slow
def test_remat_keeps_less_and_changes_no_gradient(tiny, change, random_batch):
  batch = random_batch(tiny, 16, 32)
  params = init(tiny)

  def loss(config, params):
    out = MultimodalNER(config).apply(
      {"params": params}, batch, deterministic=False,
      rngs={"dropout": jax.random.key(1)},
    )  # fmt: skip
    return losses(config, out, batch)[0]

  def measure(config):
    def backward(params):  # holds what the backward pass needs
      return jax.vjp(functools.partial(loss, config), params)[1]

    kept = sum(
      math.prod(x.shape)
      for x in jax.tree.leaves(jax.eval_shape(backward, params))
    )
    return jax.jit(jax.grad(functools.partial(loss, config)))(params), kept

  plain, kept = measure(tiny)
  again, less = measure(
    change(tiny, model__text__remat=True, model__vit__remat=True)
  )
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  assert less < 0.6 * kept

"""The assembled model: sizes, equations in their place, invariances."""

import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from mner_jax import cli, pretrained
from mner_jax.config import Config, UserError, replace
from mner_jax.data import batches
from mner_jax.models import crf
from mner_jax.models.layers import run_layers
from mner_jax.models.mner import MultimodalNER, losses
from mner_jax.training import step as stepping
from tests import conftest
from tests.conftest import LONG, assert_close, random_state, total_size


@functools.partial(jax.jit, static_argnums=0)
def per_sentence(config, params, batch):
  """CRF loss and Viterbi tags of each row, and the emissions."""
  out = MultimodalNER(config).apply({"params": params}, batch)
  tags, words = batch["tags"], batch["num_words"]
  nll = -crf.log_likelihood(out.crf, out.emissions, tags, words)
  best, _ = crf.viterbi(out.crf, out.emissions, words)
  return nll, best, out.emissions


def test_full_size_model_has_the_published_parameter_counts():
  labels = ("LOC", "MISC", "ORG", "PER")
  config = pretrained.fill_sizes(replace(Config(), {"data.labels": labels}))
  params = conftest.abstract_state(config).params
  assert total_size(params["text"]) == 177_853_440
  # CLIPVisionModel has 87,456,000; its final norm (2 x 768) is not used.
  assert total_size(params["vit"]) == 87_456_000 - 1536
  # torchvision: 60,192,808 with the classifier; BatchNorm's scale and bias
  # are two numbers per channel there and here.
  assert total_size(params["resnet"]) == 60_192_808 - 2_049_000


CONFIGS = sorted(pathlib.Path("mner_jax/configs").glob("[a-z]*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid(path):
  assert cli.load(path)


@pytest.fixture(scope="module", params=["2M-NER", LONG("UMT"), LONG("MAF")])
def config(request, tiny):
  """The Config of each model that looks at pictures in its own way."""
  fields = {"model.text.num_layers": 1, "model.resnet.stages": (1,)}
  if request.param != "2M-NER":
    fields["loss.contrastive"] = {"UMT": "none", "MAF": "clip"}[request.param]
    fields["model.fusion"] = request.param.lower()
    fields["model.vit.enabled"] = False
  return replace(tiny, fields)


def test_padding_bucket_and_order_change_nothing(config, random_batch):
  params = random_state(config).params
  batch = random_batch(config, 8, 16)
  nll, tags, _ = per_sentence(config, params, batch)
  order = np.random.default_rng(0).permutation(8)
  longer = batches.empty(config, 8, 32)
  for name, x in batch.items():
    x = x[order]
    if x.ndim == 2:  # [B, T] and [B, W]: garbage in the padding
      longer[name][:] = 3
      longer[name][:, :16] = x
    else:
      longer[name] = x
  other_nll, other_tags, _ = per_sentence(config, params, longer)
  np.testing.assert_allclose(other_nll, nll[order], rtol=2e-5)
  np.testing.assert_array_equal(other_tags[:, :16], tags[order])


def test_padding_rows_change_no_loss_and_no_gradient(config, random_batch):
  """Nor is there a NaN without any picture."""
  batch = random_batch(config, 8, 16)
  batch["weight"][6:] = 0
  rows = batches.empty(config, 2, 16)
  empty = {k: np.concatenate([x[:6], rows[k]]) for k, x in batch.items()}

  @jax.jit
  @jax.value_and_grad
  def loss(params, batch):
    out = MultimodalNER(config).apply({"params": params}, batch)
    return losses(config, out, batch)[0]

  params = random_state(config).params
  got, want = loss(params, batch), loss(params, empty)
  assert_close(got, want, rtol=1e-4, atol=1e-6)
  blind = batch | {"has_image": np.zeros(8, bool)}  # none to compare or swap
  finite = jax.tree.map(np.isfinite, loss(params, blind))
  assert all(x.all() for x in jax.tree.leaves(finite))


def test_without_a_picture_its_pixels_do_not_matter(config, random_batch):
  params = random_state(config).params
  batch = random_batch(config)
  batch["has_image"][:4] = False
  *_, first = per_sentence(config, params, batch)
  pixels = {name: 255 - x for name, x in batch.items() if "pixels" in name}
  *_, second = per_sentence(config, params, batch | pixels)
  np.testing.assert_array_equal(first[:4], second[:4])
  seen = np.abs(first - second).max(axis=(1, 2)) > 1e-4
  np.testing.assert_array_equal(seen, batch["has_image"])


class DenseAndDropout(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dropout(0.5, deterministic=False)(nn.Dense(32)(x))


def test_layers_drop_different_units_the_same_in_any_program():
  keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}

  def run(layer, unroll=1, remat=False):
    return run_layers(layer, 3, jnp.ones((64, 32)), unroll=unroll, remat=remat)

  @functools.partial(jax.jit, static_argnums=(1, 2))
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params, *program):
    call = nn.apply(run, DenseAndDropout())
    out = call({"params": params}, *program, rngs=keys)
    return jnp.sum(out**2), out

  made = jax.jit(nn.init(run, DenseAndDropout()))(keys)["params"]
  drawn = made["Dense_0"]["kernel"]
  assert drawn.shape == (3, 32, 32) and (drawn[0] != drawn[1]).all()
  kernel = jnp.broadcast_to(jnp.eye(32), drawn.shape)
  params = {"Dense_0": {"kernel": kernel, "bias": jnp.zeros((3, 32))}}
  want = loss(params)
  assert 0.08 < (want[0][1] != 0).mean() < 0.17  # 1 / 8; of one mask, 1 / 2
  for program in ((0, False), (2, True)):
    assert_close(loss(params, *program), want, rtol=1e-5)


def test_frozen_layers_stay_and_the_others_move_as_ever(tiny, random_batch):
  whole = replace(tiny, {"model.text.num_layers": 3} | conftest.PLAIN_TEXT)
  split = replace(whole, {"model.text.frozen_layers": 2})
  batch = random_batch(whole)
  params = random_state(whole).params
  layers = params["text"]["layers"]
  lower = jax.tree.map(lambda x: x[:2], layers)
  upper = jax.tree.map(lambda x: x[2:], layers)
  text = params["text"] | {"lower_layers": lower, "layers": upper}
  states = []
  for config, own in ((whole, params), (split, params | {"text": text})):
    tx = stepping.make_optimizer(config.optim, 9)
    step = jax.jit(stepping.make_train_step(config, tx))
    start = random_state(config)._replace(params=own)
    states.append(step(start, batch)[0])
  moments, want = (state.opt_state[0].mu for state in reversed(states))
  assert "lower_layers" not in moments["text"]
  of_upper = jax.tree.map(lambda x: x[2:], want["text"]["layers"])
  want = want | {"text": want["text"] | {"layers": of_upper}}
  assert_close(moments, want, rtol=1e-4, atol=1e-6)
  after = states[1].params["text"]
  jax.tree.map(np.testing.assert_array_equal, after["lower_layers"], lower)
  moved = jax.tree.map(lambda x, y: (x != y).any(), after["layers"], upper)
  assert all(jax.tree.leaves(moved))
  with pytest.raises(UserError, match="frozen_layers must be at most 3"):
    pretrained.fill_sizes(replace(whole, {"model.text.frozen_layers": 4}))
  with pytest.raises(UserError, match="no parameter's name matches"):
    stepping.check_frozen(params, ("^text/layer_[01]/",))


def test_a_long_gradient_is_clipped_as_optax_does(tiny, random_batch):
  config, batch = replace(tiny, conftest.PLAIN_TEXT), random_batch(tiny)
  start = random_state(config)
  tx = stepping.make_optimizer(config.optim, 9)

  def update(limit):
    clipped = replace(config, {"optim.clip_norm": limit})
    step = jax.jit(stepping.make_train_step(clipped, tx))
    state, metrics = step(start, batch)
    return state.opt_state[0].mu, float(metrics["grad_norm"])

  moments, norm = update(0.0)  # a tenth of the gradient
  for limit in (norm / 3, 3 * norm):
    clip = optax.clip_by_global_norm(limit / 10)
    want, _ = clip.update(moments, optax.EmptyState())
    got, reported = update(limit)
    assert_close(got, want, rtol=1e-5, atol=1e-9)
    assert reported == pytest.approx(norm)


DECAY = {"kernel", "embedding", "position_embedding", "transitions"}
DO_NOT_DECAY = {"bias", "scale", "class_embedding", "start", "end"}


def test_what_decays(tiny):
  """With a gradient of 0 an update is the decay."""
  decaying = replace(tiny, {"optim.weight_decay": 1.0})
  shapes = conftest.abstract_state(tiny).params
  params = jax.tree.map(lambda x: np.ones((1,) * x.ndim, "f4"), shapes)
  tx = stepping.make_optimizer(decaying.optim, 9)
  zero = jax.tree.map(np.zeros_like, params)
  updates, _ = jax.jit(tx.update)(zero, tx.init(params), params)
  decayed, still = set(), set()
  for path, x in traverse_util.flatten_dict(updates).items():
    (decayed if x.all() else still).add(path[-1])
  assert (decayed, still) == (DECAY, DO_NOT_DECAY)


def test_what_the_backward_pass_keeps_of_a_layer(tiny, random_batch):
  """Its input and products: 7 [B, T, D], one [B, T, I], one [B, N, T, T]."""
  batch = random_batch(tiny, 16, 32)
  options = {"deterministic": False, "rngs": {"dropout": jax.random.key(1)}}

  def kept(num_layers, remat):
    fields = {"model.text.num_layers": num_layers, "model.text.remat": remat}
    config = replace(tiny, fields)

    def loss(params):
      out = MultimodalNER(config).apply({"params": params}, batch, **options)
      return losses(config, out, batch)[0]

    params = conftest.abstract_state(config).params
    saved = jax.eval_shape(lambda p: jax.vjp(loss, p)[1], params)
    return total_size(saved) - total_size(params)

  text = tiny.model.text
  width, rows = text.hidden_size, 16 * 32
  products = 7 * width + text.intermediate_size + text.num_heads * 32
  for remat, most in ((False, products), (True, width)):
    assert kept(5, remat) - kept(4, remat) <= rows * most

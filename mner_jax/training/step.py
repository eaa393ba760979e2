"""The train state and one update of it: pure functions of a config.

Checkpoint k is the state after k updates; every random choice of update k is
drawn from (the state's key, k).
"""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from mner_jax import sharding
from mner_jax.config import OptimConfig, UserError
from mner_jax.data import batches
from mner_jax.models.mner import MultimodalNER, losses


class TrainState(NamedTuple):
  """Everything that a checkpoint holds."""

  step: jax.Array  # updates so far
  params: Any
  opt_state: Any  # of the trainable parameters only
  rng: jax.Array  # key data; step k uses fold_in(rng, k)


# See `TextConfig.frozen_layers`.
_FROZEN_LAYERS = r"^text/lower_layers/"
# What decays: not biases and norms, which are matrices in stacked layers.
_DECAYED = r"(^|/)(kernel|embedding|position_embedding|recurrent|transitions)$"
# Options of XLA. On several GPUs gradients are to be sent while others are
# computed, as in NVIDIA's images for JAX; not measured here.
COMPILER_OPTIONS = {"gpu": {"xla_gpu_enable_latency_hiding_scheduler": True}}


def split_frozen(params, patterns):
  """Splits parameters into (trainable, frozen), by regexes over their paths.

  The text encoder's `lower_layers` are always frozen.
  """
  parts = {}, {}
  patterns = (*patterns, _FROZEN_LAYERS)
  for path, x in traverse_util.flatten_dict(params, sep="/").items():
    is_frozen = any(re.search(pattern, path) for pattern in patterns)
    parts[is_frozen][path] = x
  return tuple(traverse_util.unflatten_dict(part, sep="/") for part in parts)


def check_frozen(params, patterns):
  """Returns the modules of which parameters are frozen.

  Raises a UserError if a pattern matches no name, or nothing is left to train.
  """
  paths = traverse_util.flatten_dict(params, sep="/")
  # The default pattern names the ResNet, which not every model has.
  for pattern in set(patterns) - set(OptimConfig().frozen):
    if not any(re.search(pattern, path) for path in paths):
      raise UserError(
        f"optim.frozen: no parameter's name matches {pattern!r}; the lowest"
        " layers of the text encoder are model.text.frozen_layers"
      )
  trainable, frozen = split_frozen(params, patterns)
  if not trainable:
    raise UserError("optim.frozen: nothing is left to train")
  return frozen.keys()


def merge(trainable, frozen):
  """Joins the parameters that `split_frozen` split."""
  flat = traverse_util.flatten_dict
  return traverse_util.unflatten_dict(flat(trainable) | flat(frozen))


def make_optimizer(config, total_steps):
  """Returns Adam, or AdamW where there is weight decay, of an OptimConfig.

  The learning rate rises linearly, then falls linearly to 0 at the end. What
  decays is named by _DECAYED: no bias and no norm, as in BERT's own optimizer.
  """
  peak = config.learning_rate
  warmup = config.warmup_steps or round(config.warmup_share * total_steps)
  rise = optax.linear_schedule(0.0, peak, warmup)
  fall = optax.linear_schedule(peak, 0.0, total_steps - warmup)

  def decays(path, _):
    return bool(re.search(_DECAYED, sharding.path_name(path)))

  return optax.adamw(
    optax.join_schedules([rise, fall], [warmup]),
    weight_decay=config.weight_decay,
    mask=functools.partial(jax.tree_util.tree_map_with_path, decays),
  )


def make_train_step(config, tx, mesh=None):
  """Returns the pure function (state, batch) -> (state, metrics)."""
  model = MultimodalNER(config)
  split = sharding.over_rows(mesh)

  def train_step(state, batch):
    """State after k updates, batch k -> state after k + 1, metrics of k.

    A gradient longer than `optim.clip_norm` is scaled to it; `grad_norm` is its
    length before. A loss or gradient that is not finite updates nothing but the
    step: the optimizer's own count, and so the learning rate, stays behind by
    one.
    """
    key = jax.random.wrap_key_data(state.rng)
    key = jax.random.fold_in(key, state.step)
    trainable, frozen = split_frozen(state.params, config.optim.frozen)

    def loss_fn(trainable, batch, key):
      params = sharding.gather_fsdp(merge(trainable, frozen), mesh)
      output = model.apply(
        {"params": params}, batch, deterministic=False, rngs={"dropout": key}
      )
      return losses(config, output, batch, split)

    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    if config.train.accumulate > 1:
      gradient = accumulate(gradient, config.train.accumulate)
    (loss, parts), grads = gradient(trainable, batch, key)
    grad_norm = optax.tree.norm(grads)
    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    finite = {k: jnp.isfinite(optax.tree.norm(x)) for k, x in grads.items()}
    if config.optim.clip_norm:
      scale = jnp.minimum(1, config.optim.clip_norm / grad_norm)
      grads = jax.tree.map(lambda x: scale * x, grads)
    updates, opt_state = tx.update(grads, state.opt_state, trainable)
    updated = optax.apply_updates(trainable, updates)
    # XLA does this in the loops over memory that compute the update anyway.
    trainable, opt_state = optax.tree.where(
      good, (updated, opt_state), (trainable, state.opt_state)
    )
    metrics = {"loss": loss, **parts, "grad_norm": grad_norm, "finite": finite}
    params = merge(trainable, frozen)
    return TrainState(state.step + 1, params, opt_state, state.rng), metrics

  return train_step


def jit_train_step(config, tx, mesh, state_sharding):
  """Returns the compiled train step of a mesh; it donates its state."""
  platform = mesh.devices.flat[0].platform
  return jax.jit(
    make_train_step(config, tx, mesh),
    in_shardings=(state_sharding, sharding.batch_sharding(mesh)),
    out_shardings=(state_sharding, sharding.replicated(mesh)),
    donate_argnums=0,
    compiler_options=COMPILER_OPTIONS.get(platform),
  )


def accumulate(gradient, parts):
  """Returns the mean of `gradient` over the parts of a batch, in turns.

  Each part counts by its sentences, so that the CRF's loss and gradient are
  those of the whole batch. The contrastive loss is not: its negatives are
  those of a part. Only one part at a time needs memory.

  Args:
    gradient: function (params, batch, key) -> tree of means over the batch.
    parts: how many; the rows of a batch are a multiple of it.
  """

  def split(x):
    # Every part takes rows of every device, so that no row moves.
    return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

  def accumulated(params, batch, key):
    micro = jax.tree.map(split, batch)  # [parts, B / parts, ...]
    keys = jax.random.split(key, parts)
    total = jnp.maximum(jnp.sum(batch["weight"]), 1)

    def add(mean, inputs):
      part, key = inputs
      share = jnp.sum(part["weight"]) / total
      found = gradient(params, part, key)
      return jax.tree.map(lambda m, x: m + share * x, mean, found), None

    first = jax.tree.map(lambda x: x[0], micro)
    shapes = jax.eval_shape(gradient, params, first, keys[0])
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zero, (micro, keys))[0]

  return accumulated


def make_init(config, tx):
  """Returns the pure function key data -> TrainState, from scratch."""
  model = MultimodalNER(config)

  def init(rng):
    example = batches.empty(config, 1, config.data.buckets[0])
    params_key, key = jax.random.split(jax.random.wrap_key_data(rng))
    params = model.init(params_key, example)["params"]
    trainable, _ = split_frozen(params, config.optim.frozen)
    step = jnp.zeros((), jnp.int32)
    return TrainState(
      step, params, tx.init(trainable), jax.random.key_data(key)
    )

  return init


def init_around(init, known, state_sharding, rng):
  """Returns the initial state, with some parameters `known` already.

  These are not drawn at all, as memory would hold two copies of them.
  """
  paths = traverse_util.flatten_dict(known).keys()

  def unknown(tree):
    params = traverse_util.flatten_dict(tree.params)
    rest = {path: x for path, x in params.items() if path not in paths}
    return tree._replace(params=traverse_util.unflatten_dict(rest))

  draw = jax.jit(
    lambda rng: unknown(init(rng)), out_shardings=unknown(state_sharding)
  )
  state = draw(rng)
  return state._replace(params=merge(state.params, known))

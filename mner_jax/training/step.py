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
from mner_jax.data import batches
from mner_jax.models.mner import MultimodalNER, losses
from mner_jax.training import finite


class TrainState(NamedTuple):
  """All that a checkpoint holds."""

  step: jax.Array  # updates so far
  params: Any
  opt_state: Any  # of the trainable parameters only
  rng: jax.Array  # key data; step k uses fold_in(rng, k)


def split_frozen(params, patterns):
  """(trainable, frozen) parameters, by regexes searched in their paths."""
  trainable, frozen = {}, {}
  for path, x in traverse_util.flatten_dict(params, sep="/").items():
    is_frozen = any(re.search(pattern, path) for pattern in patterns)
    (frozen if is_frozen else trainable)[path] = x
  return (
    traverse_util.unflatten_dict(trainable, sep="/"),
    traverse_util.unflatten_dict(frozen, sep="/"),
  )


def merge(*trees):
  """The parameters that `split_frozen` took apart."""
  flat = {}
  for tree in trees:
    flat |= traverse_util.flatten_dict(tree, sep="/")
  return traverse_util.unflatten_dict(flat, sep="/")


def make_schedule(config, total_steps):
  """Learning rate: linear warm-up, then linear decay to 0 at the end."""
  warmup = config.warmup_steps or round(config.warmup_share * total_steps)
  return optax.join_schedules(
    [
      optax.linear_schedule(0.0, config.learning_rate, warmup),
      optax.linear_schedule(config.learning_rate, 0.0, total_steps - warmup),
    ],
    [warmup],
  )


def make_optimizer(config, total_steps):
  """Adam (AdamW with a weight decay) on that schedule.

  Biases and norms do not decay, as in BERT's own optimiser.
  """
  return optax.adamw(
    make_schedule(config, total_steps),
    weight_decay=config.weight_decay,
    mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
  )


def make_train_step(config, tx, mesh=None):
  """The pure function (state, batch) -> (state, metrics) of a config."""
  model = MultimodalNER(config)
  gather = sharding.gather_rows(mesh)

  def train_step(state, batch):
    """State after k updates, batch k -> state after k + 1, metrics of k.

    A loss or gradient that is not finite updates nothing but the step.
    """
    key = jax.random.wrap_key_data(state.rng)
    key = jax.random.fold_in(key, state.step)
    trainable, frozen = split_frozen(state.params, config.optim.frozen)

    def loss_fn(trainable, batch, key):
      params = sharding.gather_fsdp(merge(trainable, frozen), mesh)
      variables = {"params": params}
      output = model.apply(
        variables, batch, deterministic=False, rngs={"dropout": key}
      )
      return losses(config, output, batch, gather)

    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    if config.train.accumulate == 1:
      (loss, parts), grads = gradient(trainable, batch, key)
    else:
      (loss, parts), grads = accumulate(
        functools.partial(gradient, trainable), batch, key,
        config.train.accumulate,
      )  # fmt: skip
    updates, opt_state = tx.update(grads, state.opt_state, trainable)
    updated = optax.apply_updates(trainable, updates)
    grad_norm = optax.tree.norm(grads)
    trainable, opt_state = finite.keep(
      jnp.isfinite(loss) & jnp.isfinite(grad_norm),
      (updated, opt_state),
      (trainable, state.opt_state),
    )
    metrics = {"loss": loss, **parts, "grad_norm": grad_norm}
    metrics["finite"] = finite.groups(grads)
    params = merge(trainable, frozen)
    return TrainState(state.step + 1, params, opt_state, state.rng), metrics

  return train_step


def jit_train_step(config, tx, mesh, state_sharding):
  """The jitted train step on a mesh; the state it is given is donated."""
  return jax.jit(
    make_train_step(config, tx, mesh),
    in_shardings=(state_sharding, sharding.batch_sharding(mesh)),
    out_shardings=(state_sharding, sharding.replicated(mesh)),
    donate_argnums=0,
  )


def accumulate(gradient, batch, key, parts):
  """The mean of `gradient` over the parts of a batch, one after the other.

  Each part counts by its sentences, so that the CRF's loss and gradient are
  those of the whole batch. The contrastive loss is not: its negatives are
  those of a part.

  Args:
    gradient: function (batch, key) -> tree of means over the batch.
    batch: {name: [B, ...]}; B is a multiple of `parts`.
    key: of the step's dropout.
    parts: micro-batches; only one at a time needs memory.
  """

  def split(x):
    # Every part takes rows of every device, so that no row moves.
    return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

  micro = jax.tree.map(split, batch)  # [parts, B / parts, ...]
  keys = jax.random.split(key, parts)
  total = jnp.maximum(jnp.sum(batch["weight"]), 1)

  def add(mean, inputs):
    part, key = inputs
    share = jnp.sum(part["weight"]) / total
    return jax.tree.map(
      lambda m, x: m + share * x, mean, gradient(part, key)
    ), None

  first = jax.tree.map(lambda x: x[0], micro)
  zero = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype),
    jax.eval_shape(gradient, first, keys[0]),
  )
  return jax.lax.scan(add, zero, (micro, keys))[0]


def make_init(config, tx):
  """The pure function key data -> TrainState of a config, from scratch."""
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
  """The initial state in which some modules' parameters are already `known`.

  These are not drawn at all: for a while there would be two copies of them.
  """

  def drawn(tree):
    return {name: x for name, x in tree.items() if name not in known}

  def init_rest(rng):
    state = init(rng)
    return state._replace(params=drawn(state.params))

  out = state_sharding._replace(params=drawn(state_sharding.params))
  state = jax.jit(init_rest, out_shardings=out)(rng)
  return state._replace(params=state.params | known)

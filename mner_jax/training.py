"""Training: the state, one step, the one loop.

Checkpoint k is the state after k updates, and the next batch is batch k.
Every random choice of step k is drawn from (the state's key, k) or from
(the seed, k): a run that was stopped and started again computes the same
bytes as one that was not.
"""

import contextlib
import functools
import re
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import traverse_util

from mner_jax import (
  checkpoint,
  evaluation,
  files,
  finite,
  hub,
  pretrained,
  sharding,
  stopping,
)
from mner_jax.config import UserError
from mner_jax.data import batches, builders, dataset, wordpiece
from mner_jax.models.mner import MultimodalNER, losses
from mner_jax.progress import Log


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
  warmup = config.warmup_steps
  return optax.join_schedules(
    [
      optax.linear_schedule(0.0, config.learning_rate, warmup),
      optax.linear_schedule(config.learning_rate, 0.0, total_steps - warmup),
    ],
    [warmup],
  )


def make_optimizer(config, total_steps):
  """Adam (AdamW with a weight decay) on that schedule."""
  return optax.adamw(
    make_schedule(config, total_steps), weight_decay=config.weight_decay
  )


def make_train_step(config, tx, mesh=None):
  """The pure function (state, batch) -> (state, metrics) of a config."""
  model = MultimodalNER(config)
  replicate = sharding.replicate(mesh)

  def train_step(state, batch):
    """State after k updates, batch k -> state after k + 1, metrics of k.

    A loss or gradient that is not finite updates nothing but the step.
    """
    key = jax.random.wrap_key_data(state.rng)
    key = jax.random.fold_in(key, state.step)
    trainable, frozen = split_frozen(state.params, config.optim.frozen)

    def loss_fn(trainable, batch, key):
      variables = {"params": merge(trainable, frozen)}
      output = model.apply(
        variables, batch, deterministic=False, rngs={"dropout": key}
      )
      return losses(config, output, batch, replicate)

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


def prepare(config, workdir):
  """Data and tokenizer of a run; the config with what they settle.

  Returns:
    (config with labels and vocabulary size filled in, {split: Examples}).
  """
  data = config.data
  splits = builders.load(data, ("train", "valid"), data.languages)
  # The labels are those of all splits; a type only test has is scored too.
  test_languages = data.eval_languages or data.languages
  splits |= builders.load(data, ("test",), test_languages)
  labels = dataset.labels(splits.values(), data.labels)
  folder = workdir / "tokenizer"
  known = (folder / "tokenizer.json").exists()
  if known:
    tokenizer = wordpiece.load(folder)
  elif config.init_from:
    tokenizer = wordpiece.load(epath.Path(config.init_from) / "tokenizer")
  elif config.model.text.weights:
    tokenizer = wordpiece.published(hub.folder(config.model.text.weights))
  else:
    tokenizer = wordpiece.bert_tokenizer(
      wordpiece.count_vocabulary(
        splits["train"].sentences, config.model.text.vocab_size
      )
    )
  fingerprint = dataset.fingerprint([splits["train"], splits["valid"]])
  config = pretrained.resolve(config).resolve(
    labels, fingerprint, tokenizer.get_vocab_size()
  )
  checkpoint.claim_workdir(workdir, config)
  if not known and jax.process_index() == 0:
    wordpiece.save(tokenizer, folder)
  examples = {
    name: batches.Examples(split, tokenizer, config)
    for name, split in splits.items()
  }
  return config, examples


def train(config, workdir, stop_at=None):
  """Trains to the end (or to `stop_at` updates), going on where it stood.

  Args:
    config: the experiment.
    workdir: folder for config, tokenizer, logs and checkpoints.
    stop_at: updates after which to save and leave.

  Returns:
    The resolved config, for the evaluation of the run; None if it stopped
    before the end. A signal to stop ends the process: EXIT_STOPPED.
  """
  workdir = epath.Path(workdir)
  with contextlib.ExitStack() as stack:
    if jax.process_index() == 0:
      stack.enter_context(files.lock(workdir))
    stop = stack.enter_context(stopping.StopSignal(config.train.log_every))
    config, last_step, total_steps = _run(config, workdir, stop_at, stop)
  return config if last_step == total_steps else None


def _run(config, workdir, stop_at, stop):
  """See `train`; returns (resolved config, last step, total steps)."""
  # Mesh and data.
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_batch_size(config.train.batch_size, mesh)
  sharding.check_batch_size(
    config.train.batch_size // config.train.accumulate, mesh
  )
  config, examples = prepare(config, workdir)
  process = (jax.process_index(), jax.process_count())
  plan = examples["train"].plan(seed=config.seed)
  total_steps = config.train.epochs * plan.steps_per_epoch
  if config.optim.warmup_steps > total_steps:
    raise UserError(
      f"config: optim.warmup_steps {config.optim.warmup_steps} is above the"
      f" {total_steps} steps of the run"
    )
  eval_every = config.train.eval_every or plan.steps_per_epoch
  checkpoint_every = config.train.checkpoint_every or eval_every
  evaluator = evaluation.Evaluator(config, mesh)

  # State: abstract -> shardings -> initialised or restored.
  tx = make_optimizer(config.optim, total_steps)
  init = make_init(config, tx)
  seed_key = jax.random.key_data(jax.random.key(config.seed))
  abstract = jax.eval_shape(init, seed_key)
  state_sharding = sharding.shardings(abstract, mesh)
  train_step = jax.jit(
    make_train_step(config, tx, mesh),
    in_shardings=(state_sharding, sharding.batch_sharding(mesh)),
    out_shardings=(state_sharding, sharding.replicated(mesh)),
    donate_argnums=0,
  )
  placed = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    abstract,
    state_sharding,
  )
  # Own latest checkpoint > init_from > published weights > from scratch.
  first_step = checkpoint.latest_step(workdir)
  if first_step is not None:
    state = checkpoint.restore(workdir, first_step, placed)
    scored = checkpoint.score(workdir, first_step) is not None
  else:
    first_step, scored = 0, False
    if config.init_from:
      known = checkpoint.initial_params(config, placed.params)
    else:
      known = pretrained.load(config, placed.params)
    state = init_around(init, known, state_sharding, seed_key)
  last_step = total_steps if stop_at is None else min(stop_at, total_steps)
  log = Log(workdir, config, examples, plan, (first_step, total_steps), scored)
  log.start(examples, abstract.params)

  def evaluate(step):
    """Dev F1 of the state; raises `Stopped` if that is asked for meanwhile."""
    scores = {}
    for split in ("valid", "test") if config.train.score_test else ("valid",):
      scores[split] = evaluator.score(
        state.params, examples[split], before_batch=stop.check
      )["f1"]
    log.evaluation(step, scores)
    return scores["valid"]

  # The loop: the state after `step` updates is evaluated and saved, then
  # batch `step` makes one more. A run goes on at the top of it.
  loader = batches.load(
    examples["train"], plan, (first_step, last_step), process=process
  )
  for step in range(first_step, max(first_step, last_step) + 1):
    new = step > first_step
    f1, stopped = None, False
    due = step > 0 and (step % eval_every == 0 or step == total_steps)
    if due and (new or not scored):
      with log.pause():
        try:
          f1 = evaluate(step)
          if not new:
            checkpoint.add_score(workdir, step, f1)
        except stopping.Stopped:
          stopped = True
    stopped = stopped or stop.agreed(step)
    ending = stopped or step >= last_step
    if new and (due or ending or step % checkpoint_every == 0):
      with log.pause():
        checkpoint.save(workdir, step, state, f1)
    if ending:
      break
    with log.waiting():
      batch = next(loader)
    state, metrics = train_step(state, sharding.put_batch(batch, mesh))
    # The device works on this step while the one before is written.
    log.step(step + 1, metrics)
  log.close()
  if stopped:
    print(f"stopped at step {step}; the same command goes on")
    sys.exit(stopping.EXIT_STOPPED)
  return config, step, total_steps

"""Training: the state, one step, the one loop.

Checkpoint k is the state after k updates, and the next batch is batch k.
Every random choice of step k is drawn from (the state's key, k) or from
(the seed, k): a run that was stopped and started again computes the same
bytes as one that was not.
"""

import re
import signal
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import traverse_util

from mner_jax import checkpoint, evaluation, hub, pretrained, sharding
from mner_jax.config import UserError
from mner_jax.data import batches, builders, dataset, wordpiece
from mner_jax.models.mner import MultimodalNER, losses
from mner_jax.progress import Log

# "Temporary failure, try again": stopped by a signal, everything is saved.
EXIT_STOPPED = 75


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
    """State after k updates, batch k -> state after k + 1, metrics of k."""
    key = jax.random.wrap_key_data(state.rng)
    rngs = {"dropout": jax.random.fold_in(key, state.step)}
    trainable, frozen = split_frozen(state.params, config.optim.frozen)

    def loss_fn(trainable):
      variables = {"params": merge(trainable, frozen)}
      output = model.apply(variables, batch, deterministic=False, rngs=rngs)
      return losses(config, output, batch, replicate)

    (loss, parts), grads = jax.value_and_grad(loss_fn, has_aux=True)(trainable)
    updates, opt_state = tx.update(grads, state.opt_state, trainable)
    trainable = optax.apply_updates(trainable, updates)
    metrics = {"loss": loss, **parts, "grad_norm": optax.tree.norm(grads)}
    params = merge(trainable, frozen)
    return TrainState(state.step + 1, params, opt_state, state.rng), metrics

  return train_step


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
    before the end.
  """
  workdir = epath.Path(workdir)
  stop = _StopSignal()

  # Mesh and data.
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_batch_size(config.train.batch_size, mesh)
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
  with checkpoint.open_checkpoints(workdir, writer=True) as checkpoints:
    # Own latest checkpoint > init_from > published weights > from scratch.
    first_step = checkpoint.latest_step(checkpoints)
    if first_step is not None:
      state = checkpoint.restore(checkpoints, first_step, placed)
    else:
      first_step = 0
      if config.init_from:
        known = checkpoint.initial_params(config, placed.params)
      else:
        known = pretrained.load(config, placed.params)
      state = init_around(init, known, state_sharding, seed_key)
    last_step = total_steps if stop_at is None else min(stop_at, total_steps)
    log = Log(workdir, config, plan, first_step, total_steps)
    log.start(examples, abstract.params)

    # The loop. Step k of it turns the state after k updates into k + 1.
    loader = batches.load(
      examples["train"], plan, (first_step, last_step), process=process
    )
    if stop.requested:  # while compiling or reading: nothing new to save
      last_step = first_step
    for step in range(first_step, last_step):
      with log.waiting():
        batch = next(loader)
      state, metrics = train_step(state, sharding.put_batch(batch, mesh))
      # The device works on this step while the one before is written.
      log.step(step + 1, metrics)
      done = step + 1
      f1 = None
      if done % eval_every == 0 or done == total_steps:
        with log.pause():
          f1 = evaluator.score(state.params, examples["valid"])["f1"]
          test_f1 = None
          if config.train.score_test:
            test_f1 = evaluator.score(state.params, examples["test"])["f1"]
          log.evaluation(done, f1, test_f1)
      stopping = done == last_step or stop.requested
      if f1 is not None or stopping or done % checkpoint_every == 0:
        with log.pause():
          checkpoint.save(checkpoints, done, state, f1)
      if stop.requested:
        last_step = done
        break
    log.close()
  if stop.requested:
    print(f"stopped at step {last_step}; the same command goes on")
    sys.exit(EXIT_STOPPED)
  stop.restore()
  return config if last_step == total_steps else None


class _StopSignal:
  """SIGTERM and Ctrl-C ask for a stop; a second one ends at once."""

  def __init__(self):
    self.requested = False
    self._before = {
      number: signal.signal(number, self._handle)
      for number in (signal.SIGTERM, signal.SIGINT)
    }

  def restore(self):
    """Gives the signals back to who had them before."""
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _handle(self, number, frame):
    self.requested = True
    signal.signal(number, signal.SIG_DFL)

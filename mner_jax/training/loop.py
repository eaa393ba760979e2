"""Training: the one loop over the steps of `stepping`.

Checkpoint k is the state after k updates, and the next batch is batch k.
Every random choice of step k is drawn from (the state's key, k) or from
(the seed, k): a run that was stopped and started again computes the same
bytes as one that was not.
"""

import contextlib
import sys

import jax
from etils import epath

from mner_jax import checkpoint, pretrained, sharding
from mner_jax.config import UserError, replace
from mner_jax.data import batches, builders, dataset, hub, wordpiece
from mner_jax.evaluation import evaluate as evaluation
from mner_jax.training import step as stepping
from mner_jax.training import stopping
from mner_jax.training.log import Log


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
  config = pretrained.fill_sizes(config)
  config = settle(config, labels, fingerprint, tokenizer.get_vocab_size())
  checkpoint.claim_workdir(workdir, config)
  if not known and jax.process_index() == 0:
    wordpiece.save(tokenizer, folder)
  examples = {
    name: batches.Examples(split, tokenizer, config)
    for name, split in splits.items()
  }
  return config, examples


def settle(config, labels, fingerprint, num_pieces):
  """Returns `config` with what the data and the tokenizer settle filled in."""
  text = config.model.text
  rows = text.vocab_size if text.weights else num_pieces
  if num_pieces > rows:
    raise UserError(
      f"model.text.weights: the tokenizer of {text.weights} has {num_pieces}"
      f" pieces, more than the {rows} of the weights"
    )
  return replace(
    config,
    {
      "data.labels": labels,
      "data.fingerprint": fingerprint,
      "model.text.vocab_size": rows + -rows % text.vocab_multiple,
    },
  )


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
      stack.enter_context(checkpoint.lock(workdir))
    stop = stack.enter_context(stopping.StopSignal(config.train.log_every))
    config, last_step, total_steps = _run(config, workdir, stop_at, stop, stack)
  return config if last_step == total_steps else None


def _run(config, workdir, stop_at, stop, stack):
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
  tx = stepping.make_optimizer(config.optim, total_steps)
  init = stepping.make_init(config, tx)
  seed_key = jax.random.key_data(jax.random.key(config.seed))
  abstract = jax.eval_shape(init, seed_key)
  state_sharding = sharding.shardings(abstract, mesh)
  train_step = jax.jit(
    stepping.make_train_step(config, tx, mesh),
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
    state = stepping.init_around(init, known, state_sharding, seed_key)
  saver = checkpoint.Saver(workdir)
  stack.callback(saver.close)
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
    if step % config.train.log_every == 0:
      saver.seal(wait=False)
    ending = stopped or step >= last_step
    if new and (due or ending or step % checkpoint_every == 0):
      with log.pause():
        saver.save(step, state, f1)
    if ending:
      break
    with log.waiting():
      batch = next(loader)
    state, metrics = train_step(state, sharding.put_batch(batch, mesh))
    # The device works on this step while the one before is written.
    log.step(step + 1, metrics)
  saver.seal()
  log.close()
  if stopped:
    print(f"stopped at step {step}; the same command goes on")
    sys.exit(stopping.EXIT_STOPPED)
  return config, step, total_steps

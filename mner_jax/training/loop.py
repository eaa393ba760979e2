"""Training: the one loop.

Checkpoint k is the state after k updates, and the next batch is batch k.
Every random choice of step k is drawn from (the state's key, k) or from
(the seed, k): a run that was stopped and started again goes on as if it had
not been, on CPUs to the byte.
"""

import contextlib

import jax
from etils import epath

from mner_jax import checkpoint, pretrained, sharding
from mner_jax.cli import Stopped
from mner_jax.config import UserError, replace, to_json
from mner_jax.data import batches, builders, dataset, files, hub, wordpiece
from mner_jax.evaluation.evaluate import Evaluator
from mner_jax.training import compiling, stopping
from mner_jax.training import step as stepping
from mner_jax.training.log import Log


def prepare(config, workdir):
  """Reads data and tokenizer; a UserError if the workdir is another run's.

  Returns:
    (config with labels and vocabulary size filled in, tokenizer,
    {split: Examples}).
  """
  data, text = builders.inputs(config), config.model.text
  # The labels are those of all splits; a type only test has is scored too.
  splits = builders.load(data)
  if config.loss.alpha and not dataset.labels([splits["train"]]):
    raise UserError("data: no entity is left in train; set loss.alpha=0")
  folder = workdir / "tokenizer"
  if (folder / "tokenizer.json").exists():
    tokenizer = wordpiece.load(folder)
  elif config.init_from:
    tokenizer = wordpiece.load(epath.Path(config.init_from) / "tokenizer")
  elif text.weights:
    tokenizer = wordpiece.published(hub.folder(text.weights))
  else:
    sentences = splits["train"].sentences
    counted = wordpiece.count_vocabulary(sentences, text.vocab_size)
    tokenizer = wordpiece.bert_tokenizer(counted)
  config = settle(
    pretrained.fill_sizes(config),
    dataset.labels(splits.values(), data.labels),
    dataset.fingerprint([splits["train"], splits["valid"]]),
    tokenizer.get_vocab_size(),
  )
  checkpoint.check_workdir(workdir, config)
  examples = {
    name: batches.Examples(split, tokenizer, config)
    for name, split in splits.items()
  }
  return config, tokenizer, examples


def settle(config, labels, fingerprint, num_pieces):
  """Returns `config` with what the data and the tokenizer settle filled in."""
  text = config.model.text
  rows = text.vocab_size if text.weights else num_pieces
  if num_pieces > rows:
    raise UserError(
      f"model.text.weights: the tokenizer of {text.weights} has {num_pieces}"
      f" pieces, more than the {rows} of the weights"
    )
  fields = {
    "data.labels": labels,
    "data.fingerprint": fingerprint,
    "model.text.vocab_size": rows + -rows % text.vocab_multiple,
  }
  return replace(config, fields)


def train(config, workdir, stop_at=None, profile=(0, 0)):
  """Trains to the end (or to `stop_at` updates), resuming where it stopped.

  Args:
    config: the experiment.
    workdir: folder for config, tokenizer, logs and checkpoints.
    stop_at: updates after which to save and leave.
    profile: first and last update to write a trace of; (0, 0) = none.

  Returns:
    The resolved config, for the evaluation of the run; None if it stopped
    before the end.

  Raises:
    UserError: bad input; a new workdir is then left without a config.
    Stopped: a signal asked to stop; everything is saved.
  """
  workdir = epath.Path(workdir)
  with contextlib.ExitStack() as stack:
    stop = stopping.StopSignal(config.train.log_every)
    stack.enter_context(stopping.handled_by(stop.handle))

    # Mesh and data.
    mesh = sharding.make_mesh(config.mesh)
    batch_size = config.train.batch_size
    sharding.check_batch_size(batch_size // config.train.accumulate, mesh)
    config, tokenizer, examples = prepare(config, workdir)
    plan = examples["train"].plan(seed=config.seed)
    total_steps = config.train.epochs * plan.steps_per_epoch
    # The state counts them in 32 bits.
    if not config.optim.warmup_steps <= total_steps < 2**31:
      raise UserError(
        f"config: {total_steps} steps in all (train.epochs) must be at least"
        f" optim.warmup_steps={config.optim.warmup_steps} and below 2^31"
      )
    last_step = min(stop_at or total_steps, total_steps)

    # State: abstract -> shardings -> initialised or restored.
    tx = stepping.make_optimizer(config.optim, total_steps)
    init = stepping.make_init(config, tx)
    rng = jax.random.key_data(jax.random.key(config.seed))
    abstract = jax.eval_shape(init, rng)
    frozen = stepping.check_frozen(abstract.params, config.optim.frozen)
    state_sharding = sharding.shardings(abstract, mesh)
    abstract = jax.tree.map(
      lambda x, s: x.update(sharding=s), abstract, state_sharding
    )
    # Own latest checkpoint > init_from > published weights > from scratch.
    first_step, scored = checkpoint.latest_step(workdir), False
    if first_step is not None:
      state = checkpoint.restore(workdir, first_step, abstract)
      known = state.params
      scored = checkpoint.score(workdir, first_step) is not None
    else:
      first_step = 0
      if config.init_from:
        known = checkpoint.initial_params(config, abstract.params)
      else:
        known = pretrained.load(config, abstract.params)
      state = stepping.init_around(init, known, state_sharding, rng)
    if profile[0] and not first_step < profile[0] <= profile[1] <= last_step:
      raise UserError(
        f"--profile: this start makes the updates {first_step + 1} to"
        f" {last_step} only"
      )
    if jax.process_index():
      profile = (0, 0)  # the processes of a host would write one file
    # Whatever was refused before has left nothing behind.
    if jax.process_index() == 0:
      files.write(workdir / "config.json", to_json(config))
      if not (workdir / "tokenizer" / "tokenizer.json").exists():
        wordpiece.save(tokenizer, workdir / "tokenizer")
    sharding.from_all_processes(None)  # the others read both

    # The loop: the state after `step` updates is evaluated and saved, then
    # batch `step` makes one more. A run resumes at the top of it.
    train_step = stepping.jit_train_step(config, tx, mesh, state_sharding)
    evaluator = Evaluator(config, mesh)
    saver = checkpoint.Saver(workdir)
    stack.callback(saver.close)
    steps = (first_step, total_steps)
    log = Log(workdir, config, examples, plan, steps, scored)
    stack.callback(log.close)
    log.start(examples, abstract.params)
    if drawn := sorted(frozen - known):
      log.say(f"{', '.join(drawn)}: frozen at random numbers, not loaded")
    text = abstract.params["text"]
    if "pooler" in text.keys() - known.get("text", text).keys():
      log.say("text/pooler: the weights have none; it starts at random numbers")
    own = sharding.own_rows(batch_size, mesh)
    loader = batches.load(
      examples["train"], plan, (first_step, last_step), rows=own
    )
    programs = {}  # one for each length of batches
    eval_every = config.train.eval_every or plan.steps_per_epoch
    save_every = config.train.checkpoint_every or eval_every
    splits = ("valid", "test") if config.train.score_test else ("valid",)
    for step in range(first_step, max(first_step, last_step) + 1):
      new, f1 = step > first_step, None
      due = step > 0 and (step % eval_every == 0 or step == total_steps)
      if due and (new or not scored):
        with log.pause(), contextlib.suppress(Stopped):
          scores = {
            split: evaluator.score(
              state.params, examples[split], before_batch=stop.check
            )["f1"]
            for split in splits
          }
          f1 = scores["valid"]
          log.evaluation(step, scores)
          if not new:
            checkpoint.add_score(workdir, step, f1)
      stopped = stop.agreed(step)
      ending = stopped or step >= last_step
      # Several processes have to ask each other.
      if jax.process_count() == 1 or step % config.train.log_every == 0:
        saver.seal(wait=False)
      if new and (due or ending or step % save_every == 0):
        with log.pause():
          saver.save(step, state, f1)
      if ending:
        break
      with log.waiting():
        batch = sharding.put_batch(next(loader), batch_size, mesh)
        # A CPU runs the step in this thread only if its batch is there.
        jax.block_until_ready(batch)
      if step + 1 == profile[0]:
        jax.profiler.start_trace(str(workdir))
      if (length := batch["input_ids"].shape[1]) not in programs:
        with log.pause():
          programs[length] = compiling.compiled(
            train_step, state, batch, log.say
          )
      state, metrics = programs[length](state, batch)
      if step + 1 == profile[1]:
        jax.block_until_ready(metrics)
        jax.profiler.stop_trace()
      # The device works on this step while the one before is written.
      log.step(step + 1, metrics)
    log.flush()
    saver.seal()
  if stopped or stop.agreed(step):  # it may come with the last save, too
    print(f"stopped at step {step}; the same command goes on")
    raise Stopped
  return config if step == total_steps else None

"""Run logging: a progress bar or plain lines, and two JSONL files.

`metrics.jsonl` holds only what a run repeated on CPUs gives to the byte,
`timing.jsonl` the rest. Only process 0 writes.
"""

import contextlib
import math
import sys
import time

import jax
import tqdm

from mner_jax.config import UserError
from mner_jax.data import batches, dataset, files

_PLAIN_SECONDS = 10  # between progress lines without a terminal
_NAMED = 8  # sentences in a message


class Log:
  """The logs of one run, from one start to its end."""

  def __init__(self, workdir, config, examples, plan, steps, scored):
    """Opens the logs and drops what is later than the state.

    Args:
      workdir: a path.
      config: the Config.
      examples: {split: batches.Examples}.
      plan: the Plan of training.
      steps: (done before this start, all).
      scored: whether the state it starts from has been evaluated.
    """
    self._config, self._plan = config.train, plan
    self._examples = examples["train"]
    self._first, self._total = steps
    self._main = jax.process_index() == 0
    self._recent = []  # (step, metrics on the device) since the last flush
    self._shown = {}
    self._skipped, self._files, self._board = 0, {}, None
    for name in ("metrics", "timing"):
      path = workdir / f"{name}.jsonl"
      kept = kept_lines(path, self._first, scored)
      self._skipped += sum("skipped" in line for line in kept)
      if self._main:
        self._files[name] = files.Lines(path, kept)
    if self._main and self._config.tensorboard:
      import tensorboardX

      self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"))
    self._bar = tqdm.tqdm(
      total=self._total,
      initial=self._first,
      unit="step",
      dynamic_ncols=True,
      disable=not (self._main and sys.stderr.isatty()),
    )
    self._start = self._last_line = time.monotonic()
    self._away = self._waited = 0.0  # seconds of evaluating and saving; of data
    self._before = (self._first, 0.0, 0.0)  # step, trained, waited, last log

  def start(self, examples, params):
    """Prints what is about to be trained."""
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
    sentences = {k: len(e.split.sentences) for k, e in examples.items()}
    again = f"; going on after step {self._first}" if self._first else ""
    self.say(
      f"{sentences} sentences; {count:,} parameters; {jax.device_count()}"
      f" {jax.devices()[0].platform} device(s); {self._plan.steps_per_epoch}"
      f" steps an epoch, {self._total} in all{again}"
    )
    for name, e in examples.items():
      if notes := dataset.notes(e.split):
        self.say(f"{name}: {notes}")

  def say(self, text):
    """Prints one line, above the bar where there is one."""
    if self._main:
      self._bar.write(text, file=sys.stderr)

  @contextlib.contextmanager
  def waiting(self):
    """Counts the time that its body waits for a batch."""
    start = time.monotonic()
    yield
    self._waited += time.monotonic() - start

  @contextlib.contextmanager
  def pause(self):
    """Flushes, and does not count its body's time as training."""
    self.flush()
    start = time.monotonic()
    yield
    self._away += time.monotonic() - start

  def step(self, step, metrics):
    """Takes the metrics of update `step`; writes those of the one before."""
    if self._recent and self._recent[-1][0] % self._config.log_every == 0:
      self._settle()  # in a bucket, a flush would write the whole files
    self._recent.append((step, metrics))
    self._bar.update()

  def flush(self):
    """Checks what is pending, and writes it so that it outlasts this process.

    Raises a UserError at a step whose numbers are not finite, but for as many
    as the config allows.
    """
    self._settle()
    # A checkpoint must not outlive the lines up to it.
    for file in self._files.values():
      file.sync()

  def _settle(self):
    """See `flush`; the one wait for the device."""
    recent, self._recent = self._recent, []
    for step, metrics in jax.device_get(recent):
      due = step % self._config.log_every == 0
      if bad := first_nonfinite(metrics):
        self._skip(step, bad)
      elif due:
        values = {k: float(v) for k, v in metrics.items() if k != "finite"}
        self._write("metrics", {"step": step, **values})
        self._shown["loss"] = f"{values['loss']:.3f}"
      if due:
        self._timing(step)

  def _timing(self, step):
    now = time.monotonic()
    trained = now - self._start - self._away
    last_step, last_trained, last_waited = self._before
    self._before = step, trained, self._waited
    seconds = trained - last_trained
    rate = (step - last_step) * self._config.batch_size / seconds
    timing = {
      "step": step,
      "examples_per_second": round(rate, 2),
      "data_wait_share": round((self._waited - last_waited) / seconds, 4),
      "elapsed_seconds": round(now - self._start, 2),
    }
    self._write("timing", timing)
    self._shown["ex/s"] = f"{rate:.0f}"
    self._bar.set_postfix(self._shown)
    if self._bar.disable and now - self._last_line > _PLAIN_SECONDS:
      self._last_line = now
      left = trained / (step - self._first) * (self._total - step)
      shown = "  ".join(f"{k} {v}" for k, v in self._shown.items())
      epoch = step / self._plan.steps_per_epoch
      self.say(
        f"step {step}/{self._total}  epoch {epoch:.1f}  {shown}"
        f"  {left:.0f} s left"
      )

  def evaluation(self, step, scores):
    """Writes the F1 after update `step` of each split scored, dev first."""
    scores = {f"{split}_f1": f1 for split, f1 in scores.items()}
    self._write("metrics", {"step": step, **scores})
    self._shown["dev F1"] = f"{scores['valid_f1']:.4f}"
    said = "  ".join(f"{k} {v:.4f}" for k, v in scores.items())
    self.say(f"step {step}/{self._total}  {said}")
    self.flush()

  def _skip(self, step, bad):
    """Writes that a batch was skipped; a UserError if it is one too many."""
    if self._skipped < self._config.skip_nonfinite:
      self._skipped += 1
      self._write("metrics", {"step": step, "skipped": bad})
      self.say(f"step {step}: {bad} is not finite; this batch is skipped")
      return
    _, ids = self._plan.batch(step - 1)
    ids = [int(i) for i in ids if i != batches.PADDING]
    windows, sentences = self._examples.windows, self._examples.split.sentences
    origins = dict.fromkeys(sentences[windows[i].sentence].origin for i in ids)
    more = ", ..." if len(origins) > _NAMED else ""
    before = f" ({self._skipped} skipped before)" if self._skipped else ""
    raise UserError(
      f"step {step}: {bad} is not finite{before}; windows {ids} of"
      f" {', '.join(list(origins)[:_NAMED])}{more}. No update was made from it"
      " and the last checkpoint is intact; lower optim.learning_rate, look at"
      " these sentences, or allow such batches by train.skip_nonfinite"
    )

  def _write(self, name, line):
    if self._main:
      self._files[name].add(line)
    for key, value in line.items() if self._board else ():
      if key != "step" and not isinstance(value, str):
        self._board.add_scalar(f"{name}/{key}", value, line["step"])

  def close(self):
    """Closes the bar and syncs; `flush` before it writes the last lines."""
    self._bar.close()
    if self._board:
      self._board.close()
    for file in self._files.values():
      file.sync()


def first_nonfinite(metrics):
  """Returns which part of a step is not finite, or None.

  Losses first, then their sum, then the gradient.
  """
  for name, value in metrics.items():
    if name not in ("loss", "grad_norm", "finite") and not math.isfinite(value):
      return name
  if not math.isfinite(metrics["loss"]):
    return "loss"
  if math.isfinite(metrics["grad_norm"]):
    return None
  bad = [name for name, finite in metrics["finite"].items() if not finite]
  # With none bad, each is in range and the norm of all is not.
  return f"gradient of {', '.join(bad)}" if bad else "norm of the gradient"


def kept_lines(path, last_step, scored):
  """Returns the lines of a log up to `last_step`, as dicts.

  Without the score of that step unless the checkpoint has it: it is measured
  again.
  """
  return [
    line
    for line in files.read_lines(path)
    if line["step"] < last_step
    or (line["step"] == last_step and (scored or "valid_f1" not in line))
  ]

"""What a run says of itself: a bar or plain lines, and two JSONL logs.

`metrics.jsonl` holds only what a repeated run reproduces to the byte,
`timing.jsonl` the rest. Only process 0 writes.
"""

import contextlib
import json
import math
import sys
import time

import jax
import tqdm

from mner_jax import checkpoint
from mner_jax.config import UserError
from mner_jax.data import dataset
from mner_jax.training import finite

_PLAIN_SECONDS = 10  # between lines where there is no terminal


class Log:
  """The logs of one run, from one start to its end."""

  def __init__(self, workdir, config, examples, plan, steps, scored):
    """Of the run in `workdir`.

    Args:
      workdir: a path.
      config: its Config.
      examples: {split: batches.Examples}.
      plan: the Plan of training.
      steps: (done before this start, all).
      scored: whether the state it starts from has been evaluated.
    """
    first_step, total_steps = steps
    self._main = jax.process_index() == 0
    self._every = config.train.log_every
    self._batch_size = config.train.batch_size
    self._per_epoch = plan.steps_per_epoch
    self._first, self._total = first_step, total_steps
    self._recent = []  # (step, metrics on the device), of all since a flush
    self._due = False  # whether the last of these is to be written
    self._shown = {}
    self._files = {}
    path = workdir / "metrics.jsonl"
    before = _kept(path, first_step, scored)
    skipped = sum("skipped" in line for line, _ in before)
    self._guard = finite.Guard(
      config.train.skip_nonfinite, skipped, examples["train"], plan
    )
    if not self._main:
      return
    for name in ("metrics", "timing"):
      path = workdir / f"{name}.jsonl"
      # Whole or not at all: no line may be lost to a kill.
      kept = _kept(path, first_step, scored)
      self._files[name] = Lines(path, "".join(text for _, text in kept))
    self._bar = tqdm.tqdm(
      total=total_steps, initial=first_step, unit="step", dynamic_ncols=True,
      disable=not sys.stderr.isatty(),
    )  # fmt: skip
    self._restart_clock(first_step)
    self._start = self._last_line = time.monotonic()
    self._paused = 0.0

  def _restart_clock(self, step):
    self._clock, self._clock_step, self._waited = time.monotonic(), step, 0.0

  def start(self, examples, params):
    """Says what is about to be trained."""
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
    sentences = {k: len(e.split.sentences) for k, e in examples.items()}
    self.say(
      f"{sentences} sentences; {count:,} parameters; {jax.device_count()}"
      f" {jax.devices()[0].platform} device(s); {self._per_epoch} steps an"
      f" epoch, {self._total} in all"
      + (f"; going on after step {self._first}" if self._first else "")
    )

    for name, e in examples.items():
      if notes := dataset.notes(e.split):
        self.say(f"{name}: {notes}")

  def say(self, text):
    """One line, above the bar where there is one."""
    if self._main:
      self._bar.write(text, file=sys.stderr)

  @contextlib.contextmanager
  def waiting(self):
    """Around the wait for a batch: its time is counted."""
    start = time.monotonic()
    yield
    self._waited = getattr(self, "_waited", 0.0) + time.monotonic() - start

  @contextlib.contextmanager
  def pause(self):
    """Around evaluation and saving: not counted as training."""
    self.flush()  # restarts the clock
    self._sync()
    start = time.monotonic()
    yield
    if self._main:
      lost = time.monotonic() - start
      self._clock += lost
      self._paused += lost

  def step(self, step, metrics):
    """Takes the metrics of update `step`; writes those of the one before."""
    if self._due:
      self.flush()
    self._recent.append((step, metrics))
    self._due = step % self._every == 0
    if self._main:
      self._bar.update()

  def flush(self):
    """Checks and writes what is pending: the one wait for the device.

    Raises a UserError at a step whose numbers are not finite.
    """
    recent, self._recent = self._recent, []
    due, self._due = self._due, False
    bad = None
    for step, metrics in jax.device_get(recent):
      if bad := self._guard.check(step, metrics):
        self._write("metrics", {"step": step, "skipped": bad})
        self.say(f"step {step}: {bad} is not finite; this batch is left out")
    if not (due and self._main):
      return
    metrics = {k: float(v) for k, v in metrics.items() if k != "finite"}
    if not bad:
      self._write("metrics", {"step": step, **metrics})
    now = time.monotonic()
    rate = (step - self._clock_step) * self._batch_size / (now - self._clock)
    timing = {
      "step": step,
      "examples_per_second": round(rate, 2),
      "data_wait_share": round(self._waited / (now - self._clock), 4),
      "elapsed_seconds": round(now - self._start, 2),
    }
    self._write("timing", timing)
    self._restart_clock(step)
    self._shown |= {"loss": f"{metrics['loss']:.3f}", "ex/s": f"{rate:.0f}"}
    self._bar.set_postfix(self._shown)
    if self._bar.disable and now - self._last_line > _PLAIN_SECONDS:
      self._last_line = now
      trained = now - self._start - self._paused
      left = trained / (step - self._first) * (self._total - step)
      self.say(
        f"step {step}/{self._total}  epoch {step / self._per_epoch:.1f}  "
        + "  ".join(f"{k} {v}" for k, v in self._shown.items())
        + f"  {left:.0f} s left"
      )

  def evaluation(self, step, scores):
    """The F1 after update `step` of each split that was scored, dev first."""
    if not self._main:
      return
    scores = {f"{split}_f1": f1 for split, f1 in scores.items()}
    self._write("metrics", {"step": step, **scores})
    self._shown["dev F1"] = f"{scores['valid_f1']:.4f}"
    said = "  ".join(f"{k} {v:.4f}" for k, v in scores.items())
    self.say(f"step {step}/{self._total}  {said}")
    self._sync()

  def _sync(self):
    """A checkpoint must not outlive the lines up to it."""
    for file in self._files.values():
      file.sync()

  def _write(self, name, line):
    if not self._main:
      return
    try:
      self._files[name].add(json.dumps(line))
    except OSError as error:
      raise UserError(
        f"{name}.jsonl: cannot be written ({error.strerror or error}); the"
        " last checkpoint is as it was"
      ) from None

  def close(self):
    """Writes what is pending and closes the files."""
    self.flush()
    if self._main:
      self._bar.close()
      self._sync()


class Lines:
  """A text file that grows line by line; no line is lost to a kill.

  A local file has a line once `add` is done. A bucket store cannot append: it
  has them once `sync` is done, which writes the file whole.
  """

  def __init__(self, path, text):
    """Writes the file anew with `text`, the lines that it begins with."""
    self._path, self._text = path, text
    checkpoint.write(path, text)

  def add(self, line):
    """Appends a line, without its end; raises OSError."""
    if checkpoint.in_bucket(self._path):
      self._text += line + "\n"
    else:
      with self._path.open("a") as file:
        file.write(line + "\n")

  def sync(self):
    """Stores all lines where they outlast this process."""
    if checkpoint.in_bucket(self._path):
      checkpoint.write(self._path, self._text)


def read(path):
  """The values of a log's whole lines, in order; [] where there is no log."""
  return [values for values, _ in _kept(path, math.inf, scored=True)]


def _kept(path, last_step, scored):
  """[(values, text)] of a log's whole lines up to `last_step`.

  Without its score where that is not in the checkpoint: it comes again.
  """
  if not path.exists():
    return []
  kept = []
  lines = path.read_bytes().splitlines(keepends=True)
  for number, text in enumerate(lines, 1):
    if not text.endswith(b"\n"):
      break  # the run was killed while it wrote this
    try:
      text = text.decode()
      line = json.loads(text)
      after = line["step"] > last_step
    except (ValueError, KeyError, TypeError):
      raise UserError(
        f"{path}:{number}: not a line of this log; correct or remove it"
      ) from None
    again = line["step"] == last_step and "valid_f1" in line and not scored
    if not (after or again):
      kept.append((line, text))
  return kept

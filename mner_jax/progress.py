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

from mner_jax.data import dataset

_PLAIN_SECONDS = 10  # between lines where there is no terminal


class Log:
  """The logs of one run, from one start to its end."""

  def __init__(self, workdir, config, plan, first_step, total_steps):
    self._main = jax.process_index() == 0
    self._every = config.train.log_every
    self._batch_size = config.train.batch_size
    self._per_epoch = plan.steps_per_epoch
    self._first, self._total = first_step, total_steps
    self._pending = None  # (step, metrics on the device)
    self._shown = {}
    self._files = {}
    if not self._main:
      return
    for name in ("metrics", "timing"):
      path = workdir / f"{name}.jsonl"
      _cut(path, first_step)
      self._files[name] = path.open("a")
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
    start = time.monotonic()
    yield
    if self._main:
      lost = time.monotonic() - start
      self._clock += lost
      self._paused += lost

  def step(self, step, metrics):
    """Takes the metrics of update `step`; writes those of the one before."""
    self.flush()
    if self._main:
      self._bar.update()
      if step % self._every == 0:
        self._pending = (step, metrics)

  def flush(self):
    """Writes what is pending: the one place that waits for the device."""
    if self._pending is None:
      return
    step, metrics = self._pending
    self._pending = None
    metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
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

  def evaluation(self, step, f1, test_f1=None):
    """The dev score after update `step`; the test score where it is asked."""
    if not self._main:
      return
    scores = {"valid_f1": f1}
    if test_f1 is not None:
      scores["test_f1"] = test_f1
    self._write("metrics", {"step": step, **scores})
    self._shown["dev F1"] = f"{f1:.4f}"
    said = "  ".join(f"{k} {v:.4f}" for k, v in scores.items())
    self.say(f"step {step}/{self._total}  {said}")

  def _write(self, name, line):
    self._files[name].write(json.dumps(line) + "\n")
    self._files[name].flush()

  def close(self):
    """Writes what is pending and closes the files."""
    self.flush()
    if self._main:
      self._bar.close()
      for file in self._files.values():
        file.close()


def _cut(path, last_step):
  """Drops the lines of a log that are after `last_step` or unfinished."""
  if not path.exists():
    return
  kept = [
    line
    for line in path.read_text().splitlines(keepends=True)
    if line.endswith("\n") and json.loads(line)["step"] <= last_step
  ]
  path.write_text("".join(kept))

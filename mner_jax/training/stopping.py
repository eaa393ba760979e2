"""Being stopped: a run saves first, and all its processes at the same step."""

import contextlib
import signal
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

# "Temporary failure, try again": stopped by a signal, everything is saved.
EXIT_STOPPED = 75
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
  """Work was left unfinished because the run is to stop."""


class StopSignal:
  """SIGTERM and Ctrl-C ask for a stop; a second one ends at once.

  Python sees a signal between two of its own instructions: after a
  compilation, not in it.
  """

  def __init__(self, every):
    """`every`: steps between two agreements of several processes."""
    self._every = every
    self._requested = self._agreed = False

  def __enter__(self):
    self._before = {n: signal.signal(n, self._handle) for n in _SIGNALS}
    return self

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _handle(self, number, frame):
    self._requested = True
    signal.signal(number, signal.SIG_DFL)

  def agreed(self, step):
    """Whether to stop here; the same on every process.

    Called by all of them at the same steps. One process just looks. Several
    ask each other only where the log waits for the device anyway: it is one
    byte, but whoever waits for it has no step queued behind the running one.
    """
    if jax.process_count() == 1:
      return self._requested
    if not self._agreed and step % self._every == 0:
      flags = multihost_utils.process_allgather(np.uint8(self._requested))
      self._agreed = bool(np.any(flags))
    return self._agreed

  def check(self, step):
    """Raises `Stopped` where it is agreed."""
    if self.agreed(step):
      raise Stopped


@contextlib.contextmanager
def exit_when_asked():
  """Around what a repeated command repeats: a signal ends it, nothing to save."""
  before = {
    number: signal.signal(number, lambda *_: sys.exit(EXIT_STOPPED))
    for number in _SIGNALS
  }
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)

"""Being stopped: a run saves first, and all its processes at the same step."""

import contextlib
import signal

import jax

from mner_jax.cli import Stopped
from mner_jax.sharding import from_all_processes


@contextlib.contextmanager
def handled_by(handler):
  """Lets `handler` take SIGTERM and Ctrl-C."""
  numbers = (signal.SIGTERM, signal.SIGINT)
  before = {n: signal.signal(n, handler) for n in numbers}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def at_once():
  """Around what a repeated command repeats: a signal raises `Stopped`."""

  def stop(number, frame):
    raise Stopped

  return handled_by(stop)


class StopSignal:
  """SIGTERM and Ctrl-C ask for a stop; a second one ends at once.

  Python handles a signal between two of its own instructions: after a
  compilation, not during one.
  """

  def __init__(self, every):
    """`every`: steps between two agreements of several processes."""
    self._every = every
    self._requested = self._agreed = False

  def handle(self, number, frame):
    """Takes a signal; see `handled_by`."""
    self._requested = True
    signal.signal(number, signal.SIG_DFL)

  def agreed(self, step):
    """Returns whether to stop here; the same on every process.

    All processes call it at the same steps. One process only looks. Several
    ask each other where the log waits for the device anyway: whoever waits for
    the answer has no step queued behind the running one.
    """
    if jax.process_count() == 1:
      return self._requested
    if not self._agreed and step % self._every == 0:
      self._agreed = any(from_all_processes(self._requested))
    return self._agreed

  def check(self, step):
    """Raises `Stopped` where it is agreed."""
    if self.agreed(step):
      raise Stopped

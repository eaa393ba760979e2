"""Numbers that are not finite: no update is made from them, and who is told.

The step itself leaves the state as it is (`keep`); the host learns of it where
it reads the metrics, which it does before it saves anything.
"""

import math

import jax
import jax.numpy as jnp
import optax

from mner_jax.config import UserError
from mner_jax.data import batches

_NAMED = 8  # sentences in a message


def groups(grads):
  """{"text": whether its gradient is finite, ...} by the model's modules."""
  return {k: jnp.isfinite(optax.tree.norm(x)) for k, x in grads.items()}


def keep(good, new, old):
  """`new` where `good`, a scalar, is true, else `old`."""
  # In the loop over an array that computes `new` and has read `old` for it:
  # no pass over memory of its own.
  return jax.tree.map(lambda x, y: jnp.where(good, x, y), new, old)


class Guard:
  """Stops the run at the first bad batch, or after a number of them."""

  def __init__(self, allowed, skipped, examples, plan):
    """Of one start of a run.

    Args:
      allowed: bad batches that a run may leave out.
      skipped: how many it has left out before this start.
      examples: batches.Examples of training, to name sentences.
      plan: its Plan.
    """
    self._allowed, self._skipped = allowed, skipped
    self._examples, self._plan = examples, plan

  def check(self, step, metrics):
    """The part of update `step` that is not finite; None = all are.

    Args:
      step: counted from 1, as in the logs.
      metrics: of the step, on the host.

    Raises a UserError where the run must not go on.
    """
    part = _first(metrics)
    if part is None:
      return None
    if self._skipped < self._allowed:
      self._skipped += 1
      return part
    _, ids = self._plan.batch(step - 1)
    ids = [int(i) for i in ids if i != batches.PADDING]
    sentences = self._examples.split.sentences
    windows = self._examples.windows
    origins = dict.fromkeys(sentences[windows[i].sentence].origin for i in ids)
    more = ", ..." if len(origins) > _NAMED else ""
    before = f" ({self._skipped} left out before)" if self._skipped else ""
    raise UserError(
      f"step {step}: {part} is not finite{before}; windows {ids} of"
      f" {', '.join(list(origins)[:_NAMED])}{more}. No update was made from it"
      " and the last checkpoint is as it was; lower optim.learning_rate, look"
      " at these sentences, or let train.skip_nonfinite such batches be left"
      " out"
    )


def _first(metrics):
  """Losses before what is made of them, then gradients."""
  for name, value in metrics.items():
    if name not in ("loss", "grad_norm", "finite") and not math.isfinite(value):
      return name
  if not math.isfinite(metrics["loss"]):
    return "loss"
  if math.isfinite(metrics["grad_norm"]):
    return None
  bad = [name for name, finite in metrics["finite"].items() if not finite]
  # Each is in range, the norm of all is not.
  return f"gradient of {', '.join(bad)}" if bad else "norm of the gradient"

"""Timing of variants side by side."""

import contextlib
import time

import numpy as np


def interleave(variants, *, repeats):
  """Measures variants in turns of about half a second.

  Each round runs every variant once, so that other load on the machine affects
  all of them alike. Two calls before the first round warm up.

  Args:
    variants: {name: function without arguments}; what one returns, if anything,
      is a number on a device, to wait for at the end of a turn.
    repeats: rounds.

  Returns:
    {name: seconds per call [repeats]}.
  """
  calls = {}
  for name, function in variants.items():
    _seconds(function, 1)  # compiles
    calls[name] = int(np.clip(0.5 / _seconds(function, 1), 1, 20))
  rounds = [
    [_seconds(function, calls[name]) for name, function in variants.items()]
    for _ in range(repeats)
  ]
  return dict(zip(variants, np.transpose(rounds), strict=True))


def _seconds(function, calls):
  """Seconds per call over that many calls."""
  start = time.perf_counter()
  for _ in range(calls):
    result = function()
  if result is not None:
    float(result)
  return (time.perf_counter() - start) / calls


def milliseconds(seconds):
  """The fields "ms" (median) and "spread_ms" (half the quartiles' distance)."""
  low, median, high = 1e3 * np.quantile(seconds, [0.25, 0.5, 0.75])
  return {"ms": float(median), "spread_ms": float(high - low) / 2}


def compare(ours, theirs, *, repeats):
  """Measures our function, in turns with PyTorch's unless that is None.

  Returns:
    The fields of `milliseconds`, "torch_ms" and "times_faster" if compared.
  """
  functions = {"ours": ours, "torch": theirs}
  variants = {name: f for name, f in functions.items() if f}
  times = interleave(variants, repeats=repeats)
  row = milliseconds(times["ours"])
  if theirs:
    row["torch_ms"] = milliseconds(times["torch"])["ms"]
    row["times_faster"] = row["torch_ms"] / row["ms"]
  return row


@contextlib.contextmanager
def within_memory(row, **otherwise):
  """Runs a block; if memory is too small, `otherwise` goes into the row."""
  try:
    yield
  except RuntimeError as error:  # XLA's and PyTorch's
    if "memory" not in str(error).lower():
      raise
    row.update(otherwise)

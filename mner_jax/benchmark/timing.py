"""Timing of variants side by side."""

import statistics
import time


def interleave(variants, *, repeats, steps=1):
  """Seconds a call of each variant, measured in turns.

  One round runs every variant once, so that what else the machine does falls
  on all of them. The first round warms up and does not count.

  Args:
    variants: {name: function without arguments that returns when done}.
    repeats: rounds.
    steps: calls that a function makes of what is measured.

  Returns:
    {name: (median, spread)}; the spread is half of what lies between the
    quartiles.
  """
  times = {name: [] for name in variants}
  for r in range(repeats + 1):
    for name, function in variants.items():
      start = time.perf_counter()
      function()
      if r:
        times[name].append((time.perf_counter() - start) / steps)
  return {name: _summary(values) for name, values in times.items()}


def _summary(values):
  if len(values) < 2:
    return values[0], 0.0
  low, _, high = statistics.quantiles(values, n=4, method="inclusive")
  return statistics.median(values), (high - low) / 2

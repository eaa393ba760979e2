"""The figure of a table: learning curves on dev, and F1 by language."""

import collections
import json

import numpy as np

from mner_jax.config import UserError


def pyplot():
  """matplotlib without a display; a UserError where it is missing."""
  try:
    import matplotlib
  except ImportError:
    raise UserError(
      "the figures need matplotlib: pip install 'mner_jax[tables]'"
    ) from None
  matplotlib.use("Agg")
  # Equal runs give equal files.
  matplotlib.rcParams["svg.hashsalt"] = "mner_jax"
  import matplotlib.pyplot

  return matplotlib.pyplot


def draw(found, runs, folder):
  """Writes `figure.svg` and `figure.png` of a scored table.

  Args:
    found: of `output.collect`.
    runs: its runs.
    folder: where to.
  """
  plt = pyplot()
  rows = [row for row in found["rows"] if row["seeds"]]
  figure, (curves, bars) = plt.subplots(
    1, 2, figsize=(13, 4 + 0.15 * len(rows)), layout="constrained"
  )
  # More rows than matplotlib has colours by default.
  colours = dict(
    zip(
      (row["row"] for row in rows),
      plt.cm.turbo(np.linspace(0.05, 0.95, len(rows))),
      strict=True,
    )
  )
  _curves(curves, runs, colours)
  _bars(bars, rows, found["languages"], colours)
  figure.legend(
    *curves.get_legend_handles_labels(), loc="outside lower center", ncols=4
  )
  figure.suptitle(found["title"])
  for suffix, metadata in (("svg", {"Date": None}), ("png", {})):
    with (folder / f"figure.{suffix}").open("wb") as file:
      figure.savefig(file, format=suffix, dpi=150, metadata=metadata)
  plt.close(figure)


def _curves(axes, runs, colours):
  points = collections.defaultdict(lambda: collections.defaultdict(list))
  for run in runs:
    if run.finished:
      text = (run.folder / "metrics.jsonl").read_text()
      for line in map(json.loads, text.splitlines()):
        if "valid_f1" in line:
          points[run.row][line["step"]].append(100 * line["valid_f1"])
  for row, by_step in points.items():
    steps = sorted(by_step)
    values = [by_step[step] for step in steps]
    axes.plot(
      steps, [np.mean(v) for v in values], "o-", color=colours[row], label=row
    )
    axes.fill_between(
      steps, [min(v) for v in values], [max(v) for v in values],
      color=colours[row], alpha=0.15, linewidth=0,
    )  # fmt: skip
  axes.set(xlabel="updates", ylabel="F1 on dev, %: mean and range of the seeds")
  axes.grid(alpha=0.3)


def _bars(axes, rows, languages, colours):
  width = 0.8 / max(len(rows), 1)
  for i, row in enumerate(rows):
    scores = [row["by_language"].get(name) for name in languages]
    shown = [(x, s) for x, s in enumerate(scores) if s]
    axes.bar(
      [x + (i - (len(rows) - 1) / 2) * width for x, _ in shown],
      [100 * s["mean"] for _, s in shown],
      width,
      yerr=[100 * (s["sd"] or 0) for _, s in shown],
      color=colours[row["row"]],
    )
  axes.set_xticks(range(len(languages)), languages)
  axes.set(ylabel="F1 on test, %: mean and standard deviation")
  axes.grid(axis="y", alpha=0.3)

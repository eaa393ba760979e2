"""The figure of a table: learning curves on dev, and F1 by language."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mner_jax.data import files


def draw(found, runs, path):
  """Writes the SVG of a table that has scores.

  Args:
    found: the dict of `output.collect`.
    runs: its runs.
    path: where to write it.
  """
  rows = [row for row in found["rows"] if row["seeds"]]
  # There may be more rows than matplotlib has colours by default.
  shades = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(rows)))
  colours = {row["row"]: x for row, x in zip(rows, shades, strict=True)}
  size = (13, 4 + 0.15 * len(rows))
  figure = Figure(figsize=size, layout="constrained")
  curves, bars = figure.subplots(1, 2)
  _curves(curves, runs, colours)
  _bars(bars, rows, colours)
  figure.legend(loc="outside lower center", ncols=4)
  figure.suptitle(found["title"])
  # Equal runs give equal files.
  with matplotlib.rc_context({"svg.hashsalt": "mner_jax"}):
    figure.savefig(path, metadata={"Date": None})


def _curves(axes, runs, colours):
  for row, colour in colours.items():
    label = row  # for the first seed only
    for run in runs:
      if run.row == row and run.finished:
        records = files.read_lines(run.folder / "metrics.jsonl")
        scored = [r for r in records if "valid_f1" in r]
        steps = [r["step"] for r in scored]
        f1 = [100 * r["valid_f1"] for r in scored]
        axes.plot(steps, f1, ".-", color=colour, label=label)
        label = None
  axes.set(xlabel="updates", ylabel="F1 on dev, %: each seed")
  axes.grid(alpha=0.3)


def _bars(axes, rows, colours):
  width = 0.8 / len(rows)
  languages = sorted({x for r in rows for x in r["scores"]["per_language"]})
  for i, row in enumerate(rows):
    for language, scores in row["scores"]["per_language"].items():
      x = languages.index(language) + (i - (len(rows) - 1) / 2) * width
      mean, sd = 100 * scores["f1"]["mean"], 100 * (scores["f1"]["sd"] or 0)
      axes.bar(x, mean, width, yerr=sd, color=colours[row["row"]])
  axes.set_xticks(range(len(languages)), languages)
  axes.set(ylabel="F1 on test, %: mean and standard deviation")
  axes.grid(axis="y", alpha=0.3)

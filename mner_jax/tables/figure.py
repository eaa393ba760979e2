"""The figure of a table: learning curves on dev, F1 by row and language."""

import io

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
  shades = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.9, len(rows)))
  figure = Figure(figsize=(13, 3 + 0.25 * len(rows)), layout="constrained")
  curves, points = figure.subplots(1, 2)
  _curves(curves, rows, shades, runs)
  _points(points, rows, shades)
  figure.legend(title="test language", loc="outside right upper")
  figure.suptitle(found["title"])
  svg = io.StringIO()
  # Equal runs give equal files.
  with matplotlib.rc_context({"svg.hashsalt": "mner_jax"}):
    figure.savefig(svg, format="svg", metadata={"Date": None})
  files.write(path, svg.getvalue())


def _curves(axes, rows, shades, runs):
  for row, shade in zip(rows, shades, strict=True):
    for run in runs:
      if run.row == row["row"] and run.finished:
        records = files.read_lines(run.folder / "metrics.jsonl")
        scored = [r for r in records if "valid_f1" in r]
        steps = [r["step"] for r in scored]
        f1 = [100 * r["valid_f1"] for r in scored]
        axes.plot(steps, f1, ".-", color=shade)
  axes.set(xlabel="updates", ylabel="F1 on dev, %: each seed")
  axes.grid(alpha=0.3)


def _points(axes, rows, shades):
  languages = sorted({x for r in rows for x in r["scores"]["per_language"]})
  zero_shot = ""
  for i, language in enumerate(languages):
    label = language  # for the first row only
    for y, row in enumerate(rows):
      f1 = row["scores"]["per_language"][language]["f1"]
      seen = language in row["languages"]
      zero_shot = zero_shot if seen else "; hollow: zero-shot"
      axes.errorbar(
        100 * f1["mean"],
        y,
        xerr=100 * (f1["sd"] or 0),
        fmt="os^D"[i % 4],
        color=f"C{i}",
        markerfacecolor=None if seen else "white",
        label=label,
      )
      label = None
  axes.set(xlabel=f"F1 on test, %: mean and standard deviation{zero_shot}")
  axes.set_yticks(range(len(rows)), [row["row"] for row in rows])
  for text, shade in zip(axes.get_yticklabels(), shades, strict=True):
    text.set(color=shade, weight="bold")  # the legend of the curves
  axes.invert_yaxis()
  axes.grid(alpha=0.3)

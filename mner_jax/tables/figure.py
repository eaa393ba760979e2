"""The figure of a table: learning curves on dev."""

import json

import matplotlib
import numpy as np
from matplotlib.figure import Figure


def draw(title, runs, path):
  """Writes the SVG of a table: a curve for each finished run.

  Args:
    title: the table's.
    runs: its runs.
    path: where to write it.
  """
  finished = [run for run in runs if run.finished]
  names = list(dict.fromkeys(run.row for run in finished))
  # There may be more rows than matplotlib has colours by default.
  shades = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(names)))
  size = (8, 5 + 0.15 * len(names))
  figure = Figure(figsize=size, layout="constrained")
  axes = figure.subplots()
  curves = {}
  for run in finished:
    text = (run.folder / "metrics.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    scored = [r for r in records if "valid_f1" in r]
    steps = [r["step"] for r in scored]
    f1 = [100 * r["valid_f1"] for r in scored]
    colour = shades[names.index(run.row)]
    (curves[run.row],) = axes.plot(steps, f1, ".-", color=colour)
  axes.set(xlabel="updates", ylabel="F1 on dev, %: each seed")
  axes.grid(alpha=0.3)
  figure.legend(curves.values(), curves, loc="outside lower center", ncols=3)
  figure.suptitle(title)
  # Equal runs give equal files.
  with matplotlib.rc_context({"svg.hashsalt": "mner_jax"}):
    figure.savefig(path, metadata={"Date": None})

"""A table as Markdown and JSON: scores, how certain they are, the protocol."""

import functools
import json
import operator
import statistics

import numpy as np

from mner_jax import cli
from mner_jax.data import files
from mner_jax.evaluation import retrieval, significance

# Settings of the runs that are printed under the table.
_SETTINGS = """
  data.path data.fingerprint train.epochs train.batch_size
  optim.learning_rate seed
""".split()
_WAYS = {"text_to_image": "text → picture", "image_to_text": "picture → text"}


def write(table, runs, failures, folder):
  """Writes `table.json` and `table.md`; returns (the dict, the Markdown)."""
  found = collect(table, runs, failures)
  text = markdown(found)
  files.write(folder / "table.json", json.dumps(found, indent=2))
  files.write(folder / "table.md", text)
  return found, text


def collect(table, runs, failures):
  """The table as a dict, the content of `table.json`.

  Args:
    table: rows.Table.
    runs: its runs.Run, finished or failed.
    failures: {folder: reason} of those that failed.
  """
  done = [run for run in runs if run.finished]
  reference = [run for run in done if run.row == table.reference]
  rows = []
  for name, changes in table.rows.items():
    mine = [run for run in runs if run.row == name]
    finished = [run for run in done if run.row == name]
    row = {
      "row": name,
      "hash": mine[0].hash,
      "changes": changes,
      "languages": mine[0].config.data.languages,
      "seeds": [run.seed for run in finished],
      "failed": {r.seed: failures[r.folder] for r in mine if r not in done},
    }
    if finished:
      row["scores"] = _over_seeds([_scores(run) for run in finished])
      if table.reference:
        row |= _significance(finished, reference)
    rows.append(row)
  return {
    "title": table.title,
    "reference": table.reference,
    "columns": table.columns,
    "rows": rows,
    "protocol": _protocol(table, done),
  }


def _scores(run):
  """The tree of a finished run's numbers."""
  return {
    **run.read("test_metrics.json"),
    "retrieval": run.read("test_retrieval.json") or {},
    "seconds": run.read("run.json")["seconds"],
  }


def _over_seeds(trees):
  """Trees of numbers -> one of {"mean", "sd", "largest"}.

  The standard deviation is that of a sample (n - 1), None for one seed.
  """
  if isinstance(trees[0], dict):
    names = dict.fromkeys(name for tree in trees for name in tree)
    return {n: _over_seeds([t[n] for t in trees if n in t]) for n in names}
  sd = statistics.stdev(trees) if len(trees) > 1 else None
  return {"mean": statistics.fmean(trees), "sd": sd, "largest": max(trees)}


def counts(folder):
  """[N, 3] counts of a finished run's test sentences, sorted by language."""
  lines = (folder / "test_predictions.jsonl").read_text().splitlines()
  # The file begins with the languages trained on, in which rows differ.
  records = sorted(map(json.loads, lines), key=lambda r: r["language"])
  gold, tags = ([r[name] for r in records] for name in ("gold", "tags"))
  return significance.sentence_counts(gold, tags)


def _significance(runs, reference):
  """A row's interval, and its test against the reference row's seeds."""
  ours = {run.seed: counts(run.folder) for run in runs}
  found = {"interval": significance.bootstrap(np.stack(list(ours.values())))}
  theirs = {run.seed: counts(run.folder) for run in reference}
  shared = sorted(ours.keys() & theirs.keys())
  if shared and runs != reference:
    pair = [np.stack([x[seed] for seed in shared]) for x in (ours, theirs)]
    # Rows scored on different sentences cannot be paired.
    if np.array_equal(pair[0][..., 2], pair[1][..., 2]):
      found["difference"], found["p"] = significance.paired_test(*pair)
  return found


def _protocol(table, runs):
  """How the numbers of finished runs came about, as lines."""
  configs = [cli.read_workdir(run.folder) for run in runs]
  records = [run.read("run.json") for run in runs]
  values = {x: [operator.attrgetter(x)(c) for c in configs] for x in _SETTINGS}
  for name in ("hardware", "jax", "commit", "date"):
    values[name] = [record[name] or "unknown" for record in records]
  lines = [
    *(f"{k}: {', '.join(sorted(set(map(str, v))))}" for k, v in values.items()),
    "±: standard deviation over seeds (n - 1)",
    "run: the folder runs/RUN-SEED holds config, logs, predictions and scores",
  ]
  if table.reference:
    compared = max(len(table.rows) - 1, 1)
    lines += [
      "F1: seqeval micro F1 on test, default mode, as conlleval; strict F1:"
      " strict IOB2; both of the checkpoint best on dev",
      "95 %: bootstrap interval of the mean over seeds (10,000 replicates that"
      " resample test sentences and, independently, seeds)",
      f"p: difference to {table.reference}, two-sided approximate randomisation"
      " (10,000 swaps), paired by sentence and seed; it is about these trained"
      f" models; not corrected: Bonferroni's .05 is {0.05 / compared:.4f}",
    ]
  return [*lines, *table.notes]


def markdown(found):
  """The text of `table.md`: the table of `collect`, and the protocol."""
  rows = [_cells(found, row) for row in found["rows"]]
  text = [f"**{found['title']}**, in %", "", *_table(rows)]
  if not found["reference"] and (recalls := _recalls(found["rows"])):
    text += ["", *_table(recalls)]
  text += ["", *(f"- {line}" for line in found["protocol"])]
  for row in found["rows"]:
    for seed, reason in row["failed"].items():
      text.append(f"- MISSING: {row['row']}, seed {seed}: {reason}")
  return "\n".join(text) + "\n"


def _table(rows):
  """Markdown lines of rows {heading: text}, "-" where a row has none."""
  by_length = sorted(rows, key=len, reverse=True)
  headings = list(dict.fromkeys(h for row in by_length for h in row))
  lines = [headings, ["---"] * len(headings)]
  lines += [[row.get(h, "-") for h in headings] for row in rows]
  return [f"| {' | '.join(line)} |" for line in lines]


def _percent(spread):
  # 0 is what chance has: it is the same for every seed.
  sd = f" ± {100 * spread['sd']:.2f}" if spread["sd"] else ""
  return f"{100 * spread['mean']:.2f}{sd}"


def _cells(found, row):
  """A row of the table, {heading: text}."""
  name, missing, scores = row["row"], len(row["failed"]), row.get("scores")
  if missing:
    name += f" ({missing} runs missing)"
  if scores is None:
    return {"": name, "run": row["hash"]}
  cells = {"": name}
  if found["reference"]:
    low, high = row["interval"]
    cells["F1"] = _percent(scores["f1"])
    cells["95 %"] = f"{100 * low:.2f}-{100 * high:.2f}"
    if "p" in row:
      cells["difference"] = f"{100 * row['difference']:+.2f}"
      cells["p"] = f"{row['p']:.4f}"
    cells["strict F1"] = _percent(scores["f1_strict"])
  for heading, path in found["columns"].items():
    names = path.split(".")
    if score := functools.reduce(lambda x, k: x.get(k, {}), names, scores):
      zero_shot = names[0] == "per_language" and heading not in row["languages"]
      cells[heading] = _percent(score) + "*" * zero_shot
  if found["reference"]:
    cells["entities"] = f"{scores['counts']['entities']['mean']:,.0f}"
  seconds = f"{scores['seconds']['mean']:.0f}"
  return cells | {"s/run": seconds, "run": row["hash"]}


def _recalls(rows):
  """Recalls and mean ranks by language, both ways, against chance."""
  lines = []
  for row in rows:
    for language, found in row.get("scores", {}).get("retrieval", {}).items():
      for name, tree in ((row["row"], found), ("chance", found["chance"])):
        cells = {"": name, "language": language}
        cells["pictures"] = f"{found['pictures']['mean']:.0f}"
        for way, arrow in _WAYS.items():
          for k in retrieval.RANKS:
            cells[f"{arrow} R@{k}"] = _percent(tree[way][str(k)])
          rank = tree[way]["mean_rank"]["mean"]
          cells[f"{arrow} mean rank"] = f"{rank:.1f}"
        if name != "chance":
          cells["p"] = f"{found['p']['largest']:.4f}"
        lines.append(cells)
  return lines

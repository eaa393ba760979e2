"""A table as Markdown and JSON: scores, how certain they are, the protocol."""

import functools
import json
import statistics

import numpy as np

from mner_jax import cli, config
from mner_jax.data import files
from mner_jax.evaluation import significance

# What is printed under the table, of each run's config and run.json.
_SETTINGS = """
  data.path data.fingerprint train.epochs train.batch_size
  optim.learning_rate optim.warmup_share optim.warmup_steps optim.clip_norm
  seed hardware jax commit date
""".split()


def collect(table, runs, failures):
  """Returns the table as a dict, the content of `table.json`.

  Args:
    table: rows.Table.
    runs: its runs.Run, finished or failed.
    failures: {folder: reason} of those that failed.
  """
  done = [run for run in runs if run.finished]
  reference = [run for run in done if run.row == table.reference]
  rows = []
  for name, changes in table.rows.items():
    if not (mine := [run for run in runs if run.row == name]):
      continue  # this scale, --rows or --kept leaves it out
    finished = [run for run in mine if run in done]
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
    "rows": rows,
    "protocol": _protocol(table, len(rows), done),
  }


def _scores(run):
  """Returns the tree of a finished run's numbers."""
  return {
    **run.read("test_metrics.json"),
    "retrieval": run.read("test_retrieval.json") or {},
    "seconds": run.read("run.json")["seconds"],
  }


def _over_seeds(trees):
  """Merges trees of numbers into one of {"mean", "sd", "largest"}.

  The standard deviation is that of a sample (n - 1), None for one seed.
  """
  if isinstance(trees[0], dict):
    names = dict.fromkeys(name for tree in trees for name in tree)
    return {n: _over_seeds([t[n] for t in trees if n in t]) for n in names}
  sd = statistics.stdev(trees) if len(trees) > 1 else None
  return {"mean": statistics.fmean(trees), "sd": sd, "largest": max(trees)}


def keep(run, target):
  """Writes what tables need of a finished run into another folder.

  Some tens of kB without a word of the data: its settings, cost and scores,
  `counts` and its F1 on dev over the updates.
  """
  for name in ("config", "run", "test_metrics", "test_retrieval"):
    path = run.folder / f"{name}.json"
    if path.exists():
      files.write(target / path.name, path.read_text())
  found = counts(run.folder).tolist()
  files.write(target / "counts.json", json.dumps(found).replace(" ", ""))
  log = (run.folder / "metrics.jsonl").read_text().splitlines(keepends=True)
  dev = [line for line in log if '"valid_f1"' in line]
  files.write(target / "metrics.jsonl", "".join(dev))


def counts(folder):
  """[N, 3] counts of a finished run's test sentences, sorted by language."""
  if (folder / "counts.json").exists():  # see `keep`
    return np.array(json.loads((folder / "counts.json").read_text()))
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


def _protocol(table, num_rows, runs):
  """How the numbers of finished runs came about, as lines."""
  records = [
    config.flatten(cli.read_workdir(run.folder)) | run.read("run.json")
    for run in runs
  ]
  lines = []
  for name in _SETTINGS:
    values = {record[name] for record in records}
    if any(values):  # no commit is known outside a checkout
      lines.append(f"{name}: {', '.join(sorted(map(str, values)))}")
  if weights := {record["model.text.weights"] for record in records} - {""}:
    lines.append(f"text encoder: {', '.join(sorted(weights))}")
  lines += [
    "±: standard deviation over seeds (n - 1)",
    "run: the folder runs/RUN-SEED holds config and scores; where it was made,"
    " logs and predictions too",
  ]
  if table.reference:
    compared = max(num_rows - 1, 1)
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


def markdown(table, found):
  """Returns the text of `table.md`, from a rows.Table and its `collect`."""
  rows = [_cells(table, row) for row in found["rows"]]
  by_length = sorted(rows, key=len, reverse=True)
  headings = list(dict.fromkeys(h for row in by_length for h in row))
  lines = [headings, ["---"] * len(headings)]
  lines += [[row.get(h, "-") for h in headings] for row in rows]
  text = [f"**{table.title}**, in %", ""]
  text += [f"| {' | '.join(line)} |" for line in lines]
  text += ["", *(f"- {line}" for line in found["protocol"])]
  for row in found["rows"]:
    for seed, reason in row["failed"].items():
      text.append(f"- MISSING: {row['row']}, seed {seed}: {reason}")
  return "\n".join(text) + "\n"


def _percent(spread):
  # 0 is what chance has: it is the same for every seed.
  sd = f" ± {100 * spread['sd']:.2f}" if spread["sd"] else ""
  return f"{100 * spread['mean']:.2f}{sd}"


def _cells(table, row):
  """Returns a row of the table, {heading: text}."""
  if "scores" not in row:
    return {"": row["row"], "run": row["hash"]}
  cells, scores = {"": row["row"]}, row["scores"]
  if table.reference:
    low, high = row["interval"]
    cells["F1"] = _percent(scores["f1"])
    cells["95 %"] = f"{100 * low:.2f}-{100 * high:.2f}"
    if "p" in row:
      cells["difference"] = f"{100 * row['difference']:+.2f}"
      cells["p"] = f"{row['p']:.4f}"
    cells["strict F1"] = _percent(scores["f1_strict"])
  for heading, path in table.columns.items():
    names = path.split(".")
    score = functools.reduce(lambda x, k: x.get(k, {}), names, scores)
    if score and names[-1] == "p":
      cells[heading] = f"{score['largest']:.4f}"
    elif score:
      zero_shot = names[0] == "per_language" and heading not in row["languages"]
      cells[heading] = _percent(score) + "*" * zero_shot
  seconds = f"{scores['seconds']['mean']:.0f}"
  return cells | {"s/run": seconds, "run": row["hash"]}

"""A table as Markdown and JSON: what was measured, how sure it is, and how."""

import collections
import json

import numpy as np

from mner_jax import files
from mner_jax.evaluation import retrieval
from mner_jax.evaluation import significance as statistics


def collect(table, runs, failures):
  """The table as a dict, the content of `table.json`.

  Args:
    table: rows.Table.
    runs: its runs.Run, finished or not.
    failures: {folder: why} of those that failed.
  """
  by_row = collections.defaultdict(list)
  for run in runs:
    by_row[run.row].append(run)
  by_seed = {
    row: {r.seed: counts(r.folder) for r in members if r.finished}
    for row, members in by_row.items()
  }
  rows = []
  for name, members in by_row.items():
    finished = [r for r in members if r.finished]
    row = {
      "row": name,
      "hash": members[0].hash,
      "changes": table.rows[name],
      "languages": members[0].config.data.languages,
      "seeds": [r.seed for r in finished],
      "failed": {
        r.seed: failures.get(r.folder, "not run")
        for r in members
        if not r.finished
      },
    }
    if finished:
      row |= _numbers(table, finished)
      row |= _statistics(by_seed[name], by_seed.get(table.reference, {}))
    rows.append(row)
  return {
    "title": table.title,
    "reference": table.reference,
    "columns": list(table.columns),
    "languages": sorted({x for r in runs for x in _languages(r.config)}),
    "rows": rows,
    "protocol": _protocol(table, runs),
  }


def _languages(config):
  return config.data.eval_languages or config.data.languages


def counts(folder):
  """[N, 3] counts of the test sentences of a finished run, by language."""
  lines = (folder / "test_predictions.jsonl").read_text().splitlines()
  # Those that were trained on stand first in the file; rows differ in these.
  records = sorted(map(json.loads, lines), key=lambda r: r["language"])
  return statistics.sentence_counts(
    [r["gold"] for r in records], [r["tags"] for r in records]
  )


def _spread(values):
  """Mean and standard deviation over seeds (n - 1); None for one seed."""
  values = [v for v in values if v is not None]
  if not values:
    return None
  deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
  mean, largest = float(np.mean(values)), max(values)
  return {"mean": mean, "sd": deviation, "largest": largest}


def _at(tree, path):
  for name in path.split("."):
    if not isinstance(tree, dict) or name not in tree:
      return None
    tree = tree[name]
  return tree


def _numbers(table, finished):
  scores = []
  for run in finished:
    found = run.read("test_metrics.json")
    scores.append(found | {"retrieval": run.read("test_retrieval.json")})
  costs = [run.read("run.json")["seconds"] for run in finished]
  return {
    "f1": _spread([s["f1"] for s in scores]),
    "f1_strict": _spread([s["f1_strict"] for s in scores]),
    "columns": {
      heading: _spread([_at(s, path) for s in scores])
      for heading, path in table.columns.items()
    },
    "by_language": {
      name: _spread([_at(s, f"per_language.{name}.f1") for s in scores])
      for name in scores[0]["per_language"]
    },
    "retrieval": scores[0]["retrieval"] and _recalls(scores),
    "entities": scores[0]["counts"]["entities"],
    "sentences": scores[0]["counts"]["sentences"],
    "best_steps": [s["checkpoint_step"] for s in scores],
    "seconds": float(np.mean(costs)),
  }


def _recalls(scores):
  """The first seed's tree of recalls with each number's spread over seeds."""

  def spread(path, node):
    if isinstance(node, dict):
      return {k: spread(f"{path}.{k}", v) for k, v in node.items()}
    return _spread([_at(s, path) for s in scores])

  return spread("retrieval", scores[0]["retrieval"])


def _statistics(counts, reference):
  """Interval of a row, and its test against the reference row's seeds."""
  stacked = np.stack(list(counts.values()))
  found = {"interval": statistics.bootstrap(stacked)}
  shared = [seed for seed in counts if seed in reference]
  if shared and counts is not reference:
    pair = [np.stack([x[seed] for seed in shared]) for x in (counts, reference)]
    # Rows scored on other sentences cannot be paired.
    if pair[0].shape == pair[1].shape and np.array_equal(
      pair[0][..., 2], pair[1][..., 2]
    ):
      found["difference"], found["p"] = statistics.paired_test(*pair)
  return found


def _protocol(table, runs):
  """How the numbers came about, as lines."""
  finished = [r for r in runs if r.finished]
  records = [r.read("run.json") for r in finished]
  configs = [r.read("config.json") for r in finished]

  def all_of(values):
    return ", ".join(sorted({str(v) for v in values})) or "-"

  seeds = all_of(r.seed for r in runs)
  compared = len(table.rows) - 1
  lines = [
    f"data: {all_of(r.config.data.path for r in runs)}; hash of its train and"
    " valid sentences:"
    f" {all_of(c['data']['fingerprint'] for c in configs)}",
    f"budget of every row: {all_of(c['train']['epochs'] for c in configs)}"
    f" epochs, batches of {all_of(c['train']['batch_size'] for c in configs)},"
    " learning rate"
    f" {all_of(c['optim']['learning_rate'] for c in configs)}",
    f"seeds: {seeds}; ± is the standard deviation over them (n - 1)",
  ]
  if table.reference:
    lines += [
      "score: seqeval micro F1 on test, default mode (conlleval's reading),"
      " strict IOB2 beside it; the checkpoint is the one best on dev",
      "interval: 95 % percentile bootstrap of the mean over seeds, 10,000"
      " replicates; each draws the test sentences with replacement and, apart"
      " from them, the seeds",
      f"p: difference to {table.reference}, two-sided approximate"
      " randomisation over sentences (10,000 swaps; the same swap for all"
      " seeds), paired by seed and sentence; it speaks of these trained"
      f" models, and is not corrected: {compared} rows are compared, so"
      f" Bonferroni's .05 is {0.05 / max(compared, 1):.4f}",
    ]
  lines += [
    f"machine: {all_of(r['hardware'] for r in records)}; jax"
    f" {all_of(r['jax'] for r in records)}; commit"
    f" {all_of(r['commit'] or 'unknown' for r in records)};"
    f" {all_of(r['date'] for r in records)}",
    f"cost: {sum(r['seconds'] for r in records) / 60:.0f} min in all",
    "run: the folder runs/RUN-SEED holds config, logs, predictions and scores",
  ]
  return [*lines, *table.notes]


def _percent(spread):
  if spread is None:
    return "-"
  sd = "" if spread["sd"] is None else f" ± {100 * spread['sd']:.2f}"
  return f"{100 * spread['mean']:.2f}{sd}"


def markdown(found):
  """The text of `table.md`: the table of `collect`, and the protocol."""
  rows = [row for row in found["rows"] if row["seeds"]]
  scored = bool(found["reference"])
  columns = [
    name
    for name in found["columns"]
    if any(row["columns"][name] for row in rows)
  ]
  header = ["", *columns, "s/run", "run"]
  if scored:
    header[1:1] = ["F1", "95 %", "difference", "p", "strict F1"]
    header.insert(-2, "entities")
  lines = [header, ["---"] * len(header)]
  for row in found["rows"]:
    name, missing = row["row"], len(row["failed"])
    if missing:
      name += f" ({missing} of {missing + len(row['seeds'])} runs missing)"
    if not row["seeds"]:
      lines.append([name, *["-"] * (len(header) - 2), row["hash"]])
      continue
    cells = [_cell(found, row, c) for c in columns]
    if scored:
      low, high = row["interval"]
      tested = "p" in row
      cells[:0] = [
        _percent(row["f1"]),
        f"{100 * low:.2f}-{100 * high:.2f}",
        f"{100 * row['difference']:+.2f}" if tested else "",
        f"{row['p']:.4f}" if tested else "",
        _percent(row["f1_strict"]),
      ]
      cells.append(f"{row['entities']:,}")
    lines.append([name, *cells, f"{row['seconds']:.0f}", row["hash"]])
  text = [f"**{found['title']}**, in %", ""]
  text += [f"| {' | '.join(line)} |" for line in lines]
  if not scored:
    text += ["", *_retrieval(rows)]
  text += ["", *(f"- {line}" for line in found["protocol"])]
  for row in found["rows"]:
    for seed, reason in row["failed"].items():
      text.append(f"- MISSING: {row['row']}, seed {seed}: {reason}")
  return "\n".join(text) + "\n"


def _cell(found, row, column):
  cell = _percent(row["columns"][column])
  is_language = column in found["languages"]
  zero_shot = is_language and column not in row["languages"] and cell != "-"
  return cell + "*" * zero_shot


def _retrieval(rows):
  """Recalls and mean ranks by language, both ways, against chance."""
  ranks = [str(k) for k in retrieval.RANKS]
  ways = {"text_to_image": "text → picture", "image_to_text": "picture → text"}
  header, at = ["", "language", "pictures"], [f"R@{k}" for k in ranks]
  header += [f"{way} {x}" for way in ways.values() for x in (*at, "mean rank")]
  lines = [[*header, "p"]]
  lines.append(["---"] * len(lines[0]))
  for row in rows:
    for language, recalls in row["retrieval"].items():
      pictures = f"{recalls['pictures']['mean']:.0f}"
      for name, tree in ((row["row"], recalls), ("chance", recalls["chance"])):
        cells = []
        for way in ways:
          cells += [_percent(tree[way][k]) for k in ranks]
          cells.append(f"{tree[way]['mean_rank']['mean']:.1f}")
        if name == "chance":
          cells = [*(c.partition(" ")[0] for c in cells), ""]
        else:
          cells.append(f"{recalls['p']['largest']:.4f}")
        lines.append([name, language, pictures, *cells])
  return [f"| {' | '.join(line)} |" for line in lines]


def write(table, runs, failures, folder):
  """Writes `table.json` and `table.md`; returns (the dict, the Markdown)."""
  found = collect(table, runs, failures)
  text = markdown(found)
  files.write(folder / "table.json", json.dumps(found, indent=2))
  files.write(folder / "table.md", text)
  return found, text

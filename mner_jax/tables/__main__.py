"""Reproduces a table: trains its rows with several seeds and compares them.

  python -m mner_jax.tables ablation --seeds=3 --scale=mini

The tables are defined in tables/rows.py. `mini` is for CPUs: the synthetic
corpus, or the first sentences of --data. `paper` has the authors' sizes and
all of --data. --config.a.b=value changes a setting in every row that does not
set it itself.

Finished runs are not repeated and others resume; a run that fails is reported
and does not stop the others. Ctrl-C or SIGTERM saves. WORKDIR/NAME-SCALE/kept/
gets what the table needs of its finished runs, made here or kept before: copied
to mner_jax/tables/results/ they count as finished everywhere, and --kept prints
the table from them, without data.
Exit code 0; 1 if a run failed; 2 for bad input; 75 if stopped.
"""

import contextlib
import dataclasses
import importlib
import json
import sys

from etils import epath

from mner_jax import cli, pretrained
from mner_jax import config as config_lib
from mner_jax.config import UserError
from mner_jax.data import builders, files
from mner_jax.tables import output, prepare, runs
from mner_jax.tables.rows import TABLES


def arguments(parser):
  """Defines the command's arguments."""
  add = parser.add_argument
  names = "which: " + ", ".join(TABLES)
  add("name", metavar="NAME", nargs="?", choices=TABLES, help=names)
  add("--list", action="store_true", help="say what each table shows")
  add("--seeds", type=cli.count, help="of 19, 20, ... (default: 3)")
  add("--scale", choices=("mini", "paper"), default="mini", help="its size")
  add("--data", metavar="DIR", help="the data set (default: the config's)")
  rows = "only this row, and the reference; repeatable"
  add("--rows", action="append", help=rows)
  add("--workdir", default="runs/tables", help="folder of all tables")
  kept = "only print it again, from the runs in mner_jax/tables/results/"
  add("--kept", action="store_true", help=kept)


def plan(args):
  """Returns the runs.Run that are asked for, and those of the other rows."""
  table = TABLES[args.name]
  if args.scale not in table.configs:
    raise UserError(f"--scale: {args.name} has no scale {args.scale!r}")
  rows, names = _rows(args, table)
  asked = {k: row for k, row in rows.items() if k in names}
  for name in args.overrides:
    if name == "seed" or all(name in row for row in asked.values()):
      raise UserError(f"--config.{name}: every run of the table has its own")
  workdir = epath.Path(args.workdir)
  module = f"mner_jax.configs.{table.configs[args.scale]}"
  config = importlib.import_module(module).get_config()
  config = config_lib.replace(config, table.budget.get(args.scale, {}))
  config = cli.override(config, args.overrides)
  config = config_lib.replace(config, _data(args, table, config, workdir))
  seeds = range(19, 19 + (args.seeds or 3))
  planned, others = runs.plan(config, asked, seeds, workdir), []
  for run in planned:
    if not run.finished:  # a run would find no weights only when its turn comes
      pretrained.fill_sizes(run.config)
  for name in (name for name in rows if name not in names):
    with contextlib.suppress(UserError):  # not possible with these arguments
      others += runs.plan(config, {name: rows[name]}, seeds, workdir)
  return planned, others


def _rows(args, table):
  """(rows at this scale, names of those of --rows and of the reference)."""
  left_out = table.paper_only if args.scale == "mini" else ()
  rows = {k: row for k, row in table.rows.items() if k not in left_out}
  names = args.rows or rows
  if unknown := [name for name in names if name not in rows]:
    known = ", ".join(rows)
    raise UserError(f"--rows: no row {unknown[0]!r}; there are {known}")
  return rows, {*names, table.reference}


def _data(args, table, config, workdir):
  """{field: value} that leads to the data, or to the part that is used."""
  source, target = args.data or config.data.path, workdir / "data" / args.name
  if args.name.startswith("retrieval"):
    prepare.captions(source, target)
    folder = epath.Path(source).expanduser().resolve()
    images = folder / config.data.images
    return {"data.path": str(target), "data.images": str(images)}
  if args.scale == "mini" and table.subset:
    _, folder = builders.place(dataclasses.replace(config.data, path=source))
    prepare.subset(folder, target, config.data, table.subset)
    plain = {"data.scheme": "iob2", "data.tag_column": "-1"}  # as it is written
    return {"data.path": str(target)} | plain
  return {"data.path": source}


def _keep(planned, target, name):
  """Writes the finished runs' `output.keep`, and NAME.json: which row's."""
  rows = {}
  for run in planned:
    if run.finished:
      row = rows.setdefault(run.row, {"hash": run.hash, "seeds": []})
      row["seeds"].append(run.seed)
      output.keep(run, target / "runs" / f"{run.hash}-{run.seed}")
  files.write(target / f"{name}.json", json.dumps(rows, indent=2) + "\n")


def main(args):
  """Runs the table, prints it, writes it to WORKDIR/NAME-SCALE/."""
  if args.list:
    for name, table in TABLES.items():
      print(f"{name}: {table.title}; {len(table.rows)} rows")
    return
  if not args.name:
    raise UserError("NAME is missing; --list says which tables there are")
  # Not at the top: it needs the extra [tables]. Not after the training.
  from mner_jax.tables import figure

  table, failures = TABLES[args.name], {}
  name = f"{args.name}-{args.scale}"
  folder = epath.Path(args.workdir) / name
  if args.kept:
    if args.seeds or args.rows or args.data or args.overrides:
      raise UserError("--kept takes no --seeds, --rows, --data or --config.a.b")
    planned = runs.kept(name)
    folder = epath.Path(args.workdir) / f"{name}-kept"  # not over one's own
  else:
    planned, others = plan(args)
    try:
      failures = runs.execute(planned)
    finally:  # also what was finished before it was stopped
      _keep([*planned, *others], folder / "kept", name)
  found = output.collect(table, planned, failures)
  text = output.markdown(table, found)
  files.write(folder / "table.json", json.dumps(found, indent=2))
  files.write(folder / "table.md", text)
  print(text)
  if table.reference and any(row["seeds"] for row in found["rows"]):
    figure.draw(found, planned, folder / "figure.svg")
  runs.say(f"written to {folder}")
  if failures:
    sys.exit(1)


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__, overrides=True)

"""Reproduces a table: trains its rows with several seeds, compares them.

  python -m mner_jax.tables ablation --seeds=3 --scale=mini

NAME is one of main, ablation, languages, alignment, text, paintings,
retrieval; what they hold stands in tables/rows.py. `mini` is for CPUs: the
synthetic corpus, or a stated part of --data. `paper` is the authors' sizes and
--data.

Finished runs are not repeated, others go on where they stood; a run that
fails is reported and does not stop the others. Ctrl-C or SIGTERM saves.
Exit code 0; 1 if a run failed; 2 for bad input; 75 if stopped.
"""

import sys

from etils import epath

from mner_jax import cli
from mner_jax import config as config_lib
from mner_jax.config import UserError
from mner_jax.tables import figure, output, prepare, runs
from mner_jax.tables.rows import TABLES


def arguments(parser):
  """Defines the command's flags."""
  add = parser.add_argument
  add("name", metavar="NAME", choices=TABLES, help=", ".join(TABLES))
  add("--seeds", type=int, default=3, help="how many: 19, 20, ... (default: 3)")
  add("--scale", default="mini", choices=("mini", "paper"), help="of what size")
  add("--data", default="", metavar="DIR", help="folder of the data set")
  add(
    "--weights",
    default="",
    help="folder or Hub name of the text encoder's weights",
  )
  add(
    "--train_sentences",
    type=int,
    help="first sentences of train per language; 0 = all (default: the table's)",
  )
  add(
    "--rows",
    action="append",
    default=[],
    help="only this row, and the reference; may be repeated",
  )
  add(
    "--override",
    action="append",
    default=[],
    metavar="a.b=VALUE",
    help="of every row alike; may be repeated",
  )
  add("--workdir", default="runs/tables", help="folder of all tables")


def _rows(args, table):
  left_out = table.paper_only if args.scale == "mini" else ()
  table = table._replace(
    rows={k: row for k, row in table.rows.items() if k not in left_out}
  )
  if unknown := [name for name in args.rows if name not in table.rows]:
    raise UserError(
      f"--rows: no row {unknown[0]!r}; there are {', '.join(table.rows)}"
    )
  wanted = {*args.rows, table.reference} if args.rows else table.rows
  return {name: row for name, row in table.rows.items() if name in wanted}


def _overrides(args, table, workdir):
  """The fields that all rows share, those of the command line last."""
  fields = dict(table.budget.get(args.scale, {}))
  texts = dict(runs.split_override(text) for text in args.override)
  config = runs.make_config(table.configs[args.scale], {})
  values = config_lib.flatten(cli.override(config, texts))
  given = {name: values[name] for name in texts}
  data, name = args.data, args.name
  if table.configs[args.scale] == "synthetic":
    if data:
      raise UserError(
        f"--data: {name} at this scale is of the synthetic corpus"
      )
  elif not data and "data.path" not in given:
    raise UserError(f"--data: {name} needs the folder of its data set")
  elif name == "retrieval":
    target = workdir / "data" / name
    fields["data.path"] = str(prepare.captions(data, target))
    fields["data.images"] = str(epath.Path(data).resolve() / "images")
  elif data:
    sizes = table.subset.get(args.scale, (None,) * 3)
    if args.train_sentences is not None:
      sizes = (args.train_sentences or None, *sizes[1:])
    fields["data.path"] = data
    if sizes != (None,) * 3:
      config = runs.make_config(table.configs[args.scale], fields)
      target = workdir / "data" / "-".join([name, *map(str, sizes)])
      prepare.subset(data, target, config.data.languages, sizes)
      fields["data.path"] = str(target)
  if args.weights:
    fields["model.text.weights"] = args.weights
  return fields | given


def main(args):
  """Runs the table, prints it, writes it to WORKDIR/NAME-SCALE/."""
  if args.seeds < 1:
    raise UserError("--seeds must be above 0")
  if (args.train_sentences or 0) < 0:
    raise UserError("--train_sentences must be 0 or above")
  name = args.name
  figure.pyplot()  # better now than in an hour
  workdir = epath.Path(args.workdir)
  table = TABLES[name]
  table = table._replace(rows=_rows(args, table))
  seeds = range(19, 19 + args.seeds)
  planned = runs.plan(
    table.rows,
    table.configs[args.scale],
    _overrides(args, table, workdir),
    seeds,
    workdir,
  )
  failures = runs.execute(planned)
  folder = workdir / f"{name}-{args.scale}"
  found, text = output.write(table, planned, failures, folder)
  if table.reference and any(row["seeds"] for row in found["rows"]):
    figure.draw(found, planned, folder)
  print(text)
  runs.say(f"written to {folder}")
  if failures:
    sys.exit(1)


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__)

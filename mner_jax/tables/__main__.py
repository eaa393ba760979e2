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

from absl import flags
from etils import epath

from mner_jax.cli import launch
from mner_jax.config import UserError
from mner_jax.tables import figure, output, prepare, runs
from mner_jax.tables.rows import TABLES

_SEEDS = flags.DEFINE_integer(
  "seeds", 3, "How many; they are 19, 20, ...", lower_bound=1
)
_SCALE = flags.DEFINE_enum("scale", "mini", ["mini", "paper"], "Of what size.")
_DATA = flags.DEFINE_string("data", "", "Folder of the data set.")
_WEIGHTS = flags.DEFINE_string(
  "weights", "", "Folder or Hub name of the text encoder's weights."
)
_TRAIN_SENTENCES = flags.DEFINE_integer(
  "train_sentences",
  None,
  "First sentences of train per language; 0 = all. Default: the table's.",
  lower_bound=0,
)
_ROWS = flags.DEFINE_list("rows", [], "Only these; the reference is one more.")
_OVERRIDE = flags.DEFINE_multi_string(
  "override", [], "a.b=value, of every row alike."
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/tables", "Folder of all.")


def _rows(table):
  left_out = table.paper_only if _SCALE.value == "mini" else ()
  table = table._replace(
    rows={k: row for k, row in table.rows.items() if k not in left_out}
  )
  if unknown := [name for name in _ROWS.value if name not in table.rows]:
    raise UserError(
      f"--rows: no row {unknown[0]!r}; there are {', '.join(table.rows)}"
    )
  wanted = {*_ROWS.value, table.reference} if _ROWS.value else table.rows
  return {name: row for name, row in table.rows.items() if name in wanted}


def _overrides(name, table, workdir):
  """The fields that all rows share, those of the command line last."""
  fields = dict(table.budget.get(_SCALE.value, {}))
  given = dict(runs.parse_override(text) for text in _OVERRIDE.value)
  data = _DATA.value
  if table.configs[_SCALE.value] == "synthetic":
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
    sizes = table.subset.get(_SCALE.value, (None,) * 3)
    if _TRAIN_SENTENCES.value is not None:
      sizes = (_TRAIN_SENTENCES.value or None, *sizes[1:])
    fields["data.path"] = data
    if sizes != (None,) * 3:
      config = runs.make_config(table.configs[_SCALE.value], fields)
      target = workdir / "data" / "-".join([name, *map(str, sizes)])
      prepare.subset(data, target, config.data.languages, sizes)
      fields["data.path"] = str(target)
  if _WEIGHTS.value:
    fields["model.text.weights"] = _WEIGHTS.value
  return fields | given


def main(name="", *rest):
  """Runs the table, prints it, writes it to WORKDIR/NAME-SCALE/."""
  if name not in TABLES or rest:
    raise UserError(f"expected one table out of {', '.join(TABLES)}")
  figure.pyplot()  # better now than in an hour
  workdir = epath.Path(_WORKDIR.value)
  table = TABLES[name]
  table = table._replace(rows=_rows(table))
  seeds = range(19, 19 + _SEEDS.value)
  planned = runs.plan(
    table.rows,
    table.configs[_SCALE.value],
    _overrides(name, table, workdir),
    seeds,
    workdir,
  )
  failures = runs.execute(planned)
  folder = workdir / f"{name}-{_SCALE.value}"
  found, text = output.write(table, planned, failures, folder)
  if table.reference and any(row["seeds"] for row in found["rows"]):
    figure.draw(found, planned, folder)
  print(text)
  runs.say(f"written to {folder}")
  if failures:
    sys.exit(1)


if __name__ == "__main__":
  launch(main, arguments=True)

"""Measures speed and memory on this machine.

  python -m mner_jax.benchmark --suite=train --config.dtype=bfloat16
  python -m mner_jax.benchmark --suite=crf --compare=torch

`train` measures the whole step of a config at its sizes, with random weights
and random batches; `compile` what tracing, lowering and compiling it take, and
how large the program is; `crf` the CRF alone; `input` the loader on
photographs, and the train step it has to keep up with. `--compare=torch` runs
PyTorch in turns with ours, on one device: the reference of tests/parity,
pytorch-crf, or its DataLoader (extra [parity], from a checkout).

  python -m mner_jax.benchmark --compile_for=v5e:4x4 --config.dtype=bfloat16

compiles the train step for a TPU slice on a machine without one (extra [tpu]);
batch sizes are per device then, and the exit code is 3 if one does not fit.
"""

import itertools
import json
import os
import sys

import jax
from etils import epath

from mner_jax import cli
from mner_jax.benchmark import aot, crf, input, train
from mner_jax.config import UserError, flatten, replace
from mner_jax.configs import mmnerd
from mner_jax.data import files
from mner_jax.pretrained import ENCODERS, fill_sizes
from mner_jax.training import compiling

# Flags that some suites have no use for.
_TIMING = ("compare", "repeats")
_NO_USE = {
  "crf": ("config", "overrides", "batch_sizes", "lengths"),
  "compile": _TIMING,
  "--compile_for": _TIMING,
}


def counts(text):
  """Reads 8,32."""
  return [cli.count(number) for number in text.split(",")]


def arguments(parser):
  """Defines the command's flags."""
  add = parser.add_argument
  sizes = "a config file, for its sizes; weights bring theirs if in a folder"
  add("--config", help=sizes)
  what = parser.add_mutually_exclusive_group().add_argument
  what("--suite", default="train", choices=("train", "compile", "crf", "input"))
  what("--compile_for", help="TPU slice to compile for, such as v5e:4x4")
  add("--compare", choices=("torch",), help="what to run in turns with ours")
  add("--batch_sizes", type=counts, help="rows (default: 32,256; input: 32)")
  add("--lengths", type=counts, help="their word pieces (default: 32)")
  add("--repeats", type=cli.count, help="rounds (default: 7)")
  add("--output", type=cli.output, help="JSON file to write the rows to")


def _load(args):
  """Returns the config with random weights; four types unless it names some.

  Weights in a folder settle their encoder's sizes. A Hub's are not fetched, so
  a flag that names them, or no folder by mistake, would do nothing.
  """
  config = cli.load(args.config or mmnerd.__file__)
  config = cli.override(config, args.overrides)
  known, names = flatten(config), [f"model.{x}.weights" for x in ENCODERS]
  folders = (epath.Path(known[name]).expanduser() for name in names)
  hub = [n for n, x in zip(names, folders, strict=True) if not x.is_dir()]
  if named := [name for name in hub if args.overrides.get(name)]:
    text = f"--config.{named[0]}: {known[named[0]]} is not a folder"
    raise UserError(f"{text}; weights of the Hub are not fetched here")
  labels = known["data.labels"] or ("LOC", "MISC", "ORG", "PER")
  config = replace(config, {"data.labels": labels} | dict.fromkeys(hub, ""))
  return replace(fill_sizes(config), dict.fromkeys(names, ""))


def _pytorch():
  try:
    from tests.parity import speed
  except ImportError as error:
    needs = "the extra [parity], and a checkout as the working directory"
    raise UserError(f"--compare=torch: {error}; it needs {needs}") from None
  return speed


def _rows(args):
  suite = "--compile_for" if args.compile_for else args.suite
  for name in _NO_USE.get(suite, ()):
    if getattr(args, name):
      flag = f"config.{[*args.overrides][0]}" if name == "overrides" else name
      raise UserError(f"--{flag} does nothing in {suite}")
  if "train.batch_size" in args.overrides:
    raise UserError("--config.train.batch_size: give --batch_sizes here")
  config = _load(args)
  longest, lengths = config.model.text.max_positions, args.lengths or [32]
  if not all(3 <= length <= longest for length in lengths):
    # A word and two special pieces; positions beyond the last are not learnt.
    raise UserError(f"--lengths: must be 3 to {longest}, not {lengths}")
  batch_sizes = args.batch_sizes or ([32] if suite == "input" else [32, 256])
  sizes = list(itertools.product(batch_sizes, lengths))
  if args.compile_for:
    return aot.run(config, args.compile_for, sizes)
  if suite == "compile":
    return train.compile_rows(config, sizes)
  repeats, pytorch = args.repeats or 7, _pytorch() if args.compare else None
  if suite == "crf":
    return crf.run(repeats=repeats, pytorch=pytorch)
  if suite == "input":
    rows = input.run(repeats=repeats, pytorch=pytorch)
    return [*rows, *train.run(config, sizes, repeats=repeats)]
  return train.run(config, sizes, repeats=repeats, pytorch=pytorch)


def _cell(value):
  if isinstance(value, float):
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"
  return str(value)


def _table(rows):
  names = list(dict.fromkeys(name for row in rows for name in row))
  lines = [[_cell(row.get(name, "")) for name in names] for row in rows]
  columns = zip(names, *lines, strict=True)
  line = "  ".join(f"{{:>{max(map(len, column))}}}" for column in columns)
  return "\n".join(line.format(*cells) for cells in [names, *lines])


def main(args):
  """Runs the suite, prints the table, writes the JSON."""
  # PyTorch needs its share of a GPU that both run on.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  if args.compile_for:  # needs the TPU's compiler, not a TPU
    jax.config.update("jax_platforms", "cpu")
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
  if "cpu" not in (names := jax.config.jax_platforms or "cpu"):
    jax.config.update("jax_platforms", f"{names},cpu")  # which counts the work
  compiling.reuse_memory()  # as train.py does
  machine = {
    "device": jax.devices()[0].device_kind,
    "devices": jax.device_count(),
    "cpus": os.cpu_count(),
    "jax": jax.__version__,
  }
  print(machine)
  rows = []
  for row in _rows(args):
    rows.append(row)
    if args.output:  # after each row: the next may take long, or fail
      found = {"machine": machine, "rows": rows}
      if args.suite == "compile":
        found |= rows[0]
      files.write(args.output, json.dumps(found, indent=2) + "\n")
  print(_table(rows))
  if not all(row.get("fits", True) for row in rows):
    sys.exit(3)


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__, overrides=True)

"""Measures speed and memory on this machine.

  python -m mner_jax.benchmark --suite=train --config.dtype=bfloat16
  python -m mner_jax.benchmark --suite=crf --compare=torch

`train` measures the whole step of a config at its sizes, with random weights
and random batches; `crf` the CRF alone; `input` the loader on photographs, and
the train step beside it. `--compare=torch` runs PyTorch in turns with it: the
reference of tests/parity, pytorch-crf, or its DataLoader (extra [parity], from
a checkout).

  python -m mner_jax.benchmark --compile_for=v5e:4x4 --config.dtype=bfloat16

compiles the train step for a TPU slice on a machine without one (extra [tpu]);
batch sizes are per device then, and the exit code is 3 if one does not fit.
"""

import json
import os
import pathlib
import platform
import sys

# PyTorch needs its share of a GPU that both run on.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
if any(x.lstrip("-").startswith("compile_for=") for x in sys.argv):
  # The TPU's compiler is asked, a TPU is not.
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["TPU_SKIP_MDS_QUERY"] = "1"

import jax
from etils import epath

import mner_jax
from mner_jax import cli
from mner_jax.benchmark import aot, crf, input, train
from mner_jax.config import UserError, replace
from mner_jax.pretrained import fill_sizes

_CONFIGS = pathlib.Path(mner_jax.__file__).parent / "configs"


def numbers(text):
  """Reads 8,32."""
  return [int(value) for value in text.split(",")]


def arguments(parser):
  """Defines the command's flags."""
  add = parser.add_argument
  add(
    "--config",
    metavar="FILE",
    default=_CONFIGS / "mmnerd.py",
    help="the experiment whose sizes to take, with random weights",
  )
  add(
    "--suite",
    default="train",
    choices=("train", "crf", "input"),
    help="what to measure",
  )
  add("--compare", default="", choices=("", "torch"), help="beside what")
  listed = {"type": numbers, "metavar": "N,N"}
  add("--batch_sizes", default=[32, 256], help="sentences", **listed)
  add("--lengths", default=[32], help="word pieces of a sentence", **listed)
  add(
    "--num_types",
    default=[None],
    help="entity types for train (default: the config's)",
    **listed,
  )
  add("--repeats", type=int, default=7, help="rounds (default: 7)")
  add(
    "--compile_for",
    default="",
    metavar="SLICE",
    help="TPU slice to compile the train step for, as v5e:4x4",
  )
  add("--output", metavar="FILE", help="write the rows there, as JSON")


def _config(config, num_types=None):
  """Returns the config with random weights; four types unless it names some."""
  labels = config.data.labels or ("LOC", "MISC", "ORG", "PER")
  if num_types is not None:
    labels = tuple(f"T{i}" for i in range(num_types))
  fields = {f"model.{name}.weights": "" for name in ("text", "vit", "resnet")}
  return fill_sizes(replace(config, fields | {"data.labels": labels}))


def _run(args):
  config = cli.override(cli.load(args.config), args.overrides)
  sizes, lengths = args.batch_sizes, args.lengths
  measure = {"compare": args.compare, "repeats": args.repeats}
  if args.compile_for:
    return aot.run(
      _config(config), args.compile_for, batch_sizes=sizes, lengths=lengths
    )
  if args.suite == "crf":
    return crf.run(**measure)
  rows = input.run(**measure) if args.suite == "input" else []
  if args.suite == "input":  # the rate that the input has to keep up with
    sizes, lengths = sizes[:1], lengths[:1]
    measure["compare"] = ""
  measure |= {"batch_sizes": sizes, "lengths": lengths}
  for count in args.num_types:
    rows += train.run(_config(config, count), **measure)
  return rows


def _table(rows):
  names = list(dict.fromkeys(name for row in rows for name in row))

  def cell(value):
    if isinstance(value, float):
      return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"
    return str(value)

  lines = [names, *([cell(row.get(n, "")) for n in names] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    "  ".join(x.rjust(w) for x, w in zip(line, widths, strict=True))
    for line in lines
  )


def main(args):
  """Runs the suite, prints the table, writes the JSON."""
  if args.repeats < 1:
    raise UserError("--repeats must be above 0")
  device = jax.devices()[0]
  machine = {
    "device": device.device_kind,
    "devices": jax.device_count(),
    "cpus": os.cpu_count(),
    "machine": platform.machine(),
    "jax": jax.__version__,
  }
  print(machine)
  rows = _run(args)
  print(_table(rows))
  if args.output:
    text = json.dumps({"machine": machine, "rows": rows}, indent=2)
    epath.Path(args.output).write_text(text + "\n")
  if not all(row.get("fits", True) for row in rows):
    sys.exit(3)


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__, overrides=True)

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
from absl import flags
from etils import epath
from ml_collections import config_flags

import mner_jax
from mner_jax.benchmark import aot, crf, input, train
from mner_jax.cli import launch
from mner_jax.config import UserError, from_config_dict
from mner_jax.pretrained import resolve

_CONFIGS = pathlib.Path(mner_jax.__file__).parent / "configs"
_CONFIG = config_flags.DEFINE_config_file(
  "config", str(_CONFIGS / "mmnerd.py"), "The experiment whose sizes to take."
)
_SUITE = flags.DEFINE_enum(
  "suite",
  "train",
  ["train", "crf", "input"],
  "What to measure.",
)
_COMPARE = flags.DEFINE_enum("compare", "", ["", "torch"], "Beside what.")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["32", "256"], "Sentences.")
_LENGTHS = flags.DEFINE_list("lengths", ["32"], "Word pieces of a sentence.")
_NUM_TYPES = flags.DEFINE_list(
  "num_types", [], "Numbers of entity types for train; default: the config's."
)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Rounds.", lower_bound=1)
_COMPILE_FOR = flags.DEFINE_string(
  "compile_for", "", "TPU slice to compile the train step for, as v5e:4x4."
)
_OUTPUT = flags.DEFINE_string("output", "", "JSON file for the rows.")


def _config(num_types=None):
  """The config with random weights; four types, unless it names some."""
  config = _CONFIG.value.copy_and_resolve_references()
  with config.unlocked():
    for name in ("text", "vit", "resnet"):
      config.model[name].weights = ""
    config.data.labels = tuple(config.data.labels) or (
      "LOC", "MISC", "ORG", "PER"
    )  # fmt: skip
    if num_types is not None:
      config.data.labels = tuple(f"T{i}" for i in range(num_types))
  return resolve(from_config_dict(config))


def _numbers(flag):
  try:
    return [int(value) for value in flag.value]
  except ValueError:
    raise UserError(
      f"--{flag.name}: {','.join(flag.value)!r} are not whole numbers"
    ) from None


def _run(suite):
  sizes, lengths = _numbers(_BATCH_SIZES), _numbers(_LENGTHS)
  measure = {"compare": _COMPARE.value, "repeats": _REPEATS.value}
  if _COMPILE_FOR.value:
    return aot.run(
      _config(), _COMPILE_FOR.value, batch_sizes=sizes, lengths=lengths
    )
  if suite == "crf":
    return crf.run(**measure)
  rows = input.run(**measure) if suite == "input" else []
  if suite == "input":  # the rate that the input has to keep up with
    sizes, lengths, measure = sizes[:1], lengths[:1], {"compare": ""}
  measure["repeats"] = _REPEATS.value
  measure |= {"batch_sizes": sizes, "lengths": lengths}
  for count in _numbers(_NUM_TYPES) or [None]:
    rows += train.run(_config(count), **measure)
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


def main():
  """Runs the suite, prints the table, writes the JSON."""
  device = jax.devices()[0]
  machine = {
    "device": device.device_kind,
    "devices": jax.device_count(),
    "cpus": os.cpu_count(),
    "machine": platform.machine(),
    "jax": jax.__version__,
  }
  print(machine)
  rows = _run(_SUITE.value)
  print(_table(rows))
  if _OUTPUT.value:
    text = json.dumps({"machine": machine, "rows": rows}, indent=2)
    epath.Path(_OUTPUT.value).write_text(text + "\n")
  if not all(row.get("fits", True) for row in rows):
    sys.exit(3)


if __name__ == "__main__":
  launch(main)

"""One run from its start to its test scores, with what it cost.

  python -m mner_jax.training.run CONFIG.json WORKDIR

is train.py with a config in JSON, as the tables start it.
"""

import contextlib
import json
import os
import pathlib
import platform
import subprocess
import time

import jax
from etils import epath

from mner_jax import cli
from mner_jax.config import from_dict
from mner_jax.data import files
from mner_jax.evaluation import evaluate, retrieval
from mner_jax.training import loop, stopping


def run(config, workdir, stop_at=None):
  """Trains, or goes on, and scores test once training has ended.

  Leaves in `workdir`, beside what `loop.train` writes: `run.json`, the cost
  over all starts and the machine; `test_predictions.jsonl`;
  `test_retrieval.json` of a model that aligns; and `test_metrics.json`, which
  comes last and means finished.
  """
  workdir = epath.Path(workdir)
  with _accounting(workdir):
    trained = loop.train(config, workdir, stop_at)
    if trained is None:
      return
    with stopping.exit_when_asked():
      evaluated = evaluate.evaluate(trained, workdir, "test")
      evaluate.write_predictions(evaluated, workdir)
      if retrieval.aligns(trained):
        recalls = retrieval.score(evaluated.params, evaluated.examples)
        retrieval.write(recalls, workdir, "test")
  evaluate.write(evaluated.scores, workdir / "test_metrics.json")
  if jax.process_index() == 0:
    print(evaluate.table(evaluated.scores))


@contextlib.contextmanager
def _accounting(workdir):
  """Writes `run.json`; its seconds are those of all starts of the run."""
  path = workdir / "run.json"
  start, commit = time.monotonic(), _commit()
  before = json.loads(path.read_text())["seconds"] if path.exists() else 0
  try:
    yield
  finally:
    record = {
      "seconds": round(before + time.monotonic() - start, 1),
      "date": time.strftime("%Y-%m-%d"),
      "hardware": _hardware(),
      "jax": jax.__version__,
      "commit": commit,  # at the start: files may change while it runs
    }
    if jax.process_index() == 0 and (workdir / "config.json").exists():
      files.write(path, json.dumps(record, indent=2) + "\n")


def _commit():
  """Returns the commit of the code that runs; "" outside a git checkout."""
  root = pathlib.Path(__file__).parents[2]
  if not (root / ".git").exists():
    return ""
  command = ["git", "-C", root, "describe", "--always", "--dirty"]
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    return subprocess.run(
      command, capture_output=True, text=True, check=True
    ).stdout.strip()
  return ""


def _hardware():
  """Returns the accelerators, or the CPU's name and number of cores."""
  device = jax.devices()[0]
  if device.platform != "cpu":
    return f"{jax.device_count()} x {device.device_kind}"
  name = platform.processor() or platform.machine()
  with contextlib.suppress(OSError):
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
      if line.startswith("model name"):
        name = line.partition(":")[2].strip()
        break
  return f"{os.cpu_count()} cores, {name}"


def _arguments(parser):
  parser.add_argument("config", help="the experiment, as JSON")
  parser.add_argument("workdir", help="folder of the run")


def _main(args):
  tree = json.loads(epath.Path(args.config).read_text())
  run(from_dict(tree), args.workdir)


if __name__ == "__main__":
  cli.launch(_main, _arguments, __doc__)

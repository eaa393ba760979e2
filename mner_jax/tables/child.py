"""One run of a table, in a process of its own.

  python -m mner_jax.tables.child CONFIG.json WORKDIR

is train.py with a config in JSON, and leaves in WORKDIR what a table needs
beside the scores: `test_predictions.jsonl`, `test_retrieval.json` of a model
that aligns, and `run.json` with its cost and the machine.
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

from mner_jax import files
from mner_jax.cli import launch
from mner_jax.config import from_config_dict
from mner_jax.evaluation import evaluate as evaluation
from mner_jax.evaluation import retrieval
from mner_jax.training import loop as training
from mner_jax.training import stopping


def _commit():
  """Commit of the code that runs; "" where it is in no git checkout."""
  root = pathlib.Path(__file__).parents[2]
  if not (root / ".git").exists():
    return ""
  command = ["git", "-C", root, "describe", "--always", "--dirty"]
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    return subprocess.run(
      command, capture_output=True, text=True, check=True
    ).stdout.strip()
  return ""


def _processor():
  """The CPU's name where the system tells it."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def _hardware():
  device = jax.devices()[0]
  if device.platform == "cpu":
    return f"{os.cpu_count()} cores, {_processor()}"
  return f"{jax.device_count()} x {device.device_kind}"


@contextlib.contextmanager
def _accounting(workdir):
  """Writes `run.json`; its seconds are those of all starts of the run."""
  path = workdir / "run.json"
  before = json.loads(path.read_text())["seconds"] if path.exists() else 0
  start, commit = time.monotonic(), _commit()
  try:
    yield
  finally:
    record = {
      "seconds": round(before + time.monotonic() - start, 1),
      "date": time.strftime("%Y-%m-%d"),
      "hardware": _hardware(),
      "jax": jax.__version__,
      "commit": commit,  # of the start: files may change while it runs
    }
    files.write(path, json.dumps(record, indent=2) + "\n")


def _write_predictions(evaluated, workdir):
  lines = []
  for sentence, tags in zip(
    evaluated.examples.split.sentences, evaluated.predicted, strict=True
  ):
    record = {
      "language": sentence.language,
      "source": sentence.source,
      "gold": sentence.tags,
      "tags": tags,
    }
    lines.append(json.dumps(record) + "\n")
  files.write(workdir / "test_predictions.jsonl", "".join(lines))


def main(config, workdir):
  """Trains, or goes on; `test_metrics.json` comes last and means finished."""
  config = from_config_dict(json.loads(epath.Path(config).read_text()))
  workdir = epath.Path(workdir)
  with _accounting(workdir):
    trained = training.train(config, workdir)
    with stopping.exit_when_asked():
      evaluated = evaluation.evaluate(trained, workdir, "test")
      _write_predictions(evaluated, workdir)
      if retrieval.aligns(trained):
        recalls = retrieval.score(evaluated.params, evaluated.examples)
        retrieval.write(recalls, workdir, "test")
  # The cost is known once the above has ended.
  evaluation.write(evaluated.scores, workdir, "test")
  print(evaluation.table(evaluated.scores))


if __name__ == "__main__":
  launch(main, arguments=True)

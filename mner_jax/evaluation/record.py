"""What a run leaves beside its scores: its cost, and its predictions."""

import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import jax
from etils import epath

from mner_jax.config import UserError
from mner_jax.data import files


@contextlib.contextmanager
def accounting(workdir):
  """Writes `run.json`: the cost over all starts of a run.

  Without those that were killed, or refused before anything was logged.
  """
  path = workdir / "run.json"
  start, commit = time.monotonic(), _commit()
  before = files.read_json(path)["seconds"] if path.exists() else 0
  logged = _length(workdir / "timing.jsonl")
  try:
    yield
  finally:
    failed = isinstance(sys.exc_info()[1], UserError | OSError | ImportError)
    refused = failed and _length(workdir / "timing.jsonl") == logged
    record = {
      "seconds": round(before + time.monotonic() - start, 1),
      "date": time.strftime("%Y-%m-%d"),
      "hardware": _hardware(),
      "jax": jax.__version__,
      "commit": commit,  # at the start: files may change while it runs
    }
    if jax.process_index() == 0 and not refused:
      files.write(path, json.dumps(record, indent=2) + "\n")


def _length(path):
  return files.length_and_time(path)[0] if path.exists() else 0


def _commit():
  """Returns the commit of the code that runs; "" outside a git checkout."""
  root = pathlib.Path(__file__).parents[2]
  command = ["git", "-C", root, "describe", "--always", "--dirty"]
  if (root / ".git").exists():
    with contextlib.suppress(OSError):  # there may be no git
      found = subprocess.run(command, capture_output=True, text=True)
      return found.stdout.strip()  # nothing where it fails
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


def write_predictions(evaluated, workdir):
  """Writes `test_predictions.jsonl`, from which tables compute intervals.

  A line per sentence, in the order of the split; process 0 only.
  """
  text = ""
  sentences = evaluated.examples.split.sentences
  for s, tags in zip(sentences, evaluated.predicted, strict=True):
    record = {"language": s.language, "source": s.source, "gold": s.tags}
    text += json.dumps(record | {"tags": tags}) + "\n"
  if jax.process_index() == 0:
    files.write(epath.Path(workdir) / "test_predictions.jsonl", text)

"""A run that is asked to stop saves first, says so, and goes on later."""

import json
import signal
import subprocess
import sys

import pytest

from mner_jax.training.stopping import EXIT_STOPPED
from tests.training.test_loop import (
  ROOT,
  environment,
  experiment,
  write_config,
  write_corpus,
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, number):
  write_corpus(tmp_path / "data")
  config = write_config(tmp_path / "tiny.py", experiment(tmp_path))
  workdir = tmp_path / "run"
  process = subprocess.Popen(
    [
      sys.executable, str(ROOT / "train.py"), f"--config={config}",
      f"--workdir={workdir}", "--config.train.epochs=500",
    ],
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    env=environment(),
  )  # fmt: skip
  for line in process.stderr:
    if "dev F1" in line:
      break
  process.send_signal(number)
  out, err = process.communicate(timeout=120)
  assert process.returncode == EXIT_STOPPED, err
  steps = [int(p.name) for p in (workdir / "checkpoints").glob("[0-9]*")]
  assert f"stopped at step {max(steps)}" in out
  last = (workdir / "metrics.jsonl").read_text().splitlines()[-1]
  assert json.loads(last)["step"] == max(steps)

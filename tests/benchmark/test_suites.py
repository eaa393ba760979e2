"""The suites of the benchmark, as a user starts them, at toy sizes."""

import json
import subprocess
import sys

import pytest

from tests.training.test_loop import ROOT, environment

TOY = (
  "--config=mner_jax/configs/synthetic_text.py",
  "--config.model.text.hidden_size=16", "--config.model.text.num_layers=1",
  "--repeats=1", "--batch_sizes=32",
  "--lengths=16",
)  # fmt: skip
SUITES = {
  "train": (["--num_types=2,4"], {"ms", "examples_per_second", "gigabytes"}),
}


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_writes_its_rows(suite, tmp_path):
  more, numbers = SUITES[suite]
  output = tmp_path / "rows.json"
  result = subprocess.run(
    [sys.executable, "-m", "mner_jax.benchmark", f"--suite={suite}", *TOY,
     *more, f"--output={output}"],
    capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=300,
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  rows = json.loads(output.read_text())["rows"]
  for row in rows:
    assert all(row[name] > 0 for name in numbers), row
  assert [row["tags"] for row in rows] == [5, 9]

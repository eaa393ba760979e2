"""README's commands: the short ones run, the others name what there is."""

import re
import shlex
import subprocess
import sys

import pytest

from mner_jax.config import Config, flatten
from tests.training.test_loop import ROOT, environment

README = (ROOT / "README.md").read_text()
# Indented lines that call python, as a reader copies them.
COMMANDS = [
  line.strip()
  for line in README.splitlines()
  if re.match(r"(?: {4}|\t)\s*(?:\S+/)?python\d? \S", line)
]
SHORT = [line for line in COMMANDS if "runs/synthetic" in line]


def test_there_are_commands():
  assert len(SHORT) == 2 and len(COMMANDS) > 6


def test_short_commands(trained):
  """In the order of the README, on a run of a few updates."""
  workdir, _ = trained("images")
  for line in SHORT:
    arguments = line.replace("runs/synthetic", str(workdir))
    result = subprocess.run(
      [sys.executable, *shlex.split(arguments)[1:]],
      capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, (line, result.stderr)
    assert result.stdout.strip(), line
  assert (workdir / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", sorted(set(re.findall(
  r"(?:tests/[\w/]+\.\w+|mner_jax/[\w/]+\.py)", README))))  # fmt: skip
def test_files_that_are_named_exist(name):
  assert (ROOT / name).exists()


@pytest.mark.parametrize(
  "field", sorted(set(re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", README)))
)
def test_fields_that_are_named_exist(field):
  if field == "a.b":  # stands for any
    return
  assert any(name.startswith(field) for name in flatten(Config()))


def test_tests_that_are_named_exist():
  tests = "".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))
  for name in set(re.findall(r"`(test_\w+)`", README)):
    assert f"def {name}(" in tests, name

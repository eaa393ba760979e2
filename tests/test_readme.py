"""README's commands: the short ones run, the others name what there is."""

import importlib
import json
import re
import shlex
import shutil
import sys

import pytest

from mner_jax import cli
from mner_jax.config import Config, flatten
from tests.training.test_loop import ROOT

README = (ROOT / "README.md").read_text()
# Indented lines that call python, as a reader copies them.
COMMANDS = [
  line.strip()
  for line in README.splitlines()
  if re.match(r"(?: {4}|\t)\s*(?:\S+/)?python\d? \S", line)
]
SHORT = [line for line in COMMANDS if "runs/synthetic" in line]


def test_there_are_commands():
  assert len(SHORT) == 3 and len(COMMANDS) > 6


def test_short_commands(shared_run, tmp_path, monkeypatch, capsys):
  """In the order of the README, on a run of a few updates."""
  workdir = tmp_path / "run"
  shutil.copytree(shared_run("images") / "run", workdir)
  for line in SHORT:
    _, *words = shlex.split(
      line.replace("runs/synthetic", str(workdir)).replace(
        "my-model", str(tmp_path / "my-model")
      )
    )
    words = [word for word in words if word != "-m"]
    monkeypatch.setattr(sys, "argv", words)
    module = importlib.import_module(words[0].removesuffix(".py"))
    cli.launch(module.main, module.arguments, module.__doc__)
    out = capsys.readouterr().out
    if "--save" in line:
      assert (tmp_path / "my-model" / "model.safetensors").exists()
    elif "predict" in line:
      assert set(json.loads(out)) == {"text", "tokens", "tags", "entities"}
    else:
      assert out.split()[:2] == ["F1", "precision"]
  assert (workdir / "report.html").stat().st_size > 10_000


NAMED = r"(?:tests/[\w/]+\.\w+|mner_jax/[\w/]+\.py)"


@pytest.mark.parametrize("name", sorted(set(re.findall(NAMED, README))))
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

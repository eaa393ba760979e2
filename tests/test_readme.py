"""README's commands: the short ones run, the others name what there is."""

import json
import re
import shlex
import shutil

from mner_jax.config import Config, flatten
from tests.training.test_loop import ROOT, command

README = (ROOT / "README.md").read_text()
# Indented lines that call python, as a reader copies them.
COMMANDS = [
  line.strip()
  for line in README.splitlines()
  if re.match(r"(?: {4}|\t)\s*(?:\S+/)?python\d? \S", line)
]
SHORT = [line for line in COMMANDS if "runs/synthetic" in line]


def test_short_commands(shared_run, tmp_path):
  """On a run of a few updates, whose scores and pictures the report has."""
  workdir = shutil.copytree(shared_run("images") / "run", tmp_path / "run")
  want = (workdir / "test_metrics.json").read_bytes()
  said = []
  for line in SHORT:
    line = line.replace("runs/synthetic", str(workdir))
    _, *words = shlex.split(line.replace("my-model", str(tmp_path / "model")))
    if words[0] == "-m":
      words[:2] = [words[1].replace(".", "/") + ".py"]
    said.append(command(*words, check=True).stdout)
  assert len(COMMANDS) > 6
  table, tagged, _ = said
  assert table.split()[:2] == ["F1", "precision"]
  assert set(json.loads(tagged)) == {"text", "tokens", "tags", "entities"}
  assert (tmp_path / "model/model.safetensors").exists()
  assert (workdir / "test_metrics.json").read_bytes() == want
  page = (workdir / "report.html").read_text()
  assert page.count("data:image/webp") == 4 and "Jürgen" not in page
  assert f'"f1":{json.loads(want)["f1"]},' in page and "J\\u00fcrgen" in page


NAMED = r"(?:tests/[\w/]+\.\w+|mner_jax/[\w/]+\.py)"


def test_what_is_named_exists():
  """Files, settings and tests."""
  for name in re.findall(NAMED, README):
    assert (ROOT / name).exists(), name
  fields = set(re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", README))
  for field in fields - {"a.b"}:  # which stands for any
    assert any(name.startswith(field) for name in flatten(Config())), field
  tests = "".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))
  for name in re.findall(r"`(test_\w+)`", README):
    assert f"def {name}(" in tests, name

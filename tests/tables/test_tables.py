"""Tables from end to end, with real runs of a few updates."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from mner_jax.tables import output
from mner_jax.training.stopping import EXIT_STOPPED
from tests.training.test_loop import ROOT, environment, write_corpus

TEXT = "text only (BERT-CRF)"
# The mini scale of `ablation`, on a corpus of a few sentences.
SIZES = {
  "data.languages": ("en", "de"),
  "data.buckets": (16, 24),
  "model.text.vocab_size": 200,
  "model.text.hidden_size": 16,
  "model.text.num_layers": 1,
  "model.text.max_positions": 24,
  "model.vit.image_size": 24,
  "model.vit.num_layers": 1,
  "model.resnet.image_size": 24,
  "model.resnet.stages": (1,),
  "optim.warmup_steps": 1,
  "train.batch_size": 8,
  "train.epochs": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tables")
  write_corpus(folder / "data")
  return folder


def arguments(folder, **overrides):
  fields = SIZES | {
    "data.path": str(folder / "data"),
    "data.cache_dir": str(folder / "cache"),
  }
  fields |= {k.replace("__", "."): v for k, v in overrides.items()}
  return [
    sys.executable, "-m", "mner_jax.tables", "ablation", "--seeds=1",
    f"--rows={TEXT}", "--rows=ViT only", f"--workdir={folder / 'work'}",
    *(f"--override={k}={v}" for k, v in fields.items()),
  ]  # fmt: skip


def command(arguments):
  return subprocess.run(
    arguments, cwd=ROOT, capture_output=True, text=True, env=environment(),
    timeout=300,
  )  # fmt: skip


@pytest.fixture(scope="module")
def table(folder):
  """The first run of a table: what it printed, and its JSON."""
  result = command(arguments(folder))
  assert result.returncode == 0, result.stderr
  place = folder / "work" / "ablation-mini"
  return result, json.loads((place / "table.json").read_text()), place


def test_every_number_leads_to_a_run(folder, table):
  result, found, place = table
  rows = {row["row"]: row for row in found["rows"]}
  assert set(rows) == {"2M-NER", TEXT, "ViT only"}
  for row in rows.values():
    run = folder / "work" / "runs" / f"{row['hash']}-19"
    scores = json.loads((run / "test_metrics.json").read_text())
    assert (row["f1"]["mean"], row["f1"]["sd"]) == (scores["f1"], None)
    assert row["columns"]["en"]["mean"] == scores["per_language"]["en"]["f1"]
    assert row["entities"] == scores["counts"]["entities"]
    low, high = row["interval"]
    assert 0 <= low <= high <= 1
    for text in (row["hash"], f"{100 * scores['f1']:.2f}"):
      assert text in result.stdout
  assert ("p" in rows["2M-NER"], "p" in rows[TEXT]) == (False, True)
  difference = rows[TEXT]["f1"]["mean"] - rows["2M-NER"]["f1"]["mean"]
  assert rows[TEXT]["difference"] == pytest.approx(difference)
  for word in ("data:", "seeds: 19", "seqeval", "best on dev", "jax", "cost"):
    assert word in result.stdout
  assert (place / "table.md").read_text() == result.stdout[:-1]
  assert (place / "figure.svg").read_text().count("<svg") == 1


def test_rows_are_paired_by_sentence(tmp_path):
  """Files begin with the languages that a row was trained on."""
  sentences = {
    "en": [(["B-PER", "O"], ["B-PER", "O"]), (["O"], ["B-LOC"])],
    "fr": [(["B-LOC"], ["O"])],
  }
  counts = []
  for order in (("en", "fr"), ("fr", "en")):
    folder = tmp_path / "-".join(order)
    folder.mkdir()
    lines = [
      json.dumps({"language": name, "gold": gold, "tags": tags})
      for name in order
      for gold, tags in sentences[name]
    ]
    (folder / "test_predictions.jsonl").write_text("\n".join(lines))
    counts.append(output.counts(folder))
  assert counts[0].tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 1]]
  assert np.array_equal(*counts)


def test_finished_runs_are_kept_and_a_crash_costs_its_row_only(folder, table):
  _, found, _ = table
  hashes = {row["row"]: row["hash"] for row in found["rows"]}
  runs = folder / "work" / "runs"
  metrics = runs / f"{hashes[TEXT]}-19" / "test_metrics.json"
  before = metrics.stat().st_mtime_ns
  broken = runs / f"{hashes['ViT only']}-19"
  (broken / "test_metrics.json").unlink()
  (broken / "config.json").write_text("{")
  result = command(arguments(folder))
  assert result.returncode == 1
  assert "3 runs, 2 of them finished before" in result.stderr
  assert "FAILED (exit 2: " in result.stderr and "config.json" in result.stderr
  assert "MISSING: ViT only, seed 19" in result.stdout
  assert f"| {TEXT} |" in result.stdout
  assert metrics.stat().st_mtime_ns == before


def test_a_signal_reaches_the_run(folder, table):
  """It saves and leaves; the table says that it goes on, exit code 75."""
  hashes = {row["row"]: row["hash"] for row in table[1]["rows"]}
  log = folder / "work" / "runs" / f"{hashes['2M-NER']}-20" / "log.txt"
  process = subprocess.Popen(
    [*arguments(folder), "--seeds=2"], cwd=ROOT, env=environment(),
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  while not (log.exists() and "sentences;" in log.read_text()):
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)
  process.terminate()
  _, err = process.communicate(timeout=300)
  assert process.returncode == EXIT_STOPPED, err
  assert err.splitlines()[-1] == "stopped; the same command goes on"
  assert "stopped at step" in log.read_text()


BAD = {
  "no such table": (["results"], "expected one table out of main, ablation"),
  "no such row": (["ablation", "--rows=BERT"], "no row 'BERT'"),
  "data": (["ablation", "--data=x"], "synthetic"),
  "no data": (["languages"], "needs the folder"),
  "field": (["ablation", "--override=model.depth=2"], "no field model.depth"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, tmp_path):
  given, expected = BAD[case]
  result = command(
    [sys.executable, "-m", "mner_jax.tables", *given, f"--workdir={tmp_path}"]
  )
  assert result.returncode == 2
  assert len(result.stderr.splitlines()) == 1 and expected in result.stderr

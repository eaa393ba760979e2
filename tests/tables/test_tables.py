"""Tables: rows, the planning and starting of runs, what is printed."""

import argparse
import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mner_jax import config as config_lib
from mner_jax.config import UserError
from mner_jax.data import formats
from mner_jax.tables import __main__ as tables
from mner_jax.tables import output, prepare, rows, runs
from mner_jax.training import run as running
from mner_jax.training.stopping import EXIT_STOPPED
from tests.conftest import TINY
from tests.training.test_loop import ROOT, environment, write_corpus

REFERENCE, OTHER = "BERT-CRF", "BERT + softmax"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tables")
  write_corpus(folder / "data")
  return folder


def arguments(folder, workdir="tables"):
  """Two rows of `text`, on the eight sentences of a tiny corpus."""
  sizes = TINY | {"train.batch_size": 8, "train.epochs": 1}
  sizes |= {"model.text.weights": "", "model.text.encoder": "bilstm"}
  sizes["data.buckets"] = (24,)
  return [
    "text",
    "--seeds=1",
    f"--rows={OTHER}",
    f"--data={folder / 'data'}",
    f"--workdir={folder / workdir}",
    f"--override=data.cache_dir={folder / 'cache'}",
    *(f"--override={name}={value}" for name, value in sizes.items()),
  ]


def parse(argv):
  parser = argparse.ArgumentParser()
  tables.arguments(parser)
  return parser.parse_args(argv)


def run(argv):
  """(exit code, standard output, standard error) of the command's main."""
  out, err = io.StringIO(), io.StringIO()
  code = 0
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      tables.main(parse(argv))
    except SystemExit as error:
      code = error.code
  return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def table(folder):
  """A table of finished runs: (the runs, what `run` returned).

  The reference is trained in this process; the other row's folder is a copy of
  it in which everything is found.
  """
  _, planned = tables.plan(parse(arguments(folder)))
  other, reference = sorted(planned, key=lambda one: one.row == REFERENCE)
  running.run(reference.config, reference.folder)
  shutil.copytree(reference.folder, other.folder)
  path = other.folder / "test_predictions.jsonl"
  records = [json.loads(line) for line in path.read_text().splitlines()]
  lines = [json.dumps(r | {"tags": r["gold"]}) + "\n" for r in records]
  path.write_text("".join(lines))
  scores = other.read("test_metrics.json") | {"f1": 1.0}
  (other.folder / "test_metrics.json").write_text(json.dumps(scores))
  return planned, run(arguments(folder))


def test_every_row_is_a_valid_experiment():
  for table in rows.TABLES.values():
    assert table.reference in {*table.rows, ""}
    for scale, name in table.configs.items():
      config = importlib.import_module(f"mner_jax.configs.{name}").get_config()
      config = config_lib.replace(config, table.budget.get(scale, {}))
      for row, fields in table.rows.items():
        if scale == "paper" or row not in table.paper_only:
          changed = config_lib.replace(config, fields)
          assert changed != config or not fields, row


def test_every_number_leads_to_a_run(folder, table):
  planned, (code, out, err) = table
  assert code == 0 and "2 runs, 2 of them finished before" in err
  place = folder / "tables" / "text-mini"
  found = json.loads((place / "table.json").read_text())
  by_name = {row["row"]: row for row in found["rows"]}
  assert set(by_name) == {REFERENCE, OTHER}
  for one in planned:
    row = by_name[one.row]
    assert one.folder.name == f"{row['hash']}-19"
    scores = json.loads((one.folder / "test_metrics.json").read_text())
    assert row["scores"]["f1"]["mean"] == scores["f1"]
    assert row["scores"]["f1"]["sd"] is None
    low, high = row["interval"]
    assert 0 <= low <= high <= 1
    for text in (row["hash"], f"{100 * scores['f1']:.2f}"):
      assert text in out
  assert ("p" in by_name[REFERENCE], "p" in by_name[OTHER]) == (False, True)
  other, reference = (by_name[x]["scores"]["f1"] for x in (OTHER, REFERENCE))
  difference = other["mean"] - reference["mean"]
  assert difference > 0.05
  assert by_name[OTHER]["difference"] == pytest.approx(difference)
  for word in ("data.path: ", "seed: 19", "seqeval", "best on dev", "jax: "):
    assert word in out
  assert (place / "table.md").read_text() == out[:-1]
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


def test_scores_over_seeds():
  """Mean and sample deviation of each number that a seed has."""
  trees = [{"a": 1.0, "b": {"c": 2}}, {"a": 3.0, "b": {"c": 2, "d": 5}}]
  found = output._over_seeds(trees)
  assert found["a"] == {"mean": 2, "sd": pytest.approx(2**0.5), "largest": 3}
  assert found["b"]["c"]["sd"] == 0
  assert found["b"]["d"] == {"mean": 5, "sd": None, "largest": 5}


def test_retrieval_is_printed_against_chance():
  """By language; what is below each other is of the same heading."""
  way = {str(k): 0.1 * k for k in (1, 5, 10)} | {"mean_rank": 7.0}
  ways = {"text_to_image": way, "image_to_text": way}
  recalls = {**ways, "chance": ways, "p": 0.25, "pictures": 9}
  scores = output._over_seeds([{"retrieval": {"de": recalls}}] * 2)
  lines = output._table(
    output._recalls([{"row": "none finished"}, {"row": "A", "scores": scores}])
  )
  assert len(lines) == 4
  assert lines[2].startswith("| A | de | 9 | 10.00 | 50.00 | 100.00 | 7.0 |")
  assert lines[2].endswith(" 0.2500 |") and lines[3].endswith(" - |")


def test_a_hash_is_of_the_settings_and_the_sentences(folder, table, tmp_path):
  planned, _ = table
  config = planned[0].config
  moved = tmp_path / "moved"
  moved.mkdir()
  for split in ("train", "valid", "test"):
    sentences = formats.read(f"{config.data.path}/en/{split}.jsonl", "en")
    formats.write_conll(moved / f"{split}.txt", list(sentences))

  def hash_of(fields):
    (one,) = runs.plan(config, {"row": fields}, [19], tmp_path)
    return one.hash

  elsewhere = {"data.path": str(moved), "mesh.fsdp": 2, "seed": 3}
  assert hash_of(elsewhere) == planned[0].hash
  for name, value in (("dtype", "bfloat16"), ("optim.learning_rate", 1e-4)):
    assert hash_of({name: value}) != planned[0].hash
  text = (moved / "test.txt").read_text()
  (moved / "test.txt").write_text(text.replace("Town0", "Town99"))
  runs._fingerprint.cache_clear()
  assert hash_of(elsewhere) != planned[0].hash


def test_a_failed_run_costs_its_row_only(folder, table):
  """And finished runs are left as they are."""
  planned, _ = table
  broken, kept = sorted(planned, key=lambda one: one.row == REFERENCE)
  metrics, config = (
    broken.folder / name for name in ("test_metrics.json", "config.json")
  )
  before = metrics.read_text(), config.read_text()
  written = (kept.folder / "test_metrics.json").stat().mtime
  metrics.unlink()
  config.write_text("{")
  code, out, err = run(arguments(folder))
  assert code == 1
  assert "2 runs, 1 of them finished before" in err
  assert "FAILED (exit 2: " in err and "config.json" in err
  assert f"MISSING: {OTHER}, seed 19" in out
  assert f"| {REFERENCE} |" in out
  assert (kept.folder / "test_metrics.json").stat().mtime == written
  metrics.write_text(before[0])
  config.write_text(before[1])


def test_a_signal_ends_the_run_and_the_table(folder, table):
  """The child is gone and nothing is started after it; exit code 75."""
  argv = [*arguments(folder), "--seeds=3"]
  _, planned = tables.plan(parse(argv))
  first, second, *_ = (one for one in planned if not one.finished)

  def stop():
    while not (first.folder / "log.txt").exists():
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
  threading.Thread(target=stop, daemon=True).start()
  code, out, err = run(argv)
  for number, handler in before.items():
    signal.signal(number, handler)
  assert (code, out) == (EXIT_STOPPED, "")
  assert err.splitlines()[-1] == "stopped; the same command goes on"
  assert not second.folder.exists()


@pytest.mark.slow
def test_a_table_survives_a_signal(folder):
  """Its run saves; the same command resumes it and finishes the table."""
  argv = arguments(folder, "whole")
  command = [sys.executable, "-m", "mner_jax.tables", *argv]
  options = {"cwd": ROOT, "env": environment(), "text": True}
  _, planned = tables.plan(parse(argv))
  log = planned[0].folder / "log.txt"
  process = subprocess.Popen(command, stderr=subprocess.PIPE, **options)
  while not (log.exists() and "sentences;" in log.read_text()):
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)
  process.terminate()
  _, err = process.communicate(timeout=300)
  assert process.returncode == EXIT_STOPPED, err
  assert "stopped at step" in log.read_text()
  result = subprocess.run(command, capture_output=True, timeout=600, **options)
  assert result.returncode == 0, result.stderr
  assert "2 runs, 0 of them finished before" in result.stderr
  assert result.stdout.startswith("**MMNERD-EN, text only**")
  assert all(one.finished for one in planned)


def test_a_subset_without_train_file_parts_valid(tmp_path):
  source, sizes = tmp_path / "source", {"train": 4, "valid": 3}
  (source / "en").mkdir(parents=True)
  for split in ("valid", "test"):
    sentences = [formats.Sentence((f"{split}{i}",), ("O",)) for i in range(9)]
    formats.write_conll(source / "en" / f"{split}.txt", sentences)
  prepare.subset(source, tmp_path / "target", ("en",), sizes)

  def words(split):
    path = tmp_path / "target" / "en" / f"{split}.jsonl"
    return [s.words[0] for s in formats.read(path)]

  assert words("valid") == ["valid0", "valid1", "valid2"]
  assert words("train") == ["valid3", "valid4", "valid5", "valid6"]
  assert len(words("test")) == 9
  with pytest.raises(UserError, match="no valid file of 'de'"):
    prepare.subset(source, tmp_path / "target", ("en", "de"), sizes)


BAD = {
  "no such row": (["ablation", "--rows=BERT"], "no row 'BERT'"),
  "no seeds": (["ablation", "--seeds=0"], "at least 1"),
  "no data": (["languages"], "wikineural is not a folder"),
  "field": (["ablation", "--override=model.depth=2"], "model.depth"),
  "not a=b": (["ablation", "--override=train.epochs"], "train.epochs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, tmp_path):
  given, expected = BAD[case]
  with pytest.raises(UserError, match=expected):
    tables.main(parse([*given, f"--workdir={tmp_path}"]))

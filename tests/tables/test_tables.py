"""Tables: rows, the planning and starting of runs, what is printed."""

import argparse
import dataclasses
import importlib
import json
import os
import shutil
import signal
import threading
import time

import pytest

from mner_jax import cli
from mner_jax import config as config_lib
from mner_jax.cli import EXIT_STOPPED
from mner_jax.config import UserError
from mner_jax.data import formats
from mner_jax.tables import __main__ as tables
from mner_jax.tables import output, prepare, rows, runs
from mner_jax.training import run as running
from tests.conftest import TINY, read_jsonl
from tests.training.test_loop import command, write_corpus

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
  return [
    "text",
    "--seeds=1",
    f"--rows={OTHER}",
    f"--data={folder / 'data'}",
    f"--workdir={folder / workdir}",
    f"--config.data.cache_dir={folder / 'cache'}",
    *(f"--config.{name}={value}" for name, value in sizes.items()),
  ]


def plan(argv):
  parser = argparse.ArgumentParser()
  tables.arguments(parser)
  argv, overrides = cli._take_overrides(argv)
  args = parser.parse_args(argv, argparse.Namespace(overrides=overrides))
  return tables.plan(args)[0]


def run(argv):
  return command("mner_jax/tables/__main__.py", *argv)


@pytest.fixture(scope="module")
def planned(folder):
  """Finished runs: the other row's, and the reference row's.

  The reference is trained in this process; the other row's folder is a copy of
  it in which everything is found.
  """
  planned = plan(arguments(folder))
  other, reference = sorted(planned, key=lambda one: one.row == REFERENCE)
  running.run(reference.config, reference.folder)
  shutil.copytree(reference.folder, other.folder)
  path = other.folder / "test_predictions.jsonl"
  records = [r | {"tags": r["gold"]} for r in read_jsonl(path)]
  path.write_text("\n".join(map(json.dumps, records)))
  scores = other.read("test_metrics.json") | {"f1": 1.0}
  (other.folder / "test_metrics.json").write_text(json.dumps(scores))
  return other, reference


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


def test_the_list_names_every_table():
  code, out, _ = run(["--list"])
  assert code == 0
  assert [x.partition(":")[0] for x in out.splitlines()] == [*rows.TABLES]
  code, _, err = run(["--seeds=1"])
  assert code == 2 and "NAME is missing" in err


def test_every_number_leads_to_a_run(folder, planned, monkeypatch):
  code, out, err = run(arguments(folder))
  assert code == 0, err
  assert "2 runs, 2 of them finished before" in err
  place = folder / "tables" / "text-mini"
  found = json.loads((place / "table.json").read_text())
  by_name = {row["row"]: row for row in found["rows"]}
  for one in planned:
    row, scores = by_name.pop(one.row), one.read("test_metrics.json")
    assert one.folder.name == f"{row['hash']}-19"
    assert row["scores"]["f1"]["mean"] == scores["f1"]
    low, high = row["interval"]
    assert 0 <= low <= high <= 1
    assert row["hash"] in out and f"{100 * scores['f1']:.2f}" in out
    difference = scores["f1"] - planned[1].read("test_metrics.json")["f1"]
    assert ("p" in row) == (one.row == OTHER) == (difference > 0.05)
    assert row.get("difference", 0) == pytest.approx(difference)
  assert not by_name
  for word in ("data.path: ", "seed: 19", "seqeval", "best on dev", "jax: "):
    assert word in out
  assert (place / "table.md").read_text() == out[:-1]
  figure = (place / "figure.svg").read_text()
  assert all(f"<!-- {one.row} -->" in figure for one in planned)
  # What is kept of the runs gives the same table, and has no word of the data.
  monkeypatch.setattr(runs, "RESULTS", place / "kept")
  code, again, err = run(["text", "--kept", f"--workdir={folder / 'again'}"])
  assert (code, again) == (0, out), err
  assert not (folder / "again" / "text-mini").exists()  # a table of one's own
  elsewhere = plan(arguments(folder, "elsewhere"))
  assert all(one.finished for one in elsewhere)
  texts = [p.read_text() for p in (place / "kept").rglob("*") if p.is_file()]
  assert len(texts) == 11 and not any("Anna" in text for text in texts)


@pytest.mark.parametrize(
  "path", sorted(runs.RESULTS.glob("*.json")), ids=lambda x: x.stem
)
def test_a_kept_table_is_readable_by_this_version(path):
  """The settings of its runs, too; and it is the table beside it."""
  found = runs.kept(path.stem)
  table = rows.TABLES[path.stem.rpartition("-")[0]]
  text = path.with_suffix(".md").read_text()
  for one in found:
    assert one.finished and one.row in table.rows
    assert f" | {one.hash} |" in text


def test_rows_are_paired_by_sentence(tmp_path):
  """Files begin with the languages that a row was trained on."""
  person, place, nothing = ["B-PER"], ["B-LOC"], ["O"]
  sentences = [
    {"language": "en", "gold": person, "tags": person},
    {"language": "en", "gold": nothing, "tags": place},
    {"language": "fr", "gold": place, "tags": nothing},
  ]
  for order in ((0, 1, 2), (2, 0, 1)):
    lines = [json.dumps(sentences[i]) + "\n" for i in order]
    (tmp_path / "test_predictions.jsonl").write_text("".join(lines))
    assert output.counts(tmp_path).tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 1]]


def test_retrieval_is_printed_against_chance():
  """Mean and sample deviation of each number, and the largest p."""
  chance = {"text_to_image": {"1": 0.5}}
  found = []
  for recall, p in ((0.25, 0.1), (0.75, 0.3)):
    scores = {"text_to_image": {"1": recall}, "chance": chance, "p": p}
    found.append({"retrieval": {"all": scores}, "seconds": 9})
  row = {"row": "A", "hash": "h", "languages": ()}
  row["scores"] = output._over_seeds(found)
  assert output._cells(rows.TABLES["retrieval"], row) == {
    "": "A",
    "t→i R@1": "50.00 ± 35.36",
    "chance t→i R@1": "50.00",
    "permutation p, all": "0.3000",
    "s/run": "9",
    "run": "h",
  }


def test_a_hash_is_of_the_settings_and_the_sentences(planned, tmp_path):
  config, want = planned[0].config, planned[0].hash
  moved = tmp_path / "moved"
  shutil.copytree(config.data.path, moved)

  def hash_of(fields):
    (one,) = runs.plan(config, {"row": fields}, [19], tmp_path)
    return one.hash

  elsewhere = {"data.path": str(moved), "mesh.fsdp": 2, "seed": 3}
  assert hash_of(elsewhere) == want
  assert hash_of({"dtype": "bfloat16"}) != want
  assert hash_of({"optim.learning_rate": 1e-4}) != want
  assert hash_of({"optim.clip_norm": 1.0}) != want
  path = moved / "en" / "test.jsonl"
  path.write_text(path.read_text().replace("Town0", "Town99"))
  runs._fingerprint.cache_clear()
  assert hash_of(elsewhere) != want


def test_a_new_setting_leaves_kept_runs_their_names(monkeypatch):
  """At its default it must not count, as in `runs._hash`."""
  monkeypatch.setattr(runs, "_fingerprint", lambda data: "")
  assert runs._hash(config_lib.Config()) == "6ab87f8a7f"


def test_a_failed_run_costs_its_row_only(folder, planned):
  """And finished runs are left as they are."""
  broken, kept = planned
  metrics = broken.folder / "test_metrics.json"
  config = broken.folder / "config.json"
  before = metrics.read_text(), config.read_text()
  written = (kept.folder / "test_metrics.json").stat().mtime
  metrics.unlink()
  config.write_text("{")
  code, out, err = run(arguments(folder))
  assert code == 1, err
  assert "2 runs, 1 of them finished before" in err
  assert "FAILED (exit 2: " in err and "config.json" in err
  assert f"MISSING: {OTHER}, seed 19" in out and f"| {REFERENCE} |" in out
  assert (kept.folder / "test_metrics.json").stat().mtime == written
  metrics.write_text(before[0])
  config.write_text(before[1])


def test_a_signal_ends_the_run_and_the_table(folder, planned):
  """Its run saves and nothing is started after it; exit code 75.

  What was finished is kept, also of rows that this command did not ask for.
  """
  argv = [*arguments(folder), "--seeds=3", f"--rows={REFERENCE}"]
  argv.remove(f"--rows={OTHER}")
  more = plan(argv)
  first, second, *_ = (one for one in more if not one.finished)
  log = first.folder / "log.txt"
  kept = folder / "tables" / "text-mini" / "kept" / "text-mini.json"
  kept.unlink(missing_ok=True)

  def stop():
    while not (log.exists() and "sentences;" in log.read_text()):
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=stop, daemon=True).start()
  code, out, err = run(argv)
  assert code == EXIT_STOPPED and out == ""
  assert err.endswith("stopped; the same command goes on\n")
  assert "FAILED" not in err
  assert "stopped at step" in log.read_text()
  assert not second.folder.exists()
  want = {one.row: {"hash": one.hash, "seeds": [19]} for one in planned}
  assert json.loads(kept.read_text()) == want


def test_a_subset_without_train_file_parts_valid(tmp_path):
  source, sizes = tmp_path / "source", {"train": 4, "valid": 3}
  (source / "en").mkdir(parents=True)
  for split in ("valid", "test"):
    sentences = [formats.Sentence((f"{split}{i}",), ("O",)) for i in range(9)]
    formats.write_jsonl(source / "en" / f"{split}.jsonl", sentences)
  english = config_lib.DataConfig(languages=("en",))
  prepare.subset(source, tmp_path / "target", english, sizes)
  expected = {"valid": (0, 3), "train": (3, 7), "test": (0, 9)}
  for split, (start, end) in expected.items():
    part = formats.read(tmp_path / "target" / "en" / f"{split}.jsonl")
    name = "test" if split == "test" else "valid"
    words = [f"{name}{i}" for i in range(start, end)]
    assert [s.words[0] for s in part] == words
  with pytest.raises(UserError, match="no valid file of 'de'"):
    both = dataclasses.replace(english, languages=("en", "de"))
    prepare.subset(source, tmp_path / "target", both, sizes)


def test_a_subset_is_read_as_train_py_reads_the_folder(tmp_path):
  """Also where its first sentences do not show which column has the tags."""
  english = config_lib.DataConfig(languages=("en",), scheme="bioes")
  rows = ["Anna S-PER S-PER", "", "Bonn S-LOC O"]
  (tmp_path / "en").mkdir()
  for split in ("train", "valid", "test"):
    (tmp_path / "en" / f"{split}.txt").write_text("\n".join(rows) + "\n")
  target, sizes = tmp_path / "target", {"train": 1, "valid": 1, "test": 2}
  with pytest.raises(UserError, match="tag_column"):
    prepare.subset(tmp_path, target, english, sizes)
  second = dataclasses.replace(english, tag_column="2")
  prepare.subset(tmp_path, target, second, sizes)
  part = list(formats.read(target / "en" / "test.jsonl"))
  assert [s.tags for s in part] == [("B-PER",), ("B-LOC",)]


@pytest.mark.parametrize("german", [{}, {"de": "Eine Katze"}])
def test_captions_that_are_not_lists_are_one_line(tmp_path, german):
  """A string would be read letter by letter."""
  captions = {"en": ["A cat"], "fr": ["Un chat"]} | german
  record = {"split": "train", "image": "a.jpg", "captions": captions}
  (tmp_path / "aligned.jsonl").write_text(json.dumps(record) + "\n")
  with pytest.raises(UserError, match="aligned.jsonl:1: needs split"):
    prepare.captions(tmp_path, tmp_path / "target")


def test_scores_alone_do_not_finish_a_run(planned, tmp_path):
  """eval.py writes them of any checkpoint."""
  run = dataclasses.replace(planned[1], folder=tmp_path)
  for name in ("test_metrics.json", "test_predictions.jsonl"):
    assert not run.finished
    shutil.copy(planned[1].folder / name, tmp_path)
  assert run.finished

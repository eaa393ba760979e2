import collections
import os
import subprocess
import sys

import pytest
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax.cli import launch
from mner_jax.data import describe, formats
from tests.data.test_formats import SAME, TAG_COLUMNS

REAL = os.environ.get("MNER_REAL_DATA", "")


def sentence(words, tags, image="", language=""):
  return formats.Sentence(
    tuple(words.split()), tuple(tags.split()), image, language
  )


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / "one"
  (folder / "images").mkdir(parents=True)
  Image.new("RGB", (4, 4)).save(folder / "images" / "a.png")
  (folder / "images" / "bad.jpg").write_text("no picture")
  train = [
    sentence("Ann sings", "B-PER O", "a"),
    sentence("Ann sings", "I-PER O", "a.png"),
    sentence("in New York City", "O B-LOC I-LOC I-PER", "gone"),
    sentence("x", "O", "bad"),
    sentence("y", "O"),
  ]
  for language in ("en", "de"):
    (folder / language).mkdir()
    formats.write_jsonl(folder / language / "train.jsonl", train)
  test = [sentence("Ann sings", "O O", "b.jpg"), sentence("z", "O", "gone")]
  formats.write_jsonl(folder / "en" / "test.jsonl", test)
  return folder


def test_what_a_folder_holds(folder):
  counts, shared, _ = describe.describe([folder])
  columns = counts[str(folder)]
  assert list(columns) == ["train de", "train en", "test en"]
  column = columns["train de"]
  assert list(column.values()) == [5, 10, 2.0, 4, 2, 4, 1, 1, 4, 1, 3]
  assert " ".join([*column][4:7]) == "orphan tags images images missing"
  assert columns["test en"]["entities"] == 0
  names = (f"{folder} train", f"{folder} test")
  assert shared == {names: {"sentences": 1, "images": 1}}


def test_what_folders_share(folder, tmp_path):
  other = tmp_path / "two"
  other.mkdir()
  records = [
    sentence("in New York City", "O O O O", "GONE.JPG"),
    sentence("new", "O", "gone.JPG", "fr"),
    sentence("z", "O", "", "es"),
  ]
  formats.write_jsonl(other / "dev.jsonl", records)
  counts, shared, _ = describe.describe([folder, other])
  assert list(counts[str(other)]) == ["valid", "valid es", "valid fr"]
  one, two = str(folder), str(other)
  assert shared == {
    (one, two): {"sentences": 2, "images": 1},
    (f"{one} train", f"{one} test"): {"sentences": 1, "images": 1},
    (f"{one} train", f"{two} valid"): {"sentences": 1, "images": 1},
    (f"{one} test", f"{two} valid"): {"sentences": 1, "images": 1},
  }


@pytest.mark.parametrize("form", SAME)
def test_entities_are_those_of_seqeval(tmp_path, form):
  path, column = tmp_path / "train.tsv", TAG_COLUMNS.get(form, "-1")
  path.write_text(SAME[form])
  counts, _, notes = describe.describe([tmp_path], tag_column=column)
  tags = [list(s.tags) for s in formats.read(path, tag_column=column)]
  expected = collections.Counter(kind for kind, *_ in get_entities(tags))
  found = counts[str(tmp_path)]["train"]
  assert found["entities"] == expected.total() > 0
  assert {k: found[f"  {k}"] for k in expected} == expected
  assert all("train.tsv: " in note for note in notes)


def test_the_command(folder):
  (folder / "en" / "valid.txt").write_text(SAME["docstart"])
  result = subprocess.run(
    [sys.executable, "-m", "mner_jax.data.describe", folder],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  lines = [line.split() for line in result.stdout.splitlines()]
  assert lines[1] == "train de train en valid en test en".split()
  assert ["tokens", "10", "10", "3", "3"] in lines
  assert ["PER", "3", "3", "0", "0"] in lines
  assert "en/valid.txt: 1 -DOCSTART- lines skipped".split() in lines
  assert lines[-1][-4:] == ["1", "sentences,", "1", "images"]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ("", "PATH"),
    ("{tmp}", "no train, valid or test file in it; known are train, valid/val"),
    ("{tmp}", ".conllu .conll .tsv .jsonl; {tmp} holds Train.txt, one, train"),
    ("{tmp}/one/empty", "train.txt: no sentence in it"),
    ("{tmp}/one/nested", "set data.tag_column to"),
    ("{tmp}/one/nested --tag_column=5", "=5 is no column of tags"),
    ("{tmp}/no", "is not a folder"),
    ("{tmp}/one --images=no", "--images: "),
    ("{tmp}/one --scheme=iob", "scheme"),
  ],
)
def test_bad_arguments(
  folder, tmp_path, monkeypatch, capsys, arguments, message
):
  for name, text in {"empty": "", "nested": SAME["germeval"]}.items():
    (folder / name).mkdir()
    (folder / name / "train.txt").write_text(text)
  for name in ("Train.txt", "train", "train.bio"):
    (tmp_path / name).write_text("a O\n")
  message = message.format(tmp=tmp_path)
  arguments = arguments.format(tmp=tmp_path).split()
  monkeypatch.setattr(sys, "argv", ["describe", *arguments])
  with pytest.raises(SystemExit) as error:
    launch(describe.main, describe.arguments, describe.__doc__)
  said = capsys.readouterr().err
  assert error.value.code == 2
  assert len(said.splitlines()) == 1
  assert message in said


REAL_LINES = {
  "mmnerd_en twitter2017": [
    "sentences 19,968 2,463 2,533",
    "tokens 328,043 40,584 41,889",
    "longest 107 99 111",
    "orphan tags 0 0 0",
    "entities 41,172 5,109 5,181",
    "LOC 4,742 552 517",
    "sentences 3,373 723 723",
    "mmnerd_en - twitter2017: 2,934 sentences, 2,982 images",
    "mmnerd_en train - twitter2017 test: 342 sentences, 350 images",
  ],
  "cp_mner_zh": [
    "sentences 950 119 119",
    "longest 555 499 538",
    "orphan tags 142 17 14",
    "images missing 4 0 0",
    "images broken 0 0 0",
    "TECHNIQUE 2,437 293 308",
  ],
}


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="MNER_REAL_DATA is not set")
@pytest.mark.parametrize("names", REAL_LINES)
def test_real_data(names):
  found = describe.describe([f"{REAL}/{name}" for name in names.split()])
  text = describe.table(*found).replace(f"{REAL}/", "")
  lines = {" ".join(line.split()) for line in text.splitlines()}
  assert not set(REAL_LINES[names]) - lines

import os
import subprocess
import sys

import pytest
from PIL import Image

from mner_jax.cli import launch
from mner_jax.config import UserError
from mner_jax.data import describe, formats, wordpiece

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
    formats.write_conll(folder / language / "train.txt", train)
  test = [sentence("Ann sings", "O O", "b.jpg"), sentence("z", "O", "gone")]
  formats.write_conll(folder / "en" / "test.txt", test)
  return folder


def test_what_a_folder_holds(folder):
  counts, shared = describe.describe([folder])
  columns = counts[str(folder)]
  assert list(columns) == ["train de", "train en", "test en"]
  assert columns["train de"] == {
    "sentences": 5,
    "tokens": 10,
    "mean length": 2.0,
    "longest": 4,
    "orphan tags": 2,
    "images": 4,
    "images missing": 1,
    "images broken": 1,
    "entities": 4,
    "  LOC": 1,
    "  PER": 3,
  }
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
  counts, shared = describe.describe([folder, other])
  assert list(counts[str(other)]) == ["valid", "valid es", "valid fr"]
  one, two = str(folder), str(other)
  assert shared == {
    (one, two): {"sentences": 2, "images": 1},
    (f"{one} train", f"{one} test"): {"sentences": 1, "images": 1},
    (f"{one} train", f"{two} valid"): {"sentences": 1, "images": 1},
    (f"{one} test", f"{two} valid"): {"sentences": 1, "images": 1},
  }


def test_pieces_and_windows(folder):
  vocabulary = wordpiece.count_vocabulary([sentence("in A sing s", "")], 60)
  tokenizer = wordpiece.bert_tokenizer(vocabulary)
  counts, _ = describe.describe([folder], tokenizer=tokenizer, max_pieces=8)
  column = counts[str(folder)]["train de"]
  # "Ann" is known letter by letter, "sings" is "sing" "##s".
  assert column["windows"] == 5
  assert column["unk words"] == 5
  pieces = 2 * (3 + 2) + (1 + 1 + 1 + 1) + 1 + 1
  assert column["pieces per word"] == round(pieces / 10, 3)


def test_the_command(folder):
  result = subprocess.run(
    [sys.executable, "-m", "mner_jax.data.describe", folder],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  lines = [line.split() for line in result.stdout.splitlines()]
  assert lines[1] == "train de train en test en".split()
  assert ["tokens", "10", "10", "3"] in lines
  assert ["PER", "3", "3", "0"] in lines
  assert lines[-1][-4:] == ["1", "sentences,", "1", "images"]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ("", "PATH"),
    ("{tmp}", "no train, valid or test file"),
    ("{tmp}/no", "is not a folder"),
    ("{tmp}/one --images=no", "--images: "),
    ("{tmp}/one --scheme=iob", "scheme"),
    ("{tmp}/one --tokenizer={tmp}", "neither tokenizer.json nor"),
    ("{tmp}/one --max_pieces=7", "at least 8"),
  ],
)
def test_bad_arguments(
  folder, tmp_path, monkeypatch, capsys, arguments, message
):
  arguments = arguments.format(tmp=tmp_path).split()
  monkeypatch.setattr(sys, "argv", ["describe", *arguments])
  with pytest.raises(SystemExit) as error:
    launch(describe.main, describe.arguments, describe.__doc__)
  said = capsys.readouterr().err
  assert error.value.code == 2
  assert len(said.splitlines()) == 1
  assert message in said


def test_a_bad_line_is_named(folder):
  (folder / "en" / "test.txt").write_text("a\tO\nb\tS-X\n")
  with pytest.raises(UserError, match=r"en/test\.txt:2: 'S-X' is not a tag"):
    describe.describe([folder])


def real(names):
  """Counts of real data sets by name, and what they share."""
  counts, shared = describe.describe([f"{REAL}/{n}" for n in names.split()])
  counts = {path.removeprefix(f"{REAL}/"): c for path, c in counts.items()}
  shared = {
    tuple(name.removeprefix(f"{REAL}/") for name in pair): kinds["images"]
    for pair, kinds in shared.items()
  }
  return counts, shared


def real_data(test):
  skip = pytest.mark.skipif(not REAL, reason="MNER_REAL_DATA is not set")
  return pytest.mark.slow(skip(test))


@real_data
def test_mmnerd_and_twitter():
  counts, shared = real("mmnerd_en twitter2017")
  mmnerd, twitter = counts["mmnerd_en"], counts["twitter2017"]
  assert {s: (c["sentences"], c["tokens"]) for s, c in mmnerd.items()} == {
    "train": (19_968, 328_043),
    "valid": (2_463, 40_584),
    "test": (2_533, 41_889),
  }
  types = {"PER": 431, "LOC": 517, "ORG": 1_019, "MISC": 3_214}
  assert {name: mmnerd["test"][f"  {name}"] for name in types} == types
  columns = [*mmnerd.values(), *twitter.values()]
  assert max(column["longest"] for column in columns) == 111
  assert all(column["orphan tags"] == 0 for column in columns)
  sentences = [column["sentences"] for column in twitter.values()]
  assert sentences == [3_373, 723, 723]
  assert shared["mmnerd_en", "twitter2017"] == 2_982
  assert shared["mmnerd_en train", "twitter2017 test"] == 350


@real_data
def test_wikineural():
  counts, _ = real("wikineural")
  found = {
    name: (column["sentences"], column["orphan tags"])
    for name, column in counts["wikineural"].items()
  }
  assert found == {
    "valid en": (11_590, 439),
    "test en": (11_597, 559),
    "valid fr": (12_600, 61),
    "test fr": (12_678, 39),
    "valid de": (12_330, 0),
    "test de": (12_372, 0),
    "valid es": (9_540, 0),
    "test es": (9_618, 0),
  }


@real_data
def test_cp_mner():
  columns = real("cp_mner_zh")[0]["cp_mner_zh"]
  found = [
    (column["sentences"], column["orphan tags"], column["images missing"])
    for column in columns.values()
  ]
  assert found == [(950, 142, 4), (119, 17, 0), (119, 14, 0)]
  assert max(column["longest"] for column in columns.values()) == 555
  assert sum(name.startswith("  ") for name in columns["train"]) == 16
  assert not any(column["images broken"] for column in columns.values())

import json
import os
import pathlib
import subprocess
import sys

import pytest
from PIL import Image

from mner_jax.config import UserError
from mner_jax.data import describe, formats, wordpiece

REAL = os.environ.get("MNER_REAL_DATA", "")
real_data = pytest.mark.skipif(not REAL, reason="MNER_REAL_DATA is not set")


def real(name, **options):
  """(split, language) -> row of a real data set, and the overlaps."""
  found = describe.describe([f"{REAL}/{n}" for n in name.split()], **options)
  rows = {
    (pathlib.Path(row["path"]).name, row["split"], row["language"]): row
    for row in found["splits"]
  }
  return rows, found["overlaps"]


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
  found = describe.describe([folder])
  rows = {(r["split"], r["language"]): r for r in found["splits"]}
  assert rows.keys() == {("train", "de"), ("train", "en"), ("test", "en")}
  assert rows["train", "de"] == {
    "path": str(folder), "split": "train", "language": "de", "sentences": 5,
    "tokens": 10, "mean_length": 2.0, "longest": 4, "orphan_tags": 2,
    "entities": {"LOC": 1, "PER": 3}, "images": 4, "images_missing": 1,
    "images_broken": 1,
  }  # fmt: skip
  assert rows["test", "en"]["entities"] == {}
  assert found["overlaps"] == [
    {
      "first": f"{folder} train", "second": f"{folder} test", "sentences": 1,
      "images": 1,
    }
  ]  # fmt: skip


def test_what_folders_share(folder, tmp_path):
  other = tmp_path / "two"
  other.mkdir()
  records = [
    sentence("in New York City", "O O O O", "GONE.JPG"),
    sentence("new", "O", "gone.JPG", "fr"),
    sentence("z", "O", "", "es"),
  ]
  formats.write_jsonl(other / "dev.jsonl", records)
  found = describe.describe([folder, other])
  assert [r["language"] for r in found["splits"][3:]] == ["", "es", "fr"]
  shared = {
    (o["first"], o["second"]): (o["sentences"], o["images"])
    for o in found["overlaps"]
  }
  one, two = str(folder), str(other)
  assert shared == {
    (one, two): (2, 1),
    (f"{one} train", f"{one} test"): (1, 1),
    (f"{one} train", f"{two} valid"): (1, 1),
    (f"{one} test", f"{two} valid"): (1, 1),
  }


def test_pieces_and_windows(folder):
  vocabulary = wordpiece.count_vocabulary([sentence("in A sing s", "")], 60)
  tokenizer = wordpiece.bert_tokenizer(vocabulary)
  row = describe.describe([folder], tokenizer=tokenizer, max_pieces=8)
  row = row["splits"][0]
  # "Ann" is known letter by letter, "sings" is "sing" "##s".
  assert row["windows"] == 5
  assert row["unk_words"] == 5
  pieces = 2 * (3 + 2) + (1 + 1 + 1 + 1) + 1 + 1
  assert row["pieces_per_word"] == round(pieces / 10, 3)


def command(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "mner_jax.data.describe", *map(str, arguments)],
    capture_output=True,
    text=True,
  )


def test_the_command(folder, tmp_path):
  result = command(folder, "--json")
  assert result.returncode == 0, result.stderr
  assert json.loads(result.stdout) == describe.describe([folder])
  result = command(folder)
  assert result.returncode == 0, result.stderr
  lines = [line.split() for line in result.stdout.splitlines()]
  assert ["train", "de", "5", "10", "2.0", "4", "2", "4", "1", "1"] in lines
  assert ["train", "de", "4", "1", "3"] in lines
  for arguments, message in [
    ((), "name at least one"),
    ((tmp_path,), "no train, valid or test file"),
    ((tmp_path / "no",), "is not a folder"),
    ((folder, "--images=no"), "--images: "),
    ((folder, "--scheme=iob"), "scheme"),
    ((folder, f"--tokenizer={tmp_path}"), "neither tokenizer.json nor"),
  ]:
    result = command(*arguments)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr


def test_a_bad_line_is_named(folder):
  (folder / "en" / "test.txt").write_text("a\tO\nb\tS-X\n")
  with pytest.raises(UserError, match=r"en/test\.txt:2: 'S-X' is not a tag"):
    describe.describe([folder])


@real_data
def test_mmnerd_and_twitter():
  rows, overlaps = real("mmnerd_en twitter2017")
  numbers = [
    (rows["mmnerd_en", split, ""]["sentences"],
     rows["mmnerd_en", split, ""]["tokens"])
    for split in ("train", "valid", "test")
  ]  # fmt: skip
  assert numbers == [(19_968, 328_043), (2_463, 40_584), (2_533, 41_889)]
  test = rows["mmnerd_en", "test", ""]
  assert test["entities"] == {
    "PER": 431, "LOC": 517, "ORG": 1_019, "MISC": 3_214
  }  # fmt: skip
  assert max(row["longest"] for row in rows.values()) == 111
  assert all(row["orphan_tags"] == 0 for row in rows.values())
  assert [
    rows["twitter2017", split, ""]["sentences"]
    for split in ("train", "valid", "test")
  ] == [3_373, 723, 723]
  shared = {
    (o["first"].removeprefix(REAL), o["second"].removeprefix(REAL)): o["images"]
    for o in overlaps
  }
  assert shared["/mmnerd_en", "/twitter2017"] == 2_982
  assert shared["/mmnerd_en train", "/twitter2017 test"] == 350


@real_data
def test_wikineural():
  rows, _ = real("wikineural")
  found = {
    key[1:]: (row["sentences"], row["orphan_tags"]) for key, row in rows.items()
  }
  assert found == {
    ("valid", "en"): (11_590, 439), ("test", "en"): (11_597, 559),
    ("valid", "fr"): (12_600, 61), ("test", "fr"): (12_678, 39),
    ("valid", "de"): (12_330, 0), ("test", "de"): (12_372, 0),
    ("valid", "es"): (9_540, 0), ("test", "es"): (9_618, 0),
  }  # fmt: skip


@real_data
def test_cp_mner():
  rows, _ = real("cp_mner_zh")
  found = [
    (row["sentences"], row["orphan_tags"], row["images_missing"])
    for row in rows.values()
  ]
  assert found == [(950, 142, 4), (119, 17, 0), (119, 14, 0)]
  assert max(row["longest"] for row in rows.values()) == 555
  assert len(rows["cp_mner_zh", "train", ""]["entities"]) == 16
  assert not any(row["images_broken"] for row in rows.values())

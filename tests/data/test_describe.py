import pytest
from PIL import Image

from mner_jax.config import UserError
from mner_jax.data import describe, formats
from tests.data.test_formats import SAME
from tests.training.test_loop import command


def sentence(words, tags, *more):
  return formats.Sentence(tuple(words.split()), tuple(tags.split()), *more)


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / "one"
  for name in ("images", "en", "de"):
    (folder / name).mkdir(parents=True)
  Image.new("RGB", (4, 4)).save(folder / "images" / "a.png")
  (folder / "images" / "bad.jpg").write_text("no picture")
  train = [
    sentence("Ann sings", "B-PER O", "a"),
    sentence("Ann sings", "I-PER O", "a.png"),
    sentence("in New York City", "O B-LOC I-LOC I-PER", "gone"),
    sentence("x", "O", "bad"),
    sentence("y", "O"),
  ]
  test = [sentence("Ann sings", "O O", "b.jpg"), sentence("z", "O", "gone")]
  formats.write_jsonl(folder / "de" / "train.jsonl", train)
  formats.write_jsonl(folder / "en" / "train.jsonl", train)
  formats.write_jsonl(folder / "en" / "test.jsonl", test)
  return folder


def test_what_folders_hold_and_share(folder, tmp_path):
  other = tmp_path / "two"
  other.mkdir()
  records = [
    sentence("in New York City", "O O O O", "GONE.JPG"),
    sentence("new", "O", "gone.JPG", "fr"),
    sentence("z", "O", "", "es"),
  ]
  formats.write_jsonl(other / "dev.jsonl", records)
  counts, shared, _ = describe.describe([folder, other])
  one, two = str(folder), str(other)
  assert list(counts[one]) == ["train de", "train en", "test en"]
  column = counts[one]["train de"]
  assert list(column.values()) == [5, 10, 2.0, 4, 2, 4, 1, 1, 4, 1, 3]
  assert " ".join([*column][4:7]) == "orphan tags images images missing"
  assert counts[one]["test en"]["entities"] == 0
  assert list(counts[two]) == ["valid", "valid es", "valid fr"]
  both = {"sentences": 1, "images": 1}
  assert shared == {
    (one, two): {"sentences": 2, "images": 1},
    (f"{one} train", f"{one} test"): both,
    (f"{one} train", f"{two} valid"): both,
    (f"{one} test", f"{two} valid"): both,
  }


def test_the_command(folder):
  (folder / "en" / "valid.txt").write_text(SAME["docstart"])
  program = "mner_jax/data/describe.py"
  result = command(program, folder)
  assert result.returncode == 0, result.stderr
  lines = [line.split() for line in result.stdout.splitlines()]
  assert lines[1] == "train de train en valid en test en".split()
  assert ["tokens", "10", "10", "3", "3"] in lines
  assert ["PER", "3", "3", "0", "0"] in lines
  assert "en/valid.txt: 1 -DOCSTART- lines skipped".split() in lines
  assert lines[-1][-4:] == ["1", "sentences,", "1", "images"]
  result = command(program, folder, "--images=no")
  assert result.returncode == 2
  assert f"{folder}/no: No such file or directory" in result.stderr
  assert len(result.stderr.splitlines()) == 1


BAD = [  # path, message
  (".", "no train, valid or test file in it; known are train, valid/val/dev,"),
  (".", "{tmp} holds Train.txt, one, train"),
  ("one/nested", "set data.tag_column to"),
  ("no", "is not a folder"),
]


@pytest.mark.parametrize(("path", "message"), BAD)
def test_bad_folders(folder, tmp_path, path, message):
  (folder / "nested").mkdir()
  (folder / "nested" / "train.txt").write_text(SAME["germeval"])
  for name in ("Train.txt", "train", "train.bio"):
    (tmp_path / name).write_text("a O\n")
  with pytest.raises(UserError) as error:
    describe.describe([tmp_path / path])
  assert message.format(tmp=tmp_path) in str(error.value)

import dataclasses
import io
import os
import random
import shutil

import pytest
from PIL import Image

from mner_jax.config import DataConfig, UserError
from mner_jax.data import builders, dataset, formats

TRAIN = """\
IMGID:red
Ann\tB-PER
saw\tO

IMGID:gone
Rome\tB-LOC

IMGID:bad
\ufe0f\tO
\u2028\tI-LOC
\xa0\tO

Oslo\tB-LOC

IMGID:blue.png
Bob\tB-PER
"""


def picture(colour, form="PNG", size=(6, 5)):
  buffer = io.BytesIO()
  Image.new("RGB", size, colour).save(buffer, form)
  return buffer.getvalue()


def write_splits(folder, *, train=TRAIN, valid="a\tO\n", test="b\tO\n"):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "train.txt").write_text(train)
  (folder / "valid.txt").write_text(valid)
  (folder / "test.txt").write_text(test)


@pytest.fixture
def folder(tmp_path):
  """A data folder of one language with pictures, two of them no good."""
  folder = tmp_path / "data"
  write_splits(folder)
  (folder / "images").mkdir()
  (folder / "images" / "red.jpg").write_bytes(picture("red", "JPEG"))
  (folder / "images" / "blue.png").write_bytes(picture("blue"))
  (folder / "images" / "bad.jpg").write_text("<html>404</html>")
  return folder


def settings(folder, cache="cache", **fields):
  return DataConfig(
    path=str(folder),
    cache_dir=str(folder.parent / cache),
    **{"languages": ("en",), **fields},
  )


def load(folder, **fields):
  return builders.load(settings(folder, **fields))


def contents(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def test_a_flat_folder(folder):
  splits = load(folder)
  assert list(splits) == ["train", "valid", "test"]
  train = splits["train"]
  read = list(formats.read_conll(folder / "train.txt", "en"))
  assert train.sentences == read
  assert [s.origin for s in train.sentences] == [s.origin for s in read]
  assert train.sentences[2].words == ("\ufe0f", "\u2028", "\xa0")
  assert [s.words for s in splits["test"].sentences] == [("b",)]


def test_missing_and_broken_pictures_are_told(folder):
  train = load(folder)["train"]
  assert train.image_status == ["ok", "missing", "broken", "", "ok"]
  assert train.image(0) == (folder / "images" / "red.jpg").read_bytes()
  assert train.image(4) == (folder / "images" / "blue.png").read_bytes()


def test_without_pictures(folder):
  assert set(load(folder, images="")["train"].image_status) == {""}


def test_pictures_of_another_folder(folder, tmp_path):
  (folder / "images").rename(tmp_path / "elsewhere")
  train = load(folder, images=str(tmp_path / "elsewhere"))["train"]
  assert train.image_status[0] == "ok"


def test_the_bytes_of_a_picture_are_kept(folder):
  data = picture("red") + b"\0\0"
  (folder / "images" / "gone.png").write_bytes(data)
  assert load(folder)["train"].image(1) == data


def test_language_folders(tmp_path):
  folder = tmp_path / "data"
  (folder / "images").mkdir(parents=True)
  for language, name in (("en", "red"), ("fr", "blue"), ("de", "green")):
    text = f"IMGID:{name}\n{language}\tB-LOC\n\n{language}2\tO\n"
    write_splits(folder / language, train=text)
    (folder / "images" / f"{name}.png").write_bytes(picture(name))
  # Files of other names that are looked for, and one that is not.
  (folder / "fr" / "valid.txt").rename(folder / "fr" / "val.conllu")
  (folder / "de" / "valid.txt").rename(folder / "de" / "dev.txt")
  (folder / "train.txt").write_text("not read\n")
  config = settings(folder, languages=("en", "fr"), eval_languages=("de",))

  train = builders.load(config)["train"]
  found = [(s.words[0], s.language) for s in train.sentences]
  assert found == [
    ("en", "en"), ("en2", "en"), ("fr", "fr"), ("fr2", "fr"), ("de", "de"),
    ("de2", "de"),
  ]  # fmt: skip
  assert train.sentences[2].where(0) == "fr/train.txt:2"

  (split,) = builders.load(config, ("train",), ("de", "fr")).values()
  assert [s.language for s in split.sentences] == ["fr", "fr", "de", "de"]
  assert split.image_status == ["ok", "", "ok", ""]
  assert split.image(0) == picture("blue")
  assert split.image(2) == picture("green")


def test_the_same_source_gives_the_same_bytes(folder):
  load(folder, cache="one")
  load(folder, cache="two")
  one, two = (contents(folder.parent / name) for name in ("one", "two"))
  assert any("train.array_record" in name for name in one)
  assert one == two


def test_a_built_data_set_is_used_again(folder, capfd):
  load(folder)
  out, err = capfd.readouterr()
  assert out == ""
  assert str(folder.parent / "cache") in err
  cache = folder.parent / "cache"
  before = contents(cache)
  times = {p: p.stat().st_mtime_ns for p in cache.rglob("*")}
  load(folder)
  assert "building" not in capfd.readouterr().err
  assert contents(cache) == before
  assert {p: p.stat().st_mtime_ns for p in cache.rglob("*")} == times


def test_a_changed_word_is_seen(folder):
  assert load(folder)["train"].sentences[0].words == ("Ann", "saw")
  write_splits(folder, train=TRAIN.replace("Ann", "Eve"))
  assert load(folder)["train"].sentences[0].words == ("Eve", "saw")


def test_a_changed_a_new_and_a_lost_picture_are_seen(folder):
  load(folder)
  (folder / "images" / "bad.jpg").write_bytes(picture("red", size=(9, 9)))
  train = load(folder)["train"]
  assert train.image_status == ["ok", "missing", "ok", "", "ok"]
  (folder / "images" / "gone.png").write_bytes(picture("red"))
  assert load(folder)["train"].image_status[1] == "ok"
  (folder / "images" / "red.jpg").unlink()
  assert load(folder)["train"].image_status[0] == "missing"


def change_in_time(folder, nanoseconds):
  """Replaces a picture by one of as many bytes, this much later."""
  path = folder / "images" / "gone.bmp"
  path.write_bytes(picture("red", "BMP"))
  now = 1_700_000_000_000_000_000
  os.utime(path, ns=(now, now))
  assert load(folder)["train"].image(1) == picture("red", "BMP")
  path.write_bytes(picture("blue", "BMP"))
  os.utime(path, ns=(now, now + nanoseconds))
  assert load(folder)["train"].image(1) == picture("blue", "BMP")


def test_a_picture_of_the_same_size_changed_later_is_seen(folder):
  change_in_time(folder, 2_000_000_000)


def test_an_empty_image_folder_is_not_no_image_folder(folder):
  for path in (folder / "images").iterdir():
    path.unlink()
  without = load(folder, images="")["train"].image_status
  assert without == [""] * 5
  empty = load(folder)["train"].image_status
  assert empty == ["missing", "missing", "missing", "", "missing"]


def test_a_copy_of_the_data_names_its_own_lines(folder, tmp_path):
  assert load(folder)["train"].sentences[0].where(0) == "data/train.txt:2"
  copy = shutil.copytree(folder, tmp_path / "copy")
  assert load(copy)["train"].sentences[0].where(0) == "copy/train.txt:2"


@pytest.mark.parametrize(
  "name", ["../secret", "../secret.png", "images/../../secret", "{}", ".."]
)
def test_no_picture_outside_of_the_folder_is_read(folder, name):
  (folder / "secret.png").write_bytes(picture("red"))
  name = name.format(folder / "secret.png")
  write_splits(folder, train=f"IMGID:{name}\nAnn\tB-PER\n")
  assert load(folder)["train"].image_status == ["missing"]


def test_a_subfolder_is_no_picture(folder):
  (folder / "images" / "gone").mkdir()
  assert load(folder)["train"].image_status[1] == "missing"


def test_a_link_to_nowhere_is_no_picture(folder):
  (folder / "images" / "gone.png").symlink_to(folder / "nowhere.png")
  assert load(folder)["train"].image_status[1] == "missing"


def test_a_missing_folder(tmp_path):
  with pytest.raises(UserError, match="data.path: .*nowhere is not a folder"):
    load(tmp_path / "nowhere")


def test_a_missing_split(folder):
  (folder / "valid.txt").unlink()
  with pytest.raises(UserError, match="data.path: .*data has no valid.txt"):
    load(folder)


def test_a_missing_language(tmp_path):
  write_splits(tmp_path / "data" / "en")
  with pytest.raises(UserError, match="has no train.txt for 'fr'"):
    load(tmp_path / "data", languages=("en", "fr"), images="")


def test_a_missing_image_folder(folder):
  shutil.rmtree(folder / "images")
  with pytest.raises(UserError, match="data.images: .*images is not a folder"):
    load(folder)


def test_several_languages_need_subfolders(folder):
  with pytest.raises(UserError, match="has no subfolders en, fr.*languages"):
    load(folder, languages=("en", "fr"))


def test_a_bad_line_is_named_and_nothing_is_left(folder):
  write_splits(folder, test="a\tO\nb\tQ\n")
  with pytest.raises(UserError, match=r"data/test\.txt:2: 'Q' is not a tag"):
    load(folder)
  assert not contents(folder.parent / "cache")
  write_splits(folder, test="a\tO\nb\tO\n")
  assert load(folder)["test"].sentences[0].words == ("a", "b")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_without_sentences(folder, split):
  write_splits(folder, **{split: "\n\n"})
  with pytest.raises(UserError, match=rf"{split}\.txt"):
    load(folder)


def test_a_folder_named_like_a_split(folder):
  (folder / "train.txt").unlink()
  (folder / "train.txt").mkdir()
  with pytest.raises(UserError, match=r"train\.txt"):
    load(folder)


def test_a_cache_that_is_a_file(folder):
  (folder.parent / "cache").write_text("")
  with pytest.raises(UserError, match="data.cache_dir: .*cache"):
    load(folder)


def test_labels_are_the_sorted_union(folder):
  write_splits(folder, valid="a\tI-ORG\n", test="a\tB-A-B\n")
  splits = load(folder)
  assert dataset.labels(splits.values()) == ("A-B", "LOC", "ORG", "PER")
  assert dataset.labels([splits["train"]]) == ("LOC", "PER")
  assert dataset.labels([splits["train"]], ("PER", "ORG", "LOC")) == (
    "PER", "ORG", "LOC",
  )  # fmt: skip


def test_a_tag_of_no_given_label_is_named(folder):
  splits = load(folder)
  with pytest.raises(UserError) as error:
    dataset.labels(splits.values(), ("PER", "MISC"))
  line = TRAIN.split("\n").index("Rome\tB-LOC") + 1
  assert str(error.value).startswith(f"data/train.txt:{line}: tag B-LOC ")
  assert "PER, MISC" in str(error.value)


def test_an_unknown_synthetic_language():
  config = DataConfig(languages=("en", "xx"))
  with pytest.raises(UserError, match="data.languages: .*'xx'.*en"):
    builders.load(config)


def test_many_sentences_keep_their_order(folder):
  rng = random.Random(0)
  lines = [f"w{rng.random()}\tO\n" for _ in range(2_000)]
  write_splits(folder, train="\n".join(lines))
  config = dataclasses.replace(settings(folder), images="")
  sentences = builders.load(config)["train"].sentences
  assert [f"{s.words[0]}\tO\n" for s in sentences] == lines

import dataclasses
import io
import os
import pathlib
import random
import shutil

import numpy as np
import pytest
from etils import epath
from PIL import Image

from mner_jax.config import DataConfig, UserError
from mner_jax.data import builders, dataset, folders, formats

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


def test_jsonl_files_in_place_of_text(folder):
  sentences = list(formats.read(folder / "train.txt", "en"))
  (folder / "train.txt").unlink()
  formats.write_jsonl(folder / "train.jsonl", sentences)
  train = load(folder)["train"]
  assert train.sentences == sentences
  assert train.sentences[2].where(1) == "data/train.jsonl:3"


def write_mixed(folder, languages):
  sentences = [
    formats.Sentence((f"{language}{i}",), ("O",), language=language)
    for i in range(2)
    for language in languages
  ]
  folder.mkdir(exist_ok=True)
  for split in ("train", "valid", "test"):
    formats.write_jsonl(folder / f"{split}.jsonl", sentences)


def test_one_jsonl_file_of_several_languages(tmp_path):
  folder = tmp_path / "data"
  write_mixed(folder, ("en", "fr", "de"))
  config = settings(folder, languages=("en", "fr"), images="")
  found = [s.words[0] for s in builders.load(config)["train"].sentences]
  assert found == ["en0", "fr0", "en1", "fr1"]
  config = dataclasses.replace(config, languages=("en", "es"))
  with pytest.raises(UserError, match="no train sentence is in 'es'"):
    builders.load(config)
  write_mixed(folder, ("en", ""))
  with pytest.raises(UserError, match=r"data/train.jsonl:2: no language"):
    builders.load(config)


@pytest.mark.parametrize("parent", ["", "train_valid_test"])
def test_the_layout_of_the_authors(folder, parent):
  for language in ("en", "fr"):
    place = folder / parent / f"train_valid_test_{language}"
    write_splits(place, train=f"IMGID:red\n{language}\tO\n")
    for path in place.iterdir():
      path.rename(place / f"{path.stem}_conll_format.txt")
  for path in folder.glob("*.txt"):
    path.unlink()
  train = load(folder, languages=("en", "fr"))["train"]
  assert [s.words for s in train.sentences] == [("en",), ("fr",)]
  assert train.image_status == ["ok", "ok"]
  assert train.sentences[1].where(0) == (
    "train_valid_test_fr/train_conll_format.txt:2"
  )
  assert folders.languages(epath.Path(folder)) == ("en", "fr")


@pytest.mark.parametrize("name", ["mmnerd", "twitter2015", "twitter2017"])
def test_data_sets_by_name_come_from_their_manual_folder(folder, name):
  cache = folder.parent / "cache"
  config = dataclasses.replace(settings(folder), path=name)
  place = cache / "downloads" / "manual" / name
  with pytest.raises(UserError) as error:
    builders.load(config)
  assert str(error.value).startswith(f"data.path: {name} is read from {place}")
  assert "images/" in str(error.value)
  assert "\n" not in str(error.value)
  shutil.copytree(folder, place)
  assert builders.load(config)["train"].image_status[0] == "ok"
  assert (cache / name).is_dir()


def test_types_are_renamed_on_reading(folder):
  write_splits(folder, test="a\tB-ORG\nb\tI-ORG\n")
  pairs = ("LOC=PLACE", "ORG=PLACE", "PER=O")
  splits = load(folder, label_map=pairs)
  assert dataset.labels(splits.values()) == ("PLACE",)
  assert splits["train"].sentences[0].tags == ("O", "O")
  assert splits["train"].sentences[2].tags == ("O", "I-PLACE", "O")
  assert splits["test"].sentences[0].tags == ("B-PLACE", "I-PLACE")
  # A type of any split is known, also when only another one is asked for.
  builders.load(settings(folder, label_map=pairs), ("valid",))
  with pytest.raises(UserError, match="label_map: .*'OTHER', only of LOC, ORG"):
    builders.load(settings(folder, label_map=("OTHER=MISC",)), ("valid",))


def test_tags_of_another_scheme(folder):
  write_splits(folder, train="a\tS-A\nb\tB-B\nc\tE-B\n")
  train = load(folder, scheme="bioes")["train"]
  assert train.sentences[0].tags == ("B-A", "B-B", "I-B")
  with pytest.raises(UserError, match=r"train.txt:1: 'S-A' .* data.scheme"):
    load(folder)


def test_orphans_of_the_train_split_may_be_an_error(folder):
  write_splits(folder, test="a\tI-LOC\n")
  config = settings(folder, orphans="error")
  with pytest.raises(UserError, match=r"^data/train.txt:10: I-LOC follows no"):
    builders.load(config)
  assert builders.load(config, ("valid", "test"))
  assert dataset.notes(load(folder)["train"]) == (
    "1 orphan I- tags, 1 images missing, 1 images broken"
  )
  assert dataset.notes(load(folder)["valid"]) == ""


def test_strict_lists_missing_and_broken_pictures(folder):
  with pytest.raises(UserError) as error:
    load(folder, strict=True)
  assert str(error.value) == (
    "data.strict: 2 images are missing or broken: gone (missing), bad (broken)"
  )
  blocks = (f"IMGID:none{i}\na\tO\n" for i in range(12))
  write_splits(folder, train="\n".join(blocks))
  with pytest.raises(
    UserError, match=r"12 images .*none9 \(missing\), \.\.\.$"
  ):
    load(folder, strict=True)
  write_splits(folder, train="IMGID:red\na\tO\n\nb\tO\n")
  assert load(folder, strict=True)["train"].image_status == ["ok", ""]


def test_pictures_are_stored_smaller(folder):
  large = io.BytesIO()
  noise = np.random.default_rng(0).integers(0, 256, (30, 60, 3))
  Image.fromarray(noise.astype(np.uint8)).save(large, "JPEG")
  (folder / "images" / "gone.jpg").write_bytes(large.getvalue())
  (folder / "images" / "blue.png").write_bytes(picture("blue", size=(40, 20)))
  train = load(folder, resize=10)["train"]
  assert train.image(0) == (folder / "images" / "red.jpg").read_bytes()
  for index, form, size in ((1, "JPEG", (20, 10)), (4, "PNG", (20, 10))):
    stored = Image.open(io.BytesIO(train.image(index)))
    assert (stored.format, stored.size) == (form, size)
  assert train.image_status == ["ok", "ok", "broken", "", "ok"]
  assert load(folder)["train"].image(1) == large.getvalue()


def test_ids_of_one_file_are_one_picture(folder):
  blocks = (f"IMGID:{i}\na\tO\n" for i in ("red", "red.jpg", "blue", "gone"))
  write_splits(folder, train="\n".join(blocks))
  train = load(folder)["train"]
  assert train.image_names == ["red.jpg", "red.jpg", "blue.png", ""]


def test_a_full_disk_is_told_before(folder, monkeypatch):
  usage = shutil.disk_usage(folder)._replace(free=100)
  monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
  with pytest.raises(UserError, match="data.cache_dir: .* 0.0 GB free"):
    load(folder)
  assert not (folder.parent / "cache").exists()


@pytest.mark.skipif(
  "MNER_REAL_DATA" not in os.environ, reason="MNER_REAL_DATA is not set"
)
def test_mmnerd_is_built_twice_to_the_same_bytes(tmp_path):
  path = pathlib.Path(os.environ["MNER_REAL_DATA"], "mmnerd_en")
  built = []
  for name in ("one", "two"):
    config = settings(path, images="")
    config = dataclasses.replace(config, cache_dir=str(tmp_path / name))
    train = builders.load(config, ("train",))["train"]
    assert len(train.sentences) == 19_968
    built.append(contents(tmp_path / name))
  assert built[0] == built[1]
  assert sum("array_record" in name for name in built[0]) == 3

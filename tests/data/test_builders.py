import io
import os
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


def load(folder, *arguments, cache="cache", **fields):
  fields = {"path": str(folder), "languages": ("en",)} | fields
  config = DataConfig(cache_dir=str(folder.parent / cache), **fields)
  return builders.load(config, *arguments)


def train(folder, **fields):
  return load(folder, **fields)["train"]


def contents(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def test_a_flat_folder(folder):
  splits = load(folder)
  assert list(splits) == ["train", "valid", "test"]
  split = splits["train"]
  read = list(formats.read_conll(folder / "train.txt", "en"))
  assert split.sentences == read
  assert [s.origin for s in split.sentences] == [s.origin for s in read]
  assert split.sentences[2].words == ("\ufe0f", "\u2028", "\xa0")
  assert [s.words for s in splits["test"].sentences] == [("b",)]
  # Bytes of pictures are kept; two of the pictures are no good.
  assert split.image_status == ["ok", "missing", "broken", "", "ok"]
  # Several ids may lead to one file: blue and blue.png.
  assert split.image_names == ["red.jpg", "", "bad.jpg", "", "blue.png"]
  assert split.image(0) == (folder / "images" / "red.jpg").read_bytes()
  assert split.image(4) == (folder / "images" / "blue.png").read_bytes()


def test_where_pictures_are(folder, tmp_path):
  assert train(folder, images="").image_status == [""] * 5
  elsewhere = tmp_path / "elsewhere"
  (folder / "images").rename(elsewhere)
  assert train(folder, images=str(elsewhere)).image_status[0] == "ok"
  (folder / "images").mkdir()
  status = train(folder).image_status
  assert status == ["missing", "missing", "missing", "", "missing"]


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
  fields = {"languages": ("en", "fr"), "eval_languages": ("de",)}
  split = train(folder, **fields)
  found = " ".join(f"{s.words[0]}:{s.language}" for s in split.sentences)
  assert found == "en:en en2:en fr:fr fr2:fr de:de de2:de"
  assert split.sentences[2].where(0) == "fr/train.txt:2"
  (split,) = load(folder, ("train",), ("de", "fr"), **fields).values()
  assert [s.language for s in split.sentences] == ["fr", "fr", "de", "de"]
  assert split.image_status == ["ok", "", "ok", ""]
  assert split.image(0) == picture("blue")
  assert split.image(2) == picture("green")


def test_the_same_source_gives_the_same_bytes(folder):
  load(folder, cache="one")
  load(folder, cache="two")
  one, two = (contents(folder.parent / name) for name in ("one", "two"))
  assert sum("array_record" in name for name in one) == 3
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


def test_another_process_may_build_it_first(folder, monkeypatch):
  read = formats.read

  def race(*arguments):
    monkeypatch.setattr(formats, "read", read)
    load(folder)
    return read(*arguments)

  monkeypatch.setattr(formats, "read", race)
  split = train(folder, label_map=("PER=PERSON",))
  assert split.sentences[0].tags == ("B-PERSON", "O")
  assert split.image(4) == picture("blue")


def test_a_changed_source_is_seen(folder):
  assert train(folder).sentences[0].words == ("Ann", "saw")
  write_splits(folder, train=TRAIN.replace("Ann", "Eve"))
  assert train(folder).sentences[0].words == ("Eve", "saw")
  (folder / "images" / "bad.jpg").write_bytes(picture("red", size=(9, 9)))
  status = train(folder).image_status
  assert status == ["ok", "missing", "ok", "", "ok"]
  (folder / "images" / "gone.png").write_bytes(picture("red"))
  assert train(folder).image_status[1] == "ok"
  (folder / "images" / "red.jpg").unlink()
  assert train(folder).image_status[0] == "missing"


def test_a_picture_of_the_same_size_changed_later_is_seen(folder):
  path = folder / "images" / "gone.bmp"
  for colour, time in (("red", 1_700_000_000), ("blue", 1_700_000_002)):
    path.write_bytes(picture(colour, "BMP"))
    os.utime(path, (time, time))
    assert train(folder).image(1) == picture(colour, "BMP")


def test_a_copy_of_the_data_names_its_own_lines(folder, tmp_path):
  assert train(folder).sentences[0].where(0) == "data/train.txt:2"
  copy = shutil.copytree(folder, tmp_path / "copy")
  assert train(copy).sentences[0].where(0) == "copy/train.txt:2"


def test_no_picture_outside_of_the_folder_is_read(folder):
  (folder / "secret.png").write_bytes(picture("red"))
  (folder / "images" / "folder").mkdir()
  (folder / "images" / "link.png").symlink_to(folder / "nowhere.png")
  names = "../secret ../secret.png images/../../secret .. folder link".split()
  names.append(str(folder / "secret.png"))
  blocks = (f"IMGID:{name}\nAnn\tB-PER\n" for name in names)
  write_splits(folder, train="\n".join(blocks))
  assert train(folder).image_status == ["missing"] * len(names)


def move_to_en(folder):
  (folder / "en").mkdir()
  for path in list(folder.glob("*.txt")):
    path.rename(folder / "en" / path.name)


SYNTHETIC = {"path": "synthetic", "languages": ("en", "xx")}
BAD_FOLDERS = [
  (shutil.rmtree, {}, "data.path: .*data is not a folder"),
  (lambda f: (f / "valid.txt").unlink(), {}, "has no valid split for 'en'"),
  (move_to_en, {"languages": ("en", "fr")}, "has no train split for 'fr'"),
  (lambda f: None, SYNTHETIC, "data.path: synthetic has no .* for 'xx'"),
  (lambda f: None, {"languages": ("en", "fr")}, "no subfolders en, fr.*lang"),
  (lambda f: shutil.rmtree(f / "images"), {}, "images is not a folder; name"),
  (lambda f: write_splits(f, valid="\n"), {}, r"valid\.txt: no sentence in"),
  (
    lambda f: (f.parent / "cache").write_text(""),
    {},
    "data.cache_dir: .*cache",
  ),
]


@pytest.mark.parametrize(("change", "fields", "message"), BAD_FOLDERS)
def test_bad_folders(folder, change, fields, message):
  change(folder)
  with pytest.raises(UserError, match=message):
    load(folder, **fields)


def test_a_bad_line_is_named_and_nothing_is_left(folder):
  write_splits(folder, test="a\tO\nb\tQ\n")
  with pytest.raises(UserError, match=r"data/test\.txt:2: 'Q' is not a tag"):
    load(folder)
  assert not contents(folder.parent / "cache")
  write_splits(folder, test="a\tO\nb\tO\n")
  assert load(folder)["test"].sentences[0].words == ("a", "b")


def test_labels(folder):
  write_splits(folder, valid="a\tI-ORG\n", test="a\tB-A-B\n")
  splits = load(folder)
  assert dataset.labels(splits.values()) == ("A-B", "LOC", "ORG", "PER")
  assert dataset.labels([splits["train"]]) == ("LOC", "PER")
  given = ("PER", "ORG", "LOC")
  assert dataset.labels([splits["train"]], given) == given
  line = TRAIN.split("\n").index("Rome\tB-LOC") + 1
  message = rf"train.txt:{line}: .* B-LOC is not in data.labels \(PER, MISC\)"
  with pytest.raises(UserError, match=message):
    dataset.labels(splits.values(), ("PER", "MISC"))


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
  split = train(folder, images="", languages=("en", "fr"))
  found = [s.words[0] for s in split.sentences]
  assert found == ["en0", "fr0", "en1", "fr1"]
  with pytest.raises(UserError, match="no train sentence in 'es'"):
    load(folder, images="", languages=("en", "es"))
  write_mixed(folder, ("en", ""))
  with pytest.raises(UserError, match=r"data/train.jsonl:2: no language"):
    load(folder, images="", languages=("en", "es"))


@pytest.mark.parametrize("parent", ["", "train_valid_test"])
def test_the_layout_of_the_authors(folder, parent):
  for language in ("en", "fr"):
    place = folder / parent / f"train_valid_test_{language}"
    write_splits(place, train=f"IMGID:red\n{language}\tO\n")
    for path in list(place.iterdir()):
      path.rename(place / f"{path.stem}_conll_format.txt")
  for path in folder.glob("*.txt"):
    path.unlink()
  split = train(folder, languages=("en", "fr"))
  assert [s.words for s in split.sentences] == [("en",), ("fr",)]
  assert split.image_status == ["ok", "ok"]
  where = split.sentences[1].where(0)
  assert where == "train_valid_test_fr/train_conll_format.txt:2"
  assert folders.languages(epath.Path(folder)) == ("en", "fr")


@pytest.mark.parametrize("name", ["mmnerd", "twitter2015", "twitter2017"])
def test_data_sets_by_name_come_from_their_manual_folder(folder, name):
  cache = folder.parent / "cache"
  place = cache / "downloads" / "manual" / name
  with pytest.raises(UserError, match=f"{name} is read from {place}.*images/$"):
    load(folder, path=name)
  shutil.copytree(folder, place)
  assert train(folder, path=name).image_status[0] == "ok"
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
  load(folder, ("valid",), label_map=pairs)
  with pytest.raises(UserError, match="label_map: 'OTHER=MISC'.* LOC, ORG"):
    load(folder, ("valid",), label_map=("OTHER=MISC",))


def test_tags_of_another_scheme(folder):
  write_splits(folder, train="a\tS-A\nb\tB-B\nc\tE-B\n")
  sentences = train(folder, scheme="bioes").sentences
  assert sentences[0].tags == ("B-A", "B-B", "I-B")
  with pytest.raises(UserError, match=r"train.txt:1: 'S-A' .* data.scheme"):
    load(folder)


def test_orphans_of_the_train_split_may_be_an_error(folder):
  write_splits(folder, test="a\tI-LOC\n")
  with pytest.raises(UserError, match=r"^data/train.txt:10: I-LOC does not"):
    load(folder, orphans="error")
  splits = load(folder, ("valid", "test"), orphans="error")
  assert dataset.notes(splits["valid"]) == ""
  assert dataset.notes(train(folder)) == (
    "1 orphan I- tags, 1 images missing, 1 images broken"
  )


def test_strict_lists_missing_and_broken_pictures(folder):
  wrong = r"2 images are missing or broken: gone \(missing\), bad \(broken\)$"
  with pytest.raises(UserError, match=wrong):
    load(folder, strict=True)
  blocks = (f"IMGID:none{i}\na\tO\n" for i in range(12))
  write_splits(folder, train="\n".join(blocks))
  with pytest.raises(UserError, match=r"12 images .*none9 .missing., \.\.\.$"):
    load(folder, strict=True)
  write_splits(folder, train="IMGID:red\na\tO\n\nb\tO\n")
  assert train(folder, strict=True).image_status == ["ok", ""]


def test_pictures_are_stored_smaller(folder):
  large = io.BytesIO()
  noise = np.random.default_rng(0).integers(0, 256, (30, 60, 3))
  Image.fromarray(noise.astype(np.uint8)).save(large, "JPEG")
  (folder / "images" / "gone.jpg").write_bytes(large.getvalue())
  split = train(folder, resize=10)
  assert split.image(0) == (folder / "images" / "red.jpg").read_bytes()
  stored = Image.open(io.BytesIO(split.image(1)))
  assert (stored.format, stored.size) == ("JPEG", (20, 10))
  assert split.image_status == ["ok", "ok", "broken", "", "ok"]
  assert train(folder).image(1) == large.getvalue()

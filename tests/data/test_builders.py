import dataclasses
import io
import os
import shutil

import numpy as np
import pytest
from etils import epath
from PIL import Image

from mner_jax.config import Config, DataConfig, UserError, replace
from mner_jax.data import builders, dataset, folders, formats
from tests.conftest import TEXT_ONLY

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
  return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_flat_folder(folder):
  more = "".join(f"\nIMGID:{name}\na\tO\n" for name in ("blue", "red"))
  write_splits(folder, train=TRAIN + more)
  splits = load(folder)
  assert list(splits) == ["train", "valid", "test"]
  split = splits["train"]
  read = list(formats.read_conll(folder / "train.txt", "en"))
  assert split.sentences == read
  assert [s.origin for s in split.sentences] == [s.origin for s in read]
  assert split.sentences[2].words == ("\ufe0f", "\u2028", "\xa0")
  assert [s.words for s in splits["test"].sentences] == [("b",)]
  # Bytes of pictures are kept; two of the pictures are no good.
  status = ["ok", "missing", "broken", "", "ok", "ok", "ok"]
  assert split.image_status == status
  # Several ids may lead to one file, which is stored once, after an empty one.
  names = ["red.jpg", "", "bad.jpg", "", "blue.png", "blue.png", "red.jpg"]
  assert split.image_names == names and len(split.records) == 3
  for i, name in enumerate(names):
    path = folder / "images" / name
    assert status[i] != "ok" or split.image(i) == path.read_bytes()


def test_where_pictures_are(folder, tmp_path):
  (folder / "secret.png").write_bytes(picture("red"))
  (folder / "images" / "folder").mkdir()
  (folder / "images" / "link.png").symlink_to(folder / "nowhere.png")
  names = "../secret ../secret.png images/../../secret .. folder link".split()
  names.append(str(folder / "secret.png"))
  blocks = (f"IMGID:{name}\na\tO\n" for name in (*names, "red"))
  write_splits(folder, train="\n".join(blocks))
  status = ["missing"] * len(names)
  assert train(folder).image_status == [*status, "ok"]
  (folder / "images").rename(tmp_path / "elsewhere")
  elsewhere = {"images": str(tmp_path / "elsewhere")}
  assert train(folder, **elsewhere).image_status == [*status, "ok"]
  # A model that sees no pictures needs no folder of them.
  text = replace(Config(), TEXT_ONLY | {"data.images": "images"}).model
  for model in (Config().model, text):
    config = dataclasses.replace(Config(), model=model)
    images = builders.inputs(config).images
    assert images == "images" * model.multimodal
  assert train(folder, images=images).image_status == [""] * 8


def test_language_folders(tmp_path):
  folder = tmp_path / "data"
  (folder / "images").mkdir(parents=True)
  for language, name in (("en", "red"), ("fr", "blue"), ("de", "green")):
    text = f"IMGID:{name}\n{language}\tB-LOC\n\n{language}2\tO\n"
    write_splits(folder / language, train=text)
    (folder / "images" / f"{name}.png").write_bytes(picture(name))
  # Files of other names that are looked for.
  (folder / "fr" / "valid.txt").rename(folder / "fr" / "val.conllu")
  (folder / "de" / "valid.txt").rename(folder / "de" / "dev.txt")
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


def test_a_data_set_is_built_once_and_the_same_from_the_same(folder, capfd):
  one, two = (folder.parent / name for name in ("one", "two"))
  load(folder, cache="one")
  out, err = capfd.readouterr()
  assert out == "" and str(one) in err
  times = {p: p.stat().st_mtime_ns for p in one.rglob("*")}
  load(folder, cache="one")
  assert "building" not in capfd.readouterr().err
  assert {p: p.stat().st_mtime_ns for p in one.rglob("*")} == times
  load(folder, cache="two")
  assert [*contents(one).values()] == [*contents(two).values()]


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


def test_a_changed_source_is_seen(folder, tmp_path):
  assert train(folder).sentences[0].where(0) == "data/train.txt:2"
  write_splits(folder, train=TRAIN.replace("Ann", "Eve"))
  assert train(folder).sentences[0].words == ("Eve", "saw")
  (folder / "images" / "bad.jpg").write_bytes(picture("red", size=(9, 9)))
  (folder / "images" / "red.jpg").unlink()
  status = train(folder).image_status
  assert status == ["missing", "missing", "ok", "", "ok"]
  path = folder / "images" / "gone.bmp"
  for colour, time in (("red", 1_700_000_000), ("blue", 1_700_000_002)):
    path.write_bytes(picture(colour, "BMP"))
    os.utime(path, (time, time))
    assert train(folder).image(1) == picture(colour, "BMP")
  # A copy names its own lines.
  copy = shutil.copytree(folder, tmp_path / "copy")
  assert train(copy).sentences[0].where(0) == "copy/train.txt:2"
  nested = "-DOCSTART-\tO\tO\n\na\tB-X\tS-Y\n"
  write_splits(folder, train=nested, valid=nested, test=nested)
  for column, tag in (("-1", "B-Y"), ("2", "B-X"), ("3", "B-Y")):
    split = train(folder, tag_column=column, scheme="bioes")
    assert split.sentences[0].tags == (tag,)
    assert dataset.notes(split).startswith(
      "data/train.txt: 1 -DOCSTART- lines skipped, data/train.txt: tags are"
    )


def cut(path):
  os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [os.unlink, cut])
@pytest.mark.parametrize(
  "name",
  ["*-train.array*", "*-train_pictures*", "dataset_info.json", "metadata.json"],
)
def test_a_damaged_cache_is_one_line(folder, name, harm):
  noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
  Image.fromarray(noise).save(folder / "images" / "gone.bmp")
  built = train(folder)
  (path,) = (folder.parent / "cache").rglob(name)
  harm(path)
  with pytest.raises(UserError, match=r"damaged \(.*delete that") as error:
    load(folder)
  place = str(error.value).split()[6]
  assert str(path).startswith(place) and "\n" not in str(error.value)
  shutil.rmtree(place)
  assert train(folder).sentences == built.sentences


def move_to_en(folder):
  (folder / "en").mkdir()
  for path in list(folder.glob("*.txt")):
    path.rename(folder / "en" / path.name)


def copy(old, new):
  def change(folder):
    (folder / new).parent.mkdir(exist_ok=True)
    shutil.copy(folder / old, folder / new)

  return change


SYNTHETIC = {"path": "synthetic", "languages": ("en", "xx")}
AUTHORS = ("", "train_valid_test_")
BAD_FOLDERS = [
  (shutil.rmtree, {}, "data.path: .*data is not a folder"),
  (
    lambda f: (f / "valid.txt").rename(f / "Valid.txt"),
    {},
    "has no valid split for 'en'; known are train, valid/val/dev, test with .txt"
    ".* holds Valid.txt, images, test.txt, train.txt$",
  ),
  (copy("train.txt", "train.jsonl"), {}, "/train.txt and .*/train.jsonl are"),
  (copy("valid.txt", "dev.txt"), {}, "both .*/valid.txt and .*/dev.txt are"),
  (copy("test.txt", "en/test.txt"), {}, "both .*/en/test.txt and .*/train.txt"),
  (
    lambda f: [copy("test.txt", f"{_}en/test.txt")(f) for _ in AUTHORS],
    {},
    "both .*/data/en/test.txt and .*/data/train_valid_test_en/test.txt are",
  ),
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


def test_one_jsonl_file_of_several_languages(folder):
  def load_mixed(written, languages):
    sentences = [
      formats.Sentence((f"{language}{i}",), ("O",), language=language)
      for i in range(2)
      for language in written
    ]
    for split in ("train", "valid", "test"):
      (folder / f"{split}.txt").unlink(missing_ok=True)
      formats.write_jsonl(folder / f"{split}.jsonl", sentences)
    return train(folder, languages=languages)

  split = load_mixed(("en", "fr", "de"), ("en", "fr"))
  found = [s.words[0] for s in split.sentences]
  assert found == ["en0", "fr0", "en1", "fr1"]
  with pytest.raises(UserError, match="no train sentence in 'es'"):
    load_mixed(("en", "fr", "de"), ("en", "es"))
  with pytest.raises(UserError, match=r"data/train.jsonl:2: no language"):
    load_mixed(("en", ""), ("en", "es"))


def test_the_layout_of_the_authors(folder):
  for language, parent in (("en", ""), ("fr", "train_valid_test")):
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


def test_data_sets_by_name_come_from_their_manual_folder(folder):
  cache, name = folder.parent / "cache", "twitter2017"
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


def test_what_is_wrong_is_counted_or_refused(folder):
  write_splits(folder, test="a\tI-LOC\n")
  assert dataset.notes(train(folder)) == (
    "1 orphan I- tags, 1 images missing, 1 images broken"
  )
  with pytest.raises(UserError, match=r"^data/train.txt:10: I-LOC does not"):
    load(folder, orphans="error")
  wrong = r"2 images are missing or broken: gone \(missing\), bad \(broken\)$"
  with pytest.raises(UserError, match=wrong):
    load(folder, strict=True)
  good = {"orphans": "error", "strict": True}  # of the training split alone
  assert dataset.notes(load(folder, ("test",), **good)["test"])[0] == "1"


def test_pictures_are_stored_smaller(folder):
  large = picture("red", "JPEG", (60, 30))
  (folder / "images" / "gone.jpg").write_bytes(large)
  split = train(folder, resize=10)
  assert split.image(0) == (folder / "images" / "red.jpg").read_bytes()
  stored = Image.open(io.BytesIO(split.image(1)))
  assert (stored.format, stored.size) == ("JPEG", (20, 10))
  assert split.image_status == ["ok", "ok", "broken", "", "ok"]
  assert train(folder).image(1) == large

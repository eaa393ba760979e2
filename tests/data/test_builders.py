import dataclasses
import os
import shutil

import pytest
from etils import epath
from PIL import Image

from mner_jax.config import Config, DataConfig, UserError, replace
from mner_jax.data import builders, dataset, folders, formats, images
from tests.conftest import TEXT_ONLY
from tests.data.test_images import encode, random_image
from tests.training.test_loop import files

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
SPLITS = {"train": TRAIN, "valid": "a\tO\n", "test": "b\tO\n"}


def picture(colour, form="PNG", size=(6, 5)):
  return encode(Image.new("RGB", size, colour), form)


def write_splits(folder, **changed):
  folder.mkdir(parents=True, exist_ok=True)
  for split, text in (SPLITS | changed).items():
    (folder / f"{split}.txt").write_text(text)


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


def test_a_flat_folder(folder):
  more = "".join(f"\nIMGID:{name}\na\tO\n" for name in ("blue", "red"))
  write_splits(folder, train=TRAIN + more)
  splits = load(folder)
  split = splits["train"]
  read = list(formats.read_conll(folder / "train.txt", "en"))
  assert [vars(s) for s in split.sentences] == [vars(s) for s in read]
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
  (folder / "images" / "red.txt").write_text("what red.jpg shows")
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
  model = replace(Config(), TEXT_ONLY | {"data.images": "images"}).model
  config = builders.inputs(dataclasses.replace(Config(), model=model))
  assert builders.inputs(Config()).images == "images"
  assert train(folder, images=config.images).image_status == [""] * 8


def test_language_folders(tmp_path):
  """In any of the layouts, one of them that of MMNERD's authors."""
  folder = tmp_path / "data"
  (folder / "images").mkdir(parents=True)
  en, fr = folder / "en", folder / "train_valid_test_fr"
  de = folder / "train_valid_test" / "train_valid_test_de"
  for place, name in ((en, "red"), (fr, "blue"), (de, "green")):
    word = place.name[-2:]
    write_splits(place, train=f"IMGID:{name}\n{word}\tB-LOC\n\n{word}2\tO\n")
    (folder / "images" / f"{name}.png").write_bytes(picture(name))
  # Files of other names that are looked for.
  (en / "valid.txt").rename(en / "val.conllu")
  (de / "valid.txt").rename(de / "dev.txt")
  for split in SPLITS:
    (fr / f"{split}.txt").rename(fr / f"{split}_conll_format.txt")
  assert folders.languages(epath.Path(folder)) == ("de", "en", "fr")
  splits = load(folder, languages=("fr", "de"), eval_languages=("en", "de"))
  split = splits["train"]
  found = " ".join(f"{s.words[0]}:{s.language}" for s in split.sentences)
  assert found == "fr:fr fr2:fr de:de de2:de"
  where = split.sentences[0].where(0)
  assert where == "train_valid_test_fr/train_conll_format.txt:2"
  assert split.image_status == ["ok", "", "ok", ""]
  assert split.image(2) == picture("green")
  # Test is of others, with those trained on first.
  assert [s.language for s in splits["valid"].sentences] == ["fr", "de"]
  assert [s.language for s in splits["test"].sentences] == ["de", "en"]
  # The order of the languages does not make it another data set.
  split = train(folder, languages=("en", "de"), eval_languages=("fr",))
  assert [s.language for s in split.sentences] == ["en", "en", "de", "de"]
  assert len([*(tmp_path / "cache" / "text_image_folder").iterdir()]) == 1
  with pytest.raises(UserError, match="has no train split for 'xx'"):
    load(folder, languages=("en", "xx"))


def test_a_data_set_is_built_once_and_the_same_from_the_same(folder, capfd):
  one, two = (folder.parent / name for name in ("one", "two"))
  load(folder, cache="one")
  out, err = capfd.readouterr()
  assert out == "" and f"building the data set in {one}" in err
  load(folder, cache="one")
  assert "building" not in capfd.readouterr().err
  load(folder, cache="two")
  assert [*files(one).values()] == [*files(two).values()]


def test_another_process_may_build_it_first(folder, monkeypatch):
  read = formats.read

  def race(*arguments):
    monkeypatch.setattr(formats, "read", read)
    load(folder)
    return read(*arguments)

  monkeypatch.setattr(formats, "read", race)
  assert train(folder).image(4) == picture("blue")


def test_a_changed_source_is_seen(folder, tmp_path):
  assert train(folder).sentences[0].where(0) == "data/train.txt:2"
  write_splits(folder, train=TRAIN.replace("Ann", "Eve"))
  (folder / "images" / "bad.jpg").write_bytes(picture("red", size=(9, 9)))
  (folder / "images" / "red.jpg").unlink()
  split = train(folder)
  assert split.sentences[0].words == ("Eve", "saw")
  assert split.image_status == ["missing", "missing", "ok", "", "ok"]
  path = folder / "images" / "gone.bmp"
  for colour, time in (("red", 1_700_000_000), ("blue", 1_700_000_002)):
    path.write_bytes(picture(colour, "BMP"))
    os.utime(path, (time, time))
    assert train(folder).image(1) == picture(colour, "BMP")
  # A copy names its own lines.
  copy = shutil.copytree(folder, tmp_path / "copy")
  assert train(copy).sentences[0].where(0) == "copy/train.txt:2"
  nested = "-DOCSTART-\tO\tO\n\na\tB-X\tS-Y\n"
  write_splits(folder, **dict.fromkeys(SPLITS, nested))
  for column, tag in (("2", "B-X"), ("3", "B-Y")):
    split = train(folder, tag_column=column, scheme="bioes")
    assert split.sentences[0].tags == (tag,)
    assert f": tags are read from column {column}" in dataset.notes(split)


def cut(path):
  os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [os.unlink, cut])
def test_a_damaged_cache_is_one_line(folder, harm):
  random_image((300, 300)).save(folder / "images" / "gone.bmp")
  built = train(folder)
  for name in ("*-train.*", "*-train_pic*", "dataset_info*", "metadata*"):
    (path,) = (folder.parent / "cache").rglob(name)
    harm(path)
    with pytest.raises(UserError, match=r"damaged \(.*delete that") as error:
      load(folder)
    place = str(error.value).split()[6]
    assert str(path).startswith(place) and "\n" not in str(error.value)
    shutil.rmtree(place)
    assert train(folder).sentences == built.sentences
  (path,) = (folder.parent / "cache").rglob("*-train_pic*")
  raw = bytearray(path.read_bytes())
  raw[len(raw) // 2] ^= 1
  path.write_bytes(raw)
  split = train(folder)  # reads no picture but the last
  with pytest.raises(UserError, match=r"damaged \(.*delete that"):
    [split.image(i) for i, x in enumerate(split.image_status) if x == "ok"]


def copy(*names):
  """A change of a folder: copies its test.txt to each of the names."""

  def change(folder):
    for name in names:
      (folder / name).parent.mkdir(exist_ok=True)
      shutil.copy(folder / "test.txt", folder / name)

  return change


def move(old, new):
  return lambda folder: (folder / old).rename(folder / new)


def write(**texts):
  return lambda folder: write_splits(folder, **texts)


EN_XX = {"languages": ("en", "xx")}
BOTH_EN = ("en/test.txt", "train_valid_test_en/test.txt")
WRONG = r"2 images are missing or broken: gone \(missing\), bad \(broken\)$"
BAD_FOLDERS = [
  (shutil.rmtree, {}, "data.path: .*data is not a folder"),
  (move("valid.txt", "Valid.txt"), {}, "known are .*val/dev.* holds Valid.txt"),
  (move("images", "other"), {}, "images is not a folder; name"),
  (copy("train.jsonl"), {}, "both .*/train.txt and .*/train.jsonl are"),
  (copy("dev.txt"), {}, "both .*/valid.txt and .*/dev.txt are"),
  (copy("en/test.txt"), {}, "both .*/en/test.txt and .*/train.txt"),
  (copy(*BOTH_EN), {}, "both .*{} and .*{} are".format(*BOTH_EN)),
  (copy("../cache"), {}, "data.cache_dir: .*cache"),
  (copy(), EN_XX, "no subfolders en, xx.*lang"),
  (copy(), EN_XX | {"path": "synthetic"}, "synthetic has no .* for 'xx'"),
  (copy(), {"label_map": ("ORG=MISC",)}, "label_map: 'ORG=MISC'.* LOC, PER"),
  (copy(), {"orphans": "error"}, "^data/train.txt:10: I-LOC does not"),
  (copy(), {"strict": True}, WRONG),
  (write(train="IMGID:x/1\na\tO\n"), {}, "no picture .* for example 'x/1'"),
  (write(valid="\n"), {}, r"valid\.txt: no sentence in"),
  (write(test="a\tO\nb\tQ\n"), {}, r"data/test\.txt:2: 'Q' is not a tag"),
]


@pytest.mark.parametrize(("change", "fields", "message"), BAD_FOLDERS)
def test_bad_folders(folder, change, fields, message):
  change(folder)
  with pytest.raises(UserError, match=message):
    load(folder, **fields)
  # Only a whole data set is left behind.
  cache = files(folder.parent / "cache")
  assert not cache or any(path.name == "dataset_info.json" for path in cache)


def test_types_are_those_of_the_files_or_given(folder):
  write_splits(folder, valid="a\tI-ORG\n", test="a\tB-A-B\nb\tI-A-B\n")
  splits = load(folder)
  assert dataset.labels(splits.values()) == ("A-B", "LOC", "ORG", "PER")
  assert dataset.labels([splits["train"]], ("PER", "LOC")) == ("PER", "LOC")
  line = TRAIN.split("\n").index("Rome\tB-LOC") + 1
  message = rf"train.txt:{line}: .* B-LOC is not in data.labels \(PER, MISC\)"
  with pytest.raises(UserError, match=message):
    dataset.labels(splits.values(), ("PER", "MISC"))
  # Renamed on reading.
  pairs = ("LOC=PLACE", "A-B=PLACE", "PER=O")
  splits = load(folder, label_map=pairs)
  assert dataset.labels(splits.values()) == ("ORG", "PLACE")
  assert splits["train"].sentences[0].tags == ("O", "O")
  assert splits["train"].sentences[2].tags == ("O", "I-PLACE", "O")
  assert splits["test"].sentences[0].tags == ("B-PLACE", "I-PLACE")
  # A type of any split is known, also when only another one is asked for.
  load(folder, ("valid",), label_map=pairs)


def test_what_is_wrong_is_counted(folder):
  notes = dataset.notes(train(folder))
  assert notes == "1 orphan I- tags, 1 images missing, 1 images broken"
  write_splits(folder, test="a\tI-LOC\n")
  good = {"orphans": "error", "strict": True}  # of the training split alone
  assert dataset.notes(load(folder, ("test",), **good)["test"])[0] == "1"


def test_one_jsonl_file_of_several_languages(folder):
  mixed = [
    formats.Sentence((f"{language}{i}",), ("O",), language=language)
    for i, language in enumerate(("en", "fr", "de", "en"))
  ]
  for split in SPLITS:
    (folder / f"{split}.txt").unlink()
    formats.write_jsonl(folder / f"{split}.jsonl", mixed)
  split = train(folder, languages=("en", "fr"))
  assert [s.words[0] for s in split.sentences] == ["en0", "fr1", "en3"]
  assert dataset.notes(train(folder))[:32] == "2 sentences in other languages l"
  with pytest.raises(UserError, match="no train sentence in 'es'"):
    train(folder, languages=("en", "es"))
  mixed[1] = formats.Sentence(("a",), ("O",))
  formats.write_jsonl(folder / "train.jsonl", mixed)
  with pytest.raises(UserError, match=r"data/train.jsonl:2: no language"):
    train(folder, languages=("en", "fr"))


def test_data_sets_by_name_come_from_their_manual_folder(folder):
  cache, name = folder.parent / "cache", "twitter2017"
  place = cache / "downloads" / "manual" / name
  with pytest.raises(UserError, match=f"{name} is read from {place}.*images/$"):
    load(folder, path=name)
  shutil.copytree(folder, place)
  assert train(folder, path=name).image_status[0] == "ok"
  assert (cache / name).is_dir()


def test_pictures_are_stored_smaller(folder):
  large = picture("red", "JPEG", (60, 30))
  (folder / "images" / "gone.jpg").write_bytes(large)
  (folder / "images" / os.fsdecode(b"\xe9.jpg")).touch()  # no UTF-8
  split = train(folder, resize=10)
  assert split.image(0) == (folder / "images" / "red.jpg").read_bytes()
  assert images.decode(split.image(1)).size == (20, 10)
  assert split.image_status == ["ok", "ok", "broken", "", "ok"]
  assert train(folder).image(1) == large


CLEAR = "16_05_30_202", "17_06_9.jpg", "05745160---x"


@pytest.mark.parametrize("clear", CLEAR)
def test_only_ids_of_mmnerd_have_a_source(clear):
  """Of other data's, O_12 says nothing."""
  others = "O_rly O_1b O_ 17_06_ 16_05_ab 1---a img_O_1 16_05_".split()
  want = "caption" if "---" in clear else "tweet"
  for ids, sources in [
    (["O_28", *others], [""] * 9),
    (["O_28", clear, *others], ["tweet", want, *[""] * 8]),
  ]:
    sentences = [{"image": image, "source": ""} for image in ids]
    builders.fill_sources(sentences)
    assert [s["source"] for s in sentences] == sources

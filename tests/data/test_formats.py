import os
import pathlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax.config import UserError
from mner_jax.data import formats

real_data = pytest.mark.skipif(
  "MNER_REAL_DATA" not in os.environ, reason="MNER_REAL_DATA is not set"
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  return tmp_path_factory.mktemp("formats") / "train.txt"


def read(file, content):
  if isinstance(content, str):
    content = content.encode()
  file.write_bytes(content)
  return list(formats.read_conll(file, "en"))


def well_formed(tags):
  before = "O"
  for tag in tags:
    if tag.startswith("I-") and before[1:] != tag[1:]:
      return False
    before = tag
  return True


def entities(tags):
  return get_entities(list(tags))


def real(*path):
  return pathlib.Path(os.environ["MNER_REAL_DATA"], *path)


def test_sentences_with_images(file):
  first, second, third = read(
    file,
    "IMGID:16_05_01_360\nNew\tB-LOC\nYork\tI-LOC\n\n"
    "IMGID:03433732---81Kc\n.\tO\n\n\nBob\tB-PER\n\n",
  )
  assert first == formats.Sentence(
    ("New", "York"), ("B-LOC", "I-LOC"), "16_05_01_360", "en", "tweet"
  )
  assert (second.image, second.source) == ("03433732---81Kc", "caption")
  assert (third.words, third.image, third.source) == (("Bob",), "", "")


def test_an_empty_imgid_is_no_image(file):
  assert read(file, "IMGID:\nBob\tB-PER\n")[0].image == ""


@pytest.mark.parametrize(
  "content",
  [
    "IMGID:a\nNew\tB-LOC\nYork\tI-LOC\n\n.\tO\n",
    "IMGID:a\nNew B-LOC\nYork I-LOC\n\n. O\n",
    "IMGID:a\n0\tNew\tB-LOC\n1\tYork\tI-LOC\n\n0\t.\tO\n",
    "IMGID:a\r\nNew\tB-LOC\r\nYork\tI-LOC\r\n\r\n.\tO\r\n",
    "\ufeffIMGID:a\nNew\tB-LOC\nYork\tI-LOC\n\n.\tO\n",
    "IMGID:a\nNew\tB-LOC\nYork\tI-LOC\n\n.\tO",
    "\n\nIMGID:a\nNew\tB-LOC\nYork\tI-LOC\n \n\t\n.\tO\n\n\n",
  ],
  ids=["tab", "space", "indexed", "crlf", "bom", "no last newline", "blanks"],
)
def test_the_same_sentences_in_every_format(file, content):
  first, second = read(file, content)
  assert first.words == ("New", "York")
  assert first.tags == ("B-LOC", "I-LOC")
  assert (second.words, second.tags) == ((".",), ("O",))
  assert (first.image, second.image) == ("a", "")


@pytest.mark.parametrize("separator", ["\t", " "])
@pytest.mark.parametrize(
  "word",
  ["\x85", "\u2028", "\u2029", "\xa0", "\ufe0f", "\u200b", "\x0b", "\x1c"],
  ids=ascii,
)
def test_odd_tokens_stay_tokens(file, word, separator):
  lines = (f"{w}{separator}O\n" for w in ("a", word, "b"))
  (sentence,) = read(file, "".join(lines))
  assert sentence.words == ("a", word, "b")


def test_a_tab_file_may_hold_spaces_in_words(file):
  assert read(file, "New York\tB-LOC\n")[0].words == ("New York",)


words = st.text(
  st.characters(exclude_characters="\t\n", exclude_categories=["Cs"]),
  min_size=1,
).filter(lambda word: not word.startswith("IMGID:"))
tags = st.sampled_from(
  ["O", *(f"{p}-{t}" for p in "BI" for t in ("PER", "LOC", "A-B", "B"))]
)


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(words, tags), min_size=1), min_size=1))
def test_nothing_is_lost(file, sentences):
  blocks = (
    f"IMGID:{i}\n" + "".join(f"{word}\t{tag}\n" for word, tag in sentence)
    for i, sentence in enumerate(sentences)
  )
  found = read(file, "\n".join(blocks))
  assert [s.image for s in found] == [str(i) for i in range(len(sentences))]
  assert [list(zip(s.words, s.tags, strict=True)) for s in found] == sentences


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_where_names_the_line_of_a_word(file, newline):
  lines = ["", "IMGID:a", "w3 O", "w4 O", "", "", "w7 O", "w8 O", "w9 B-X"]
  for sentence in read(file, newline.join(lines)):
    for i, word in enumerate(sentence.words):
      name = f"{file.parent.name}/{file.name}"
      assert sentence.where(i) == f"{name}:{word[1:]}"


@pytest.mark.parametrize(
  ("content", "line", "message"),
  [
    ("a\tO\n\nb\tB-X\tO\n", 3, "expected 2 columns"),
    ("0\ta\tb\tO\n", 1, "expected 2 columns"),
    ("a\tO\nb\n", 2, "expected 2 columns"),
    ("a\tO\nIMGID:1\nb\tO\n", 2, "expected 2 columns"),
    ("a\tO\n\xa0\n", 2, "expected 2 columns"),
    ("a\tO\n\tO\n", 2, "the word is empty"),
    ("a\tO\r\nb\tQ\r\n", 2, "'Q' is not a tag"),
    ("a\tO\nb\tB-\n", 2, "'B-' is not a tag"),
    ("a\tO\n\nb o\n", 3, "'o' is not a tag"),
    ("a\tO\nb\t\n", 2, "'' is not a tag"),
    ("IMGID:1\nIMGID:2\na\tO\n", 1, "IMGID without a sentence"),
    ("a\tO\n\nIMGID:1\n\nIMGID:2\na\tO\n", 3, "IMGID without a sentence"),
    ("a\tO\n\nIMGID:1", 3, "IMGID without a sentence"),
    (b"a\tO\n\nb\xff\tO\n", 3, "not UTF-8"),
    (b"\xef\xbb\xbfa\tO\nb\tO\xc3", 2, "not UTF-8"),
    ("a\tO\n".encode("utf-16"), 1, "not UTF-8"),
    ("EU NNP B-NP B-ORG\n", 1, "expected 2 columns"),
  ],
)  # fmt: skip
def test_bad_lines_are_named(file, content, line, message):
  with pytest.raises(UserError) as error:
    read(file, content)
  assert str(error.value).startswith(f"{file}:{line}: ")
  assert message in str(error.value)
  assert "\n" not in str(error.value)


pieces = st.sampled_from(
  [b"\n", b"\r\n", b"\t", b" ", b"IMGID:", b"O", b"B-X", b"a", b"7", b"\xff"]
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(pieces, st.binary(max_size=4)), max_size=30))
def test_any_bytes_are_read_or_refused_with_the_line(file, parts):
  content = b"".join(parts)
  try:
    sentences = read(file, content)
  except UserError as error:
    line = re.match(rf"{re.escape(str(file))}:(\d+): ", str(error))
    assert 1 <= int(line[1]) <= content.count(b"\n") + 1
  else:
    assert all(len(s.words) == len(s.tags) > 0 for s in sentences)


def test_repair_begins_orphans():
  tags = ("I-PER", "I-PER", "O", "I-LOC", "I-PER", "B-PER", "I-PER")
  repaired = ("B-PER", "I-PER", "O", "B-LOC", "B-PER", "B-PER", "I-PER")
  assert formats.repair(tags) == (repaired, 3)
  assert formats.repair(()) == ((), 0)


@given(st.lists(tags, max_size=12))
def test_repair(raw):
  repaired, count = formats.repair(raw)
  assert well_formed(repaired)
  assert formats.repair(repaired) == (repaired, 0)
  changed = [(a, b) for a, b in zip(raw, repaired, strict=True) if a != b]
  assert all((a[0], b) == ("I", f"B{a[1:]}") for a, b in changed)
  assert count == len(changed)
  assert entities(raw) == entities(repaired)


@real_data
@pytest.mark.parametrize(
  ("path", "sentences", "tokens"),
  [
    ("mmnerd_en/train.txt", 19_968, 328_043),
    ("mmnerd_en/valid.txt", 2_463, 40_584),
    ("mmnerd_en/test.txt", 2_533, 41_889),
    ("twitter2017/train.txt", 3_373, None),
    ("twitter2017/valid.txt", 723, None),
    ("twitter2017/test.txt", 723, None),
  ],
)
def test_real_files_are_read_whole(path, sentences, tokens):
  found = list(formats.read_conll(real(path)))
  assert len(found) == sentences
  assert tokens in (None, sum(len(s.words) for s in found))
  assert all(s.image and well_formed(s.tags) for s in found)


@real_data
@pytest.mark.parametrize(
  ("path", "sentences", "orphans"),
  [
    ("cp_mner_zh/train.txt", 950, 142),
    ("cp_mner_zh/valid.txt", 119, 17),
    ("cp_mner_zh/test.txt", 119, 14),
    ("wikineural/en/val.conllu", 11_590, 439),
    ("wikineural/en/test.conllu", 11_597, 559),
    ("wikineural/fr/val.conllu", 12_600, 61),
    ("wikineural/fr/test.conllu", 12_678, 39),
  ],
)
def test_real_orphans_are_counted(path, sentences, orphans):
  found = list(formats.read_conll(real(path)))
  assert len(found) == sentences
  assert sum(formats.repair(s.tags)[1] for s in found) == orphans


@real_data
def test_real_test_split_of_mmnerd():
  found = list(formats.read_conll(real("mmnerd_en/test.txt")))
  kinds = [kind for s in found for kind, _, _ in entities(s.tags)]
  assert {k: kinds.count(k) for k in set(kinds)} == {
    "PER": 431, "LOC": 517, "ORG": 1_019, "MISC": 3_214,
  }  # fmt: skip
  assert max(len(s.words) for s in found) <= 111
  assert {s.source for s in found} == {"tweet", "caption"}

"""Whatever a file holds, only our own errors come out, with file and line."""

import json
import os
import pathlib
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mner_jax.config import UserError
from mner_jax.data import formats, images, schemes

REAL = os.environ.get("MNER_REAL_DATA", "")
HEAD = 20_000  # bytes of a real file

RECORDS = [
  {"tokens": ["Ann", "\xa0", "中"], "tags": ["B-PER", "O", "I-LOC"]},
  {"tokens": ["x"], "tags": ["O"], "image": "a", "language": "de"},
  {
    "text": "Ann Lee's New York",
    "spans": [
      {"start": 0, "end": 7, "label": "PER"},
      {"start": 10, "end": 18, "label": "LOC"},
    ],
    "source": None,
  },
]
TEXTS = {
  "two.txt": "IMGID:O_1\nNew\tB-LOC\nYork\tI-LOC\n\n\ufe0f\tO\n\u2028\tI-X\n",
  "index.conllu": "0\tHer\tO\n1\tvisit\tO\n\n0\tTuvalu\tB-LOC\n",
  "conll.conll": "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\n. . O O\n",
  "tags.tsv": "新 S-A\n故 B-B\n宫 E-B\n",
  "lines.jsonl": "".join(json.dumps(r) + "\n" for r in RECORDS),
}


def originals():
  """(name, bytes) of small files, and of the beginnings of real ones."""
  found = [(name, text.encode()) for name, text in TEXTS.items()]
  if REAL:
    for name in (
      "mmnerd_en/train.txt", "twitter2017/test.txt", "cp_mner_zh/valid.txt",
      "wikineural/fr/val.conllu", "flickr8k_multi30k/aligned.jsonl",
    ):  # fmt: skip
      path = pathlib.Path(REAL, name)
      with path.open("rb") as file:
        found.append((path.name, file.read(HEAD)))
  return found


ORIGINALS = originals()
PIECES = [
  b"\n", b"\r\n", b"\t", b" ", b"IMGID:", b"-DOCSTART- -X- O", b"O", b"B-X",
  b"S-X", b"a", b"0", b"7", b"\xff", b"\xef\xbb\xbf", b"\xc2\xa0", b"{", b"}",
  b"[", b"]", b'"', b",", b":", b"null", b"-1", b"1e9", b"\\ud800", b"tokens",
  b"spans", b"\0",
]  # fmt: skip
noise = st.lists(
  st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=30
).map(b"".join)


@st.composite
def mutated(draw, originals):
  """A file in which some bytes were replaced, put in, cut out or swapped."""
  name, data = draw(st.sampled_from(originals))
  for _ in range(draw(st.integers(1, 6))):
    start = draw(st.integers(0, len(data)))
    stop = draw(st.integers(start, min(len(data), start + 40)))
    new = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
    data = data[:start] + new + data[stop:]
  return name, data


files = st.one_of(
  mutated(ORIGINALS),
  mutated(ORIGINALS),
  st.tuples(st.sampled_from(list(TEXTS)), noise),
)
bounded = settings(
  deadline=None,
  max_examples=3000,
  suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("fuzz")


@bounded
@given(files, st.sampled_from(list(schemes.SCHEMES)))
def test_readers(folder, file, scheme):
  name, content = file
  path = folder / name
  path.write_bytes(content)
  try:
    sentences = list(formats.read(path, "en", scheme))
  except UserError as error:
    line = re.match(rf"{re.escape(str(path))}:(\d+): ", str(error))
    assert 1 <= int(line[1]) <= content.count(b"\n") + 1
    assert "\n" not in str(error)
  else:
    for s in sentences:
      assert len(s.words) == len(s.tags) > 0
      assert all(s.words)
      "".join((*s.words, s.image, s.language, s.source)).encode()
      for tag in s.tags:
        schemes.check(tag, "iob2", "")
    formats.write_jsonl(path.with_suffix(".jsonl"), sentences)
    assert list(formats.read(path.with_suffix(".jsonl"))) == sentences


def pictures():
  """Real pictures, or drawn ones where there are none."""
  if REAL:
    paths = sorted(pathlib.Path(REAL, "cp_mner_zh/images").iterdir())[:6]
    paths += sorted(pathlib.Path(REAL, "flickr8k_multi30k/images").iterdir())[
      :6
    ]
    return [(path.name, path.read_bytes()) for path in paths]
  return []


@pytest.mark.skipif(not REAL, reason="MNER_REAL_DATA is not set")
@settings(bounded, max_examples=1000)
@given(mutated(pictures() or ORIGINALS), st.sampled_from([None, 24]))
def test_real_pictures(file, shortest):
  try:
    image = images.decode(file[1], shortest)
  except images.BrokenImageError:
    return
  assert image.mode == "RGB"
  assert images.vit_pixels(image, 16, "clip").shape == (16, 16, 3)


def peak(path):
  """Bytes allocated at most while a file is read, and how it ended."""
  tracemalloc.start()
  try:
    for _ in formats.read(path):
      pass
    end = ""
  except UserError as error:
    end = str(error)
  _, most = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  return most, end


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_file_of_one_line_does_not_fill_the_memory(tmp_path, suffix):
  path = tmp_path / f"long{suffix}"
  path.write_bytes(b"a" * 50_000_000)
  most, end = peak(path)
  assert "longer than" in end
  assert most < 20_000_000


def test_a_file_of_one_sentence_does_not_fill_the_memory(tmp_path):
  path = tmp_path / "long.txt"
  path.write_bytes(b"a\tO\n" * 10_000_000)
  most, end = peak(path)
  assert "words" in end
  assert most < 20_000_000


def test_a_long_file_is_read_sentence_by_sentence(tmp_path):
  path = tmp_path / "long.txt"
  path.write_bytes(b"ab\tO\n\n" * 100_000)
  assert peak(path) == (pytest.approx(0, abs=1_000_000), "")


def test_a_large_flat_picture_is_refused_or_read(tmp_path):
  # Few bytes, many pixels: below the limit it is read, above it is not.
  path = tmp_path / "large.png"
  Image.new("1", (9_000, 9_000)).save(path)
  assert images.decode(path.read_bytes()).size == (9_000, 9_000)
  Image.new("1", (10_100, 10_000)).save(path)
  with pytest.raises(images.BrokenImageError):
    images.decode(path.read_bytes())
  assert np.prod((10_100, 10_000)) > images.MAX_PIXELS

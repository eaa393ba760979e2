"""Whatever a file holds, only our own errors come out, with file and line."""

import json
import re
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mner_jax.config import UserError
from mner_jax.data import formats, schemes
from tests.data.test_formats import SAME

SPAN = {"start": 0, "end": 7, "label": "PER"}
RECORDS = [
  {"tokens": ["Ann", "\xa0", "中"], "tags": ["B-PER", "O", "I-LOC"]},
  {"tokens": ["x"], "tags": ["O"], "image": "a", "language": "de"},
  {"text": "Ann Lee's New York", "spans": [SPAN], "source": None},
]
TEXTS = {f"{i}.conllu": text for i, text in enumerate(SAME.values())}
TEXTS |= {
  "bioes.tsv": "新 S-A\n故 B-B\n宫 E-B\n",
  "lines.jsonl": "".join(json.dumps(r) + "\n" for r in RECORDS),
}
ORIGINALS = [(name, text.encode()) for name, text in TEXTS.items()]
WORDS = "IMGID: O B-X S-X a 0 7 -1 1e9 null tokens spans \\ud800 \ufeff \xa0"
PIECES = [word.encode() for word in WORDS.split(" ")]
PIECES += [bytes([character]) for character in b'\n\t {}[]",:\xff\0']
PIECES += [b"\r\n", b"-DOCSTART- -X- O", b"# a", b"#\tO", b"1-2", b"2.1", b"-1"]
checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
columns = st.sampled_from(["-1", "2", "3", "NE"])
all_schemes = st.sampled_from([*schemes.SCHEMES])


@st.composite
def files(draw):
  """A file in which bytes were replaced, put in or cut out, or noise."""
  name, data = draw(st.sampled_from(ORIGINALS))
  short = st.one_of(st.sampled_from(PIECES), st.binary(max_size=4))
  if draw(st.integers(0, 3)) == 0:
    return name, b"".join(draw(st.lists(short, max_size=30)))
  for _ in range(draw(st.integers(1, 6))):
    start = draw(st.integers(0, len(data)))
    stop = draw(st.integers(start, min(len(data), start + 40)))
    data = data[:start] + draw(short) + data[stop:]
  return name, data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("fuzz")


@settings(deadline=None, max_examples=200, suppress_health_check=checks)
@given(files(), all_schemes, columns)
def test_mutated_files_and_noise(folder, file, scheme, column):
  name, content = file
  path = folder / name
  path.write_bytes(content)
  try:
    sentences = list(formats.read(path, "en", scheme, column))
  except UserError as error:
    line = re.match(rf"{re.escape(str(path))}:(\d+)?", str(error))
    assert int(line[1] or 1) <= content.count(b"\n") + 1
    assert "\n" not in str(error)
  else:
    for s in sentences:
      assert len(s.words) == len(s.tags) > 0 and all(s.words)
      "".join((*s.words, s.image, s.language, s.source)).encode()
      for tag in s.tags:
        schemes.check(tag, "iob2", "")
    if path.suffix != ".jsonl":
      again = formats.read_conll(path, scheme=None)
      assert [len(s.words) for s in again] == [len(s.words) for s in sentences]
    formats.write_jsonl(path.with_suffix(".jsonl"), sentences)
    assert list(formats.read(path.with_suffix(".jsonl"))) == sentences


def test_a_long_file_is_read_sentence_by_sentence(tmp_path):
  path = tmp_path / "long.txt"
  path.write_bytes(b"ab\tO\n\n" * 2000)
  tracemalloc.start()
  assert sum(1 for _ in formats.read(path)) == 2000
  _, most = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert most < 300_000

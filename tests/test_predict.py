"""The tagger and its command, with a run of a few updates."""

import io
import json
import os
import sys
import types

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax import cli, predict
from mner_jax.config import UserError
from mner_jax.data import words


@pytest.fixture(scope="module")
def run(trained):
  return trained("images")


@pytest.fixture(scope="module")
def tagger(run):
  return predict.Tagger.load(run[0])


def test_the_tagger_equals_the_evaluation(run, tagger):
  """All sentences at once, in another order, and one by one."""
  evaluated = run[1]
  split = evaluated.examples.split
  sentences = [list(s.words) for s in split.sentences]
  pictures = [
    split.image(i) if status == "ok" else None
    for i, status in enumerate(split.image_status)
  ]
  assert {len(s) > 30 for s in sentences} == {True, False}  # windows, too
  found = tagger(sentences, pictures)
  assert [p["tags"] for p in found] == evaluated.predicted
  assert any(p["entities"] for p in found)
  order = np.random.default_rng(0).permutation(len(sentences)).tolist()
  again = tagger([sentences[i] for i in order], [pictures[i] for i in order])
  alone = [tagger([sentences[i]], [pictures[i]])[0] for i in order[:6]]
  for i, one in zip(order + order[:6], again + alone, strict=True):
    assert one["tags"] == found[i]["tags"]
    for entity, same in zip(one["entities"], found[i]["entities"], strict=True):
      assert entity.pop("score") == pytest.approx(same["score"], abs=1e-5)
      assert entity == {k: v for k, v in same.items() if k != "score"}


def test_pictures_reach_the_tagger(tagger, tmp_path):
  sentence = ["Anna", "Smith", "visits", "Town1"]
  path = tmp_path / "red.png"
  Image.new("RGB", (40, 30), "red").save(path)
  by_path, without = tagger([sentence] * 2, [path, None])
  assert by_path == tagger([sentence], [path.read_bytes()])[0]
  assert by_path != without  # in its scores at least
  with pytest.raises(OSError, match=r"none\.png"):
    tagger([sentence], [tmp_path / "none.png"])
  for data in (b"no picture", b""):
    with pytest.raises(UserError, match="not a picture"):
      tagger([sentence], [data])
  with pytest.raises(UserError, match="1 sentences, but 2 images"):
    tagger([sentence], [None, None])
  with pytest.raises(UserError, match="3 is not a word"):
    tagger([["Anna", 3]])


TEXTS = (
  "Anna Müller's café\r\n is in São Paulo 👩‍👩‍👧, isn't it?",
  "L'été, Zoé vit à Genève (Suisse) – c'est là.",
  "„Jürgen Groß“ besuchte\tKöln-Deutz; 3,5 Mio. Euro!",
  "¿Dónde está María? ¡En Perú!",
  "Cafe\u0301 Zu\u0308rich 🇩🇪🇫🇷 costs 10,000.50 €",
  "\ufeffword\u200b \u00a0\t",
)


def test_spans_index_the_text_as_it_was_given(tagger):
  long = " ".join(TEXTS * 20)
  results = tagger([*TEXTS, long, "", " \r\n"])
  for text, result in zip([*TEXTS, long], results, strict=False):
    spans = words.split(text)
    assert result["text"] == text
    assert result["tokens"] == [text[a:b] for a, b in spans]
    entities = [
      (e["type"], e["word_start"], e["word_end"] - 1)
      for e in result["entities"]
    ]
    assert entities == get_entities(result["tags"])
    for e in result["entities"]:
      assert text[e["start"] : e["end"]] == e["text"]
      assert e["start"] == spans[e["word_start"]][0]
      assert e["end"] == spans[e["word_end"] - 1][1]
      assert 0 < e["score"] <= 1
  assert sum(len(r["entities"]) for r in results) > 2
  assert [r["tokens"] for r in results[-2:]] == [[], []] and tagger([]) == []


@hypothesis.given(st.text(max_size=60))
def test_words_are_in_order_and_leave_only_space(text):
  end = 0
  for start, stop in words.split(text):
    assert end <= start < stop and not text[start:stop].isspace()
    assert not any(c.isalnum() for c in text[end:start])
    end = stop
  assert not any(c.isalnum() for c in text[end:])


@pytest.fixture
def command(run, monkeypatch, capsys):
  """Returns a function of flags -> (exit code, stdout, stderr)."""

  def call(**flags):
    flags = {"workdir": run[0], **flags}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    monkeypatch.setattr(sys, "argv", ["predict", *argv])
    code = 0
    try:
      cli.launch(predict.main, predict.arguments, predict.__doc__)
    except SystemExit as error:
      code = error.code
    return code, *capsys.readouterr()

  return call


def parse(text):
  return [json.loads(line) for line in text.splitlines()]


def test_files_and_pipes_of_both_formats(run, command, tmp_path, monkeypatch):
  workdir, evaluated = run
  data, output = workdir.parent / "data", tmp_path / "out.jsonl"
  output.symlink_to(tmp_path / "target.jsonl")
  sentences = [
    (s, tags)
    for s, tags in zip(
      evaluated.examples.split.sentences, evaluated.predicted, strict=True
    )
    if s.language == "en"
  ]
  source = {"input": data / "en" / "test.txt", "images": data / "images"}
  # One of the pictures is not there.
  said = (0, "", "8 sentences, 1 images missing\n")
  assert command(**source, output=output) == said
  found = parse((tmp_path / "target.jsonl").read_text())
  assert output.is_symlink()
  assert [r["tags"] for r in found] == [tags for _, tags in sentences]
  path = data / "test.jsonl"  # beside images/
  records = [{"tokens": s.words, "image": s.image} for s, _ in sentences]
  path.write_text("\n\n".join(map(json.dumps, records)))
  assert command(input=path, output=output) == said
  assert parse(output.read_text()) == found

  def piped(text, **flags):
    stdin = types.SimpleNamespace(buffer=io.BytesIO(text.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, lines, note = command(input="-", **flags)
    assert code == 0
    return [r["tokens"] for r in parse(lines)], note

  lines = [{"text": "Anna visits Town1."}, {"text": ""}, {"tokens": ["Bob"]}]
  tokens = [["Anna", "visits", "Town1", "."], [], ["Bob"]]
  note = "3 sentences, 1 without a word\n"
  assert piped("\n".join(map(json.dumps, lines))) == (tokens, note)
  # A file of words only.
  note, form = "2 sentences\n", {"input_format": "conll"}
  tokens = [["Anna", "Smith"], ["sings"]]
  assert piped("Anna\nSmith\n\nsings\n", **form) == (tokens, note)
  assert piped("") == ([], "no sentence\n")


GOOD = '{"text": "Anna sings"}\n'
BAD = {
  "neither": ({}, "--text --input"),
  "both": ({"text": "a", "input": "b"}, "--input"),
  "no word": ({"text": " \n"}, "no word"),
  "missing image": ({"text": "a", "image": "no.png"}, "no.png: No such file"),
  "not an image": ({"text": "a", "image": "{file}"}, "not a picture"),
  "image of a file": ({"input": "a.jsonl", "image": "b"}, "--images"),
  "missing input": ({"input": "/no/where.jsonl"}, "No such file"),
  "suffix": ({"input": "a.csv"}, "suffix"),
  "image folder": ({"input": "{file}", "images": "/no"}, "/no: No such file"),
  "later line": ({"input": "{file}"}, ":2: not JSON"),
  "no text": ({"input": "{other}"}, "neither 'text'"),
  "no folder": ({"text": "a", "output": "/no/where"}, "No such file"),
  "a device": ({"text": "a", "output": "{pipe}"}, "is not a file"),
  "the input": ({"input": "{file}", "output": "{file}"}, "is the --input"),
  "its link": ({"input": "{file}", "output": "{link}"}, "is the --input"),
  "its copy": ({"input": "{copy}", "input_format": "jsonl"}, "is the --input"),
}


def contents(folder):
  return {p: p.is_file() and p.read_text() for p in folder.iterdir()}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_no_output(command, tmp_path, case):
  flags, expected = BAD[case]
  output = tmp_path / "out.jsonl"
  names = ("in.jsonl", "other.jsonl", "link.jsonl", "out.jsonl.tmp")
  file, other, link, copy = (tmp_path / name for name in names)
  file.write_text(GOOD + "{")
  other.write_text('{"words": "a"}')
  output.write_text("of an earlier call")
  link.symlink_to(file)
  # Never a device such as /dev/null itself: a failure would replace it.
  os.mkfifo(tmp_path / "pipe")
  if case == "its copy":
    copy.write_text(GOOD)
  paths = {"file": file, "other": other, "link": link, "copy": copy}
  paths["pipe"] = tmp_path / "pipe"
  flags = {k: v.format(**paths) for k, v in flags.items()}
  before = contents(tmp_path)
  code, out, err = command(**{"output": output, **flags})
  assert (code, out) == (2, "")
  assert expected in err and len(err.splitlines()) == 1
  assert contents(tmp_path) == before

"""The tagger and its command, with runs of a few updates."""

import io
import json
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from absl.testing import flagsaver
from hypothesis import strategies as st
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax import predict
from mner_jax.config import UserError
from mner_jax.data import words
from tests.training.test_loop import ROOT, environment

predict.define_flags()


@pytest.fixture(scope="module", params=["images", "text"])
def run(request, trained):
  return trained(request.param)


@pytest.fixture(scope="module")
def workdir(trained):
  return trained("text")[0]


def picture(split, i):
  return split.image(i) if split.image_status[i] == "ok" else None


def test_the_tagger_equals_the_evaluation(run):
  """All sentences at once, in another order, and one by one."""
  workdir, evaluated = run
  split = evaluated.examples.split
  sentences = [list(s.words) for s in split.sentences]
  pictures = [picture(split, i) for i in range(len(sentences))]
  assert {len(s) > 30 for s in sentences} == {True, False}  # windows, too
  tagger = predict.Tagger.load(workdir)
  found = tagger(sentences, pictures)
  assert [p["tags"] for p in found] == evaluated.predicted
  assert any(p["entities"] for p in found)
  order = np.random.default_rng(0).permutation(len(sentences))
  again = tagger([sentences[i] for i in order], [pictures[i] for i in order])
  alone = [tagger([sentences[i]], [pictures[i]])[0] for i in order[:6]]
  for i, one in [*zip(order, again, strict=True), *zip(order, alone)]:  # noqa: B905
    assert one["tags"] == found[i]["tags"]
    for entity, same in zip(one["entities"], found[i]["entities"], strict=True):
      assert entity.pop("score") == pytest.approx(same["score"], abs=1e-5)
      assert entity == {k: v for k, v in same.items() if k != "score"}


def test_pictures_reach_the_tagger(run, tmp_path):
  workdir, evaluated = run
  tagger = predict.Tagger.load(workdir)
  sentence = ["Anna", "Smith", "visits", "Town1"]
  path = tmp_path / "red.png"
  Image.new("RGB", (40, 30), "red").save(path)
  if evaluated.examples.config.model.multimodal:
    by_path, without = tagger([sentence] * 2, [path, None])
    by_bytes = tagger([sentence], [path.read_bytes()])[0]
    assert by_path == by_bytes
    assert by_path != without  # in its scores at least
  for bad in (tmp_path / "none.png", b"no picture"):
    with pytest.raises(UserError, match=r"none.png|not a picture"):
      tagger([sentence], [bad])
  with pytest.raises(UserError, match="1 sentences, but 2 images"):
    tagger([sentence], [None, None])


TEXTS = (
  "Anna Müller's café\r\n is in São Paulo 👩‍👩‍👧, isn't it?",
  "L'été, Zoé vit à Genève (Suisse) – c'est là.",
  "„Jürgen Groß“ besuchte\tKöln-Deutz; 3,5 Mio. Euro!",
  "¿Dónde está María? ¡En Perú!",
  "Cafe\u0301 Zu\u0308rich 🇩🇪🇫🇷 costs 10,000.50 €",
  "\ufeffword\u200b \u00a0\t",
)


def check(result, text):
  assert result["text"] == text
  assert len(result["tokens"]) == len(result["tags"])
  spans = words.split(text)
  assert [text[a:b] for a, b in spans] == result["tokens"]
  assert [
    (e["type"], e["word_start"], e["word_end"] - 1) for e in result["entities"]
  ] == get_entities(result["tags"])
  for e in result["entities"]:
    assert text[e["start"] : e["end"]] == e["text"]
    assert e["start"] == spans[e["word_start"]][0]
    assert e["end"] == spans[e["word_end"] - 1][1]
    assert 0 < e["score"] <= 1


def test_spans_index_the_text_as_it_was_given(workdir):
  tagger = predict.Tagger.load(workdir)
  results = tagger(TEXTS)
  for text, result in zip(TEXTS, results, strict=True):
    check(result, text)
  assert sum(len(r["entities"]) for r in results) > 3
  long = " ".join(TEXTS * 20)
  check(tagger([long])[0], long)
  assert tagger(["", " \r\n", "x"])[0]["tokens"] == []
  assert tagger([]) == []


@hypothesis.given(st.text(max_size=60))
def test_words_are_in_order_and_leave_only_space(text):
  end = 0
  for start, stop in words.split(text):
    assert end <= start < stop and not text[start:stop].isspace()
    assert not any(c.isalnum() for c in text[end:start])
    end = stop
  assert not any(c.isalnum() for c in text[end:])


def test_display_formats(workdir):
  """What displaCy (manual) and seqeval want of a prediction."""
  result = predict.Tagger.load(workdir)(["Anna Smith visits Town1 today"])[0]
  shown = {
    "text": result["text"],
    "ents": [{**e, "label": e["type"]} for e in result["entities"]],
  }
  for entity in shown["ents"]:
    assert shown["text"][entity["start"] : entity["end"]] == entity["text"]
  assert json.loads(json.dumps(result)) == result


def command(workdir, tmp_path, **flags):
  """The predictions that the command writes to a file."""
  output = tmp_path / "out.jsonl"
  with flagsaver.flagsaver(workdir=str(workdir), output=str(output), **flags):
    predict.main()
  return [json.loads(line) for line in output.read_text().splitlines()]


def test_files_of_both_formats_say_the_same(run, tmp_path, capsys):
  workdir, evaluated = run
  data = workdir.parent / "data"
  sentences = evaluated.examples.split.sentences
  english = [i for i, s in enumerate(sentences) if s.language == "en"]
  want = [evaluated.predicted[i] for i in english]
  images = {"images": str(data / "images")}
  conll = command(
    workdir, tmp_path, input=str(data / "en" / "test.txt"), **images
  )
  assert [r["tags"] for r in conll] == want
  # One of the pictures is not there.
  assert capsys.readouterr().err == "8 sentences, 1 images missing\n"
  lines = [
    json.dumps({"tokens": sentences[i].words, "image": sentences[i].image})
    for i in english
  ]
  path = data / "test.jsonl"  # beside images/
  path.write_text("\n\n".join(lines))
  assert command(workdir, tmp_path, input=str(path)) == conll
  (tmp_path / "words.txt").write_text("Anna\nSmith\n\nsings\n")
  only_words = command(workdir, tmp_path, input=str(tmp_path / "words.txt"))
  assert [r["tokens"] for r in only_words] == [["Anna", "Smith"], ["sings"]]


BAD = {
  "neither": ({}, "", "--text and --input"),
  "both": ({"text": "a", "input": "b"}, "", "--text and --input"),
  "no word": ({"text": " \n"}, "", "no word"),
  "missing image": ({"text": "a", "image": "no.png"}, "", "no.png: cannot"),
  "not an image": ({"text": "a", "image": "{file}"}, "Anna", "not a picture"),
  "image of a file": ({"input": "a.jsonl", "image": "b"}, "", "--images"),
  "missing input": ({"input": "/no/where.jsonl"}, "", "cannot be read"),
  "a folder": ({"input": "{folder}.txt"}, "", "cannot be read"),
  "suffix": ({"input": "a.csv"}, "", "suffix"),
  "image folder": ({"input": "{file}", "images": "/no"}, "{}", "not a folder"),
  "binary": ({"input": "{file}"}, b"\xff\xfe\x00\x01", ":1: not UTF-8"),
  "long line": ({"input": "{file}"}, b'{"text": "' + b"a " * 5_000_000, ":1: "
                "longer than 1,000,000"),
  "no JSON": ({"input": "{file}"}, '{"text": "a"}\n{"te', ":2: not JSON"),
  "no object": ({"input": "{file}"}, "[1]", ":1: not a JSON object"),
  "no text": ({"input": "{file}"}, '{"words": "a"}', "neither 'text'"),
  "wrong type": ({"input": "{file}"}, '{"text": 3}', "'text' must be a string"),
  "empty token": ({"input": "{file}"}, '{"tokens": [""]}', "not empty"),
  "no output": ({"text": "a", "output": "/no/where"}, "", "cannot be written"),
  "output device": ({"text": "a", "output": "/dev/null"}, "", "is no file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_an_error_and_no_output(workdir, tmp_path, case):
  fields, content, expected = BAD[case]
  file = tmp_path / "in.jsonl"
  file.write_bytes(content if isinstance(content, bytes) else content.encode())
  (tmp_path / "folder.txt").mkdir()
  places = {"file": file, "folder": tmp_path / "folder"}
  fields = {k: v.format(**places) for k, v in fields.items()}
  output = tmp_path / "out.jsonl"
  output.write_text("of an earlier call")
  fields = {"workdir": str(workdir), "output": str(output), **fields}
  with flagsaver.flagsaver(**fields), pytest.raises(UserError) as error:
    predict.main()
  assert expected in str(error.value) and "\n" not in str(error.value)
  assert output.read_text() == "of an earlier call"
  assert not (tmp_path / "out.jsonl.tmp").exists()


def test_bad_input_ends_with_one_line_and_exit_code_2(workdir):
  result = subprocess.run(
    [sys.executable, "-m", "mner_jax.predict", f"--workdir={workdir}",
     "--text=Anna", "--image=none.png"],
    capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=300,
  )  # fmt: skip
  assert (result.returncode, result.stdout) == (2, "")
  assert len(result.stderr.splitlines()) == 1 and "none.png" in result.stderr


def test_pipes(workdir):
  lines = [{"text": "Anna visits Town1."}, {"text": ""}, {"tokens": ["Bob"]}]
  result = subprocess.run(
    [sys.executable, "-m", "mner_jax.predict", f"--workdir={workdir}",
     "--input=-"],
    input="\n".join(map(json.dumps, lines)), capture_output=True, text=True,
    env=environment(), cwd=ROOT, timeout=300,
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  found = [json.loads(line) for line in io.StringIO(result.stdout)]
  assert [r["tokens"] for r in found] == [
    ["Anna", "visits", "Town1", "."], [], ["Bob"]
  ]  # fmt: skip
  assert result.stderr == "3 sentences, 1 without a word\n"


def test_the_input_is_not_written_over(workdir, tmp_path):
  path = tmp_path / "in.jsonl"
  path.write_text('{"text": "Anna sings"}\n')
  link = tmp_path / "link.jsonl"
  link.symlink_to(path)
  fields = {"workdir": str(workdir), "input": str(path), "output": str(link)}
  with flagsaver.flagsaver(**fields):
    with pytest.raises(UserError, match="is the --input"):
      predict.main()
  assert path.read_text() == '{"text": "Anna sings"}\n'

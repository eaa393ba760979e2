"""The tagger and its command, with a run of a few updates."""

import io
import json
import sys
import types

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax import predict
from mner_jax.config import UserError
from mner_jax.data import words
from mner_jax.evaluation import report
from tests.conftest import read_jsonl
from tests.training.test_loop import command


@pytest.fixture(scope="module")
def tagger(trained):
  return predict.Tagger.load(trained[0])


def test_the_tagger_equals_the_evaluation(trained, tagger):
  """All sentences at once, in another order, and one by one."""
  evaluated = trained[1]
  split = evaluated.examples.split
  sentences = [list(s.words) for s in split.sentences]
  whole = [status == "ok" for status in split.image_status]
  pictures = [split.image(i) if x else None for i, x in enumerate(whole)]
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
      assert entity == same | {"score": pytest.approx(same["score"], abs=1e-5)}


def test_pictures_reach_the_tagger(tagger, tmp_path):
  sentence = ["Anna", "Smith", "visits", "Town1"]
  path = tmp_path / "red.png"
  Image.new("RGB", (40, 30), "red").save(path)
  by_path, without = tagger([sentence] * 2, [path, None])
  assert by_path == tagger([sentence], [path.read_bytes()])[0]
  assert by_path != without  # in its scores at least
  with pytest.raises(UserError, match="not a picture"):
    tagger([sentence], [b""])
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
    wanted = get_entities(result["tags"])
    for e, want in zip(result["entities"], wanted, strict=True):
      assert (e["type"], e["word_start"], e["word_end"] - 1) == want
      assert text[e["start"] : e["end"]] == e["text"]
      assert e["start"] == spans[e["word_start"]][0]
      assert e["end"] == spans[e["word_end"] - 1][1]
      assert 0 < e["score"] <= 1
  assert any(r["entities"] for r in results)
  assert [r["tokens"] for r in results[-2:]] == [[], []] and tagger([]) == []
  with pytest.raises(UserError, match="must be a list"):  # not its letters
    tagger("Anna sings.")
  with pytest.raises(UserError, match="not UTF-8"):
    tagger(["\udce9"])


@hypothesis.given(st.text(max_size=60))
def test_words_are_in_order_and_leave_only_space(text):
  end = 0
  for start, stop in words.split(text):
    assert end <= start < stop and not text[start:stop].isspace()
    assert not any(c.isalnum() for c in text[end:start])
    end = stop
  assert not any(c.isalnum() for c in text[end:])


def test_files_and_pipes_of_both_formats(trained, tmp_path, monkeypatch):
  workdir, evaluated = trained

  def call(**flags):
    given = (f"--{name}={value}" for name, value in flags.items())
    return command("mner_jax/predict.py", f"--workdir={workdir}", *given)

  data, output = workdir.parent / "data", tmp_path / "out.jsonl"
  output.symlink_to(tmp_path / "target.jsonl")
  sentences = evaluated.examples.split.sentences
  tagged = zip(sentences, evaluated.predicted, strict=True)
  sentences = [(s, tags) for s, tags in tagged if s.language == "en"]
  source = {"input": data / "en" / "test.txt", "images": data / "images"}
  # One of the pictures is not there.
  said = (0, "", "8 sentences, 1 images missing\n")
  assert call(**source, output=output) == said
  found = read_jsonl(tmp_path / "target.jsonl")
  assert output.is_symlink()
  assert [r["tags"] for r in found] == [tags for _, tags in sentences]
  path = tmp_path / "test.jsonl"  # beside images/
  (tmp_path / "images").symlink_to(data / "images")
  records = [{"tokens": s.words, "image": s.image} for s, _ in sentences]
  path.write_text("\n\n".join(map(json.dumps, records)))
  assert call(input=path, output=output) == said
  assert read_jsonl(output) == found

  def piped(text, **flags):
    stdin = types.SimpleNamespace(buffer=io.BytesIO(text.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, note = call(input="-", **flags)
    assert code == 0
    return [json.loads(line)["tokens"] for line in out.splitlines()], note

  lines = [{"text": "Anna visits Town1."}, {"text": ""}, {"tokens": ["Bob"]}]
  tokens = [["Anna", "visits", "Town1", "."], [], ["Bob"]]
  note = "3 sentences, 1 without a word\n"
  assert piped("\n".join(map(json.dumps, lines))) == (tokens, note)
  # A file of words only.
  words_only = piped("Anna\nSmith\n\nsings\n", input_format="conll")
  assert words_only == ([["Anna", "Smith"], ["sings"]], "2 sentences\n")
  assert piped("") == ([], "no sentence\n")


def test_a_page_shows_what_the_file_holds(trained, tmp_path, monkeypatch):
  workdir, evaluated = trained
  page, output = tmp_path / "page.html", tmp_path / "out.jsonl"
  split = evaluated.examples.split
  lines = [{"text": " "}, {"text": "Anna's, in\tTown1.", "image": "gone"}]
  lines += [{"tokens": s.words, "image": s.image} for s in split.sentences]
  path = tmp_path / "in.jsonl"
  path.write_text("\n".join(map(json.dumps, lines)))
  flags = f"--workdir={workdir}", f"--html={page}"
  images = f"--images={workdir.parent / 'data' / 'images'}"
  flags_of_files = f"--input={path}", f"--output={output}", images

  def call(*more):
    command("mner_jax/predict.py", *flags, *more, check=True)
    return json.loads(page.read_text().split('id="data">')[1].split("<")[0])

  data = call(*flags_of_files)
  found = read_jsonl(output)
  assert not {"scores", "confusion", "run", "curves"} & set(data)
  assert "17 of 17 sentences" in data["note"]
  assert data["types"] == ["LOC", "PER"]
  results = [r for r in found if r["tokens"]]
  for s, result in zip(data["sentences"], results, strict=True):
    assert (s["words"], s["tags"]) == (result["tokens"], result["tags"])
    wanted = [
      [e["word_start"], e["word_end"], e["type"], "", f"{e['score']:.2f}"]
      for e in result["entities"]
    ]
    assert s["entities"] == wanted
    assert ("picture" in s) == ("attention" in s) == (s["image"] == "ok")
  first, *rest = data["sentences"]
  assert (first["number"], first["image"]) == (2, "missing")
  space = {w for w, s in zip(first["words"], first["spaces"], strict=True) if s}
  assert space == {"in", "Town1"} and any(s["entities"] for s in rest)
  assert {s["image"] for s in rest} == {"ok", "missing", ""}
  # Weights are those that the report of the same sentences shows.
  whole = report.collect(evaluated, workdir, "test")["sentences"]
  for one, other in zip(rest, whole, strict=True):
    assert one.get("attention") == other.get("attention")
  monkeypatch.setattr(report, "MAX_SENTENCES", 3)
  cut = call(*flags_of_files)
  assert cut["sentences"] == data["sentences"][:3]
  assert "3 of 17 sentences with a word: the first that fit (3" in cut["note"]
  assert read_jsonl(output) == found
  picture = workdir.parent / "data" / "images" / "pic1.png"
  (one,) = call("--text=Anna Smith sings.", f"--image={picture}")["sentences"]
  assert one["words"][-1] == "." and not one["spaces"][-1]
  assert one["image"] == "ok" and "attention" in one
  path.write_text("")
  assert call(*flags_of_files)["sentences"] == []

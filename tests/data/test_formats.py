import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax.config import UserError
from mner_jax.data import formats


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  return tmp_path_factory.mktemp("formats") / "train.txt"


def read(file, content):
  if isinstance(content, str):
    content = content.encode()
  file.write_bytes(content)
  return list(formats.read(file, "en"))


def test_sentences_with_images(file):
  first, second, third = read(
    file,
    "IMGID:16_05_01_360\nNew\tB-LOC\nYork\tI-LOC\n\n"
    "IMGID:03433732---81Kc\n.\tO\n\n\nIMGID:\nBob\tB-PER\n\n",
  )
  assert first == formats.Sentence(
    ("New", "York"), ("B-LOC", "I-LOC"), "16_05_01_360", "en", "tweet"
  )
  assert (second.image, second.source) == ("03433732---81Kc", "caption")
  assert (third.words, third.image, third.source) == (("Bob",), "", "")


SAME = {
  "tab": "IMGID:a\nNew\tB-LOC\nYork\tI-LOC\n\n.\tO\n",
  "space": "IMGID:a\nNew B-LOC\nYork I-LOC\n\n. O\n",
  "indexed": "IMGID:a\n0\tNew\tB-LOC\n1\tYork\tI-LOC\n\n0\t.\tO\n",
  "from 1": "IMGID:a\n1 New B-LOC\n2 York I-LOC\n\n1 . O\n",
  "conll 2003": "-DOCSTART- -X- -X- O\n\nIMGID:a\nNew NNP B-NP B-LOC\n"
  "York NNP I-NP I-LOC\n-DOCSTART- -X- O O\n. . O O\n",
  "three columns": "IMGID:a\nNew\tN\tB-LOC\nYork\tN\tI-LOC\n\n.\t.\tO\n",
  "crlf": "IMGID:a\r\nNew\tB-LOC\r\nYork\tI-LOC\r\n\r\n.\tO\r\n",
  "bom": "\ufeffIMGID:a\nNew\tB-LOC\nYork\tI-LOC\n\n.\tO\n",
  "no last newline": "IMGID:a\nNew\tB-LOC\nYork\tI-LOC\n\n.\tO",
  "blanks": "\n\nIMGID:a\nNew\tB-LOC\nYork\tI-LOC\n \n\t\n.\tO\n\n\n",
}


@pytest.mark.parametrize("content", SAME.values(), ids=SAME)
def test_the_same_sentences_in_every_format(file, content):
  first, second = read(file, content)
  assert first.words == ("New", "York")
  assert first.tags == ("B-LOC", "I-LOC")
  assert (second.words, second.tags) == ((".",), ("O",))
  assert (first.image, second.image) == ("a", "")


@pytest.mark.parametrize("separator", ["\t", " "])
def test_odd_tokens_stay_tokens(file, separator):
  odd = "\x85 \u2028 \u2029 \xa0 \ufe0f \u200b \x0b \x1c".split(" ")
  words = ("a", *odd, "b")
  (sentence,) = read(file, "".join(f"{w}{separator}O\n" for w in words))
  assert sentence.words == words


@pytest.mark.parametrize(
  "word", ["-DOCSTART-", "IMGID:1", "0", "\r", "\xa0", "New York"]
)
def test_what_looks_like_a_mark_may_be_a_word(file, word):
  (sentence,) = read(file, f"{word}\tO\n{word}\tB-X\n")
  assert sentence.words == (word, word)


def test_without_a_scheme_words_are_enough(file):
  file.write_text("IMGID:a\nNew\nYork\n\n.\n")
  found = list(formats.read_conll(file, scheme=None))
  assert [s.words for s in found] == [("New", "York"), (".",)]
  assert (found[0].image, found[0].tags) == ("a", ("O", "O"))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_where_names_the_line_of_a_word(file, newline):
  lines = ["", "IMGID:a", "w3 O", "w4 O", "", "", "w7 O", "w8 O", "w9 B-X"]
  for sentence in read(file, newline.join(lines)):
    for i, word in enumerate(sentence.words):
      name = f"{file.parent.name}/{file.name}"
      assert sentence.where(i) == f"{name}:{word[1:]}"


BAD_LINES = [
  ("a\tO\n\nb\tB-X\tO\n", 3, "expected 2 columns"),
  ("a\tO\n\xa0\n", 2, "expected 2 columns"),
  ("EU NNP B-NP B-ORG\na NN I-NP O X\n", 2, "expected 4 columns"),
  ("a\tO\nb O\n", 2, "expected 2 columns"),
  ("a O\nb\tO\n", 2, "expected 2 columns"),
  ("a\nb\n", 1, "'a' is not a tag"),
  ("a\tO\n\tO\n", 2, "the word is empty"),
  ("a\tO\r\nb\tQ\r\n", 2, "'Q' is not a tag"),
  ("a\tO\nb\tS-PER\n", 2, "data.scheme"),
  ("-DOCSTART- -X- O\n\na NN X\n", 3, "'X' is not a tag"),
  ("IMGID:1\nIMGID:2\na\tO\n", 1, "IMGID without a sentence"),
  ("a\tO\n\nIMGID:1", 3, "IMGID without a sentence"),
  (b"a\tO\n\nb\xff\tO\n", 3, "not UTF-8"),
  ("a\tO\n".encode("utf-16"), 1, "not UTF-8"),
  ("0\ta\tO\n2\tb\tO\n", 2, "expected the index 1"),
  ("1\ta\tO\n\n0\tb\tO\n", 3, "expected the index 1"),
]


@pytest.mark.parametrize(("content", "line", "message"), BAD_LINES)
def test_bad_lines_are_named(file, content, line, message):
  with pytest.raises(UserError) as error:
    read(file, content)
  assert str(error.value).startswith(f"{file}:{line}: ")
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def read_line(file, **record):
  """The sentence of a JSONL file of one line."""
  path = file.with_suffix(".jsonl")
  path.write_text("\n" + json.dumps(record) + "\n")
  (sentence,) = formats.read(path, "en")
  return sentence


def test_jsonl_of_tokens(file):
  tokens, tags = ["New York", "\xa0", "x"], ["B-LOC", "O", "I-PER"]
  sentence = read_line(file, tokens=tokens, tags=tags, more=[1])
  assert sentence == formats.Sentence(tuple(tokens), tuple(tags), language="en")
  assert sentence.where(2) == f"{file.parent.name}/train.jsonl:2"
  sentence = read_line(
    file, tokens=["x"], tags=["O"], image="O_1", language="fr", source=None
  )
  assert (sentence.image, sentence.language) == ("O_1", "fr")
  assert sentence.source == "tweet"
  assert read_line(file, tokens=["x"], tags=["O"], source="s").source == "s"


@st.composite
def texts(draw):
  """A text and spans of it that hold words and do not overlap."""
  text = draw(st.text("ab \xa0\n-é", max_size=20))
  edges = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
  spans = [
    {"start": start, "end": end, "label": draw(st.sampled_from(["X", "Y"]))}
    for start, end in zip(edges, edges[1:], strict=False)
    if text[start:end].strip() and draw(st.booleans())
  ]
  return text, spans


@settings(deadline=None)
@given(texts())
def test_words_of_a_text_make_up_its_spans(file, drawn):
  text, spans = drawn
  if not text.strip():
    return
  sentence = read_line(file, text=text, spans=spans)
  edges = [0, *(s[name] for s in spans for name in ("start", "end")), None]
  parts = (text[slice(*pair)] for pair in itertools.pairwise(edges))
  assert [*sentence.words] == [word for part in parts for word in part.split()]
  found = [
    (kind, "".join(sentence.words[start : end + 1]))
    for kind, start, end in get_entities(list(sentence.tags))
  ]
  assert found == [
    (s["label"], "".join(text[s["start"] : s["end"]].split())) for s in spans
  ]


NO_TEXT = "'text' must be a string"
NO_SPAN = "has no word in it, overlaps another, or is not within the text of 4"
BAD_JSON = [
  ("{", "not JSON"),
  ("[" * 50_000, "not JSON"),
  ("1" * 5_000, "not JSON"),
  (r'{"tokens": ["\ud800"], "tags": ["O"]}', "not JSON"),
  ("[1]", "not JSON of an object"),
  ("{}", f"{NO_TEXT}, not None; expected tokens+tags or text+spans"),
  ('{"tokens": ["a"]}', "'tags' must be a list"),
  ('{"tokens": ["a"], "tags": []}', "1 tokens and 0 tags"),
  ('{"tokens": [], "tags": []}', "0 tokens and 0 tags"),
  ('{"tokens": ["a", 1], "tags": ["O", "O"]}', "must be strings"),
  ('{"tokens": ["a", ""], "tags": ["O", "O"]}', "not empty"),
  ('{"tokens": ["a"], "tags": [null]}', "must be strings"),
  ('{"tokens": ["a"], "tags": ["PER"]}', "'PER' is not a tag"),
  ('{"tokens": ["a"], "tags": ["O"], "image": 3}', "'image' must be a string"),
  ('{"text": " ", "spans": []}', "0 tokens and 0 tags"),
  ('{"text": "a", "spans": [3]}', "'start' must be a whole number"),
  ('{"text": "a", "spans": [{"start": 0, "label": "X"}]}', "'end' must be"),
]
BAD_SPANS = [
  ('{"start": true, "end": 1, "label": "X"}', "'start' must be a whole"),
  ('{"start": 0, "end": 0, "label": "X"}', f"span from 0 to 0 {NO_SPAN}"),
  ('{"start": 1, "end": 5, "label": "X"}', NO_SPAN),
  ('{"start": 2, "end": 3, "label": "X"}', NO_SPAN),
  ('{"start": 0, "end": 1, "label": "a b"}', "'B-a b' is not a tag"),
  (
    '{"start": 1, "end": 4, "label": "X"},{"start": 0, "end": 2, "label": "Y"}',
    f"span from 1 to 4 {NO_SPAN}",
  ),
]
BAD_JSON += [
  (f'{{"text": "ab c", "spans": [{spans}]}}', said) for spans, said in BAD_SPANS
]


@pytest.mark.parametrize(
  ("line", "message"), BAD_JSON, ids=lambda value: value[:40]
)
def test_bad_json_is_named(file, line, message):
  path = file.with_suffix(".jsonl")
  path.write_text('{"tokens": ["a"], "tags": ["O"]}\n' + line)
  with pytest.raises(UserError) as error:
    list(formats.read(path))
  assert str(error.value).startswith(f"{path}:2: ")
  assert message in str(error.value)
  assert "\n" not in str(error.value)
  assert len(str(error.value)) < len(str(path)) + 200


def test_the_suffix_names_the_format(file):
  with pytest.raises(UserError, match=r"train\.csv: the suffix is none of"):
    formats.read(file.with_suffix(".csv"))


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
tags = st.sampled_from(
  ["O", *(f"{p}-{t}" for p in "BI" for t in ("PER", "LOC", "A-B", "B"))]
)


@st.composite
def any_sentences(draw):
  pairs = draw(st.lists(st.tuples(words, tags), min_size=1))
  more = [draw(words) for _ in range(3)]
  return formats.Sentence(*zip(*pairs, strict=True), *more)


@settings(deadline=None, max_examples=50)
@given(st.lists(any_sentences()))
def test_written_jsonl_is_read_as_it_was(file, sentences):
  path = file.with_suffix(".jsonl")
  formats.write_jsonl(path, sentences)
  assert list(formats.read(path)) == sentences

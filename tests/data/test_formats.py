import itertools
import json
import re

import pytest

from mner_jax.config import UserError
from mner_jax.data import formats


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  return tmp_path_factory.mktemp("formats") / "train.txt"


def read(file, content, tag_column="-1", notes=None):
  file.write_bytes(content if isinstance(content, bytes) else content.encode())
  return list(formats.read(file, "en", "iob2", tag_column, notes))


HIPE = "TOKEN\tNE-COARSE-LIT\tNE-FINE-LIT\tNEL-LIT\tMISC\n# id = x\n"
# Content and tag_column; all hold the same sentences.
SAME = {
  "tab": "IMGID:a\nNew\tB-LOC\nYork\tI-LOC\n\n\nIMGID:\n#\tO\n\n",
  "space": "IMGID:a\nNew B-LOC\nYork I-LOC\n\n# O\n",
  "from 1": "IMGID:a\n1 New B-LOC\n2 York I-LOC\n\n1 # O\n",
  "wikineural": "0\t-DOCSTART-\tO\n\nIMGID:a\n0\tNew\tB-LOC\n1\tYork\tI-LOC\n"
  "\n0\t-DOCSTART-\tO\n\n0\t#\tO\n",
  "docstart": "-DOCSTART-\tO\n\nIMGID:a\nNew\tB-LOC\nYork\tI-LOC\n\n#\tO\n",
  "conll 2003": "-DOCSTART- -X- -X- O\n\nIMGID:a\nNew NNP B-NP B-LOC\n"
  "York NNP I-NP I-LOC\n-DOCSTART- -X- O O\n# . O O\n",
  "crlf": "IMGID:a\r\nNew\tN\tB-LOC\r\nYork\tN\tI-LOC\r\n\r\n#\t.\tO\r\n",
  "bom, blanks": "\ufeff\n\nIMGID:a\nNew\tB-LOC\nYork\tI-LOC\n \n\t\n#\tO",
  "multiconer": "IMGID:a\n# id 1 domain=en\nNew _ _ B-LOC\nYork _ _ I-LOC\n\n"
  "# id 2\tdomain=en\n# _ _ O\n",
  "germeval": "IMGID:a\n#\thttp://a.b\t[2009]\n1\tNew\tB-LOC\tB-LOC\n"
  "2\tYork\tI-LOC\tO\n\n#\tc.d\t[2009]\n1\t#\tO\tO\n",
  "hipe": HIPE
  + "\nIMGID:a\n# id = y\nNew\tB-LOC\tB-LOC.town\tQ60\t_\n# line 2\n"
  "York\tI-LOC\tI-LOC.town\tQ60\tEndOfLine\n\n#\tO\tO\t_\t_\n",
  "conllu": "# global = x\nIMGID:a\n# text = New York\n0.1\tx\tX\t_\tO\n"
  "1-2\tNewYork\t_\t_\t_\n1\tNew\tA\t_\tB-LOC\n2\tYork\tN\t_\tI-LOC\n\n"
  "#\n# id = 2\n1\t#\tS\t_\tO\n",
}
TAG_COLUMNS = {"germeval": "3", "hipe": "NE-COARSE-LIT"}


@pytest.mark.parametrize("form", SAME)
def test_the_same_sentences_in_every_format(file, form):
  first, second = read(file, SAME[form], TAG_COLUMNS.get(form, "-1"))
  assert (first.words, second.words) == (("New", "York"), ("#",))
  assert (first.tags, second.tags) == (("B-LOC", "I-LOC"), ("O",))
  assert (first.image, second.image) == ("a", "")
  lines = file.read_text().split("\n")
  for sentence, word in ((first, 0), (first, 1), (second, 0)):
    line = lines[int(sentence.where(word).rpartition(":")[2]) - 1]
    assert sentence.words[word] in line.split()
  # As --input of predict, and without the tags where that leaves words.
  again = formats.read_conll(file, scheme=None)
  assert [s.words for s in again] == [first.words, second.words]


TWO = "1\ta\tB-PER\tO\n2\tb\tI-PER\tB-PER\n\n1\tc\tO\tB-LOC\n"
NOTES = [  # content, tag column, note
  (SAME["tab"], "2", ""),
  (SAME["wikineural"], "-1", "2 -DOCSTART- lines skipped"),
  (SAME["conllu"], "-1", "2 multiword tokens and empty nodes skipped"),
  (SAME["conll 2003"], "4", "column 4 (1 entities), not column 3 (1 entities)"),
  (TWO, "3", "from column 3 (1 entities), not column 4 (2 entities)"),
  (TWO, "4", "from column 4 (2 entities), not column 3 (1 entities)"),
  ("word\ttag\na\tO\n\nword\ttag\nb\tO\n", "-1", "1 more header lines skipped"),
  (SAME["hipe"], "2", "2 NE-COARSE-LIT (1 entities), not column 3 NE-FINE-LIT"),
]


@pytest.mark.parametrize(("content", "column", "note"), NOTES)
def test_what_was_skipped_or_chosen_is_told(file, content, column, note):
  notes = []
  read(file, content, column, notes)
  assert note in " ".join(notes) and bool(note) == bool(notes)


WORDS = "\x85 \u2028 \u2029 \xa0 \ufe0f \u200b \x0b \x1c \r # IMGID:1 0 token"


@pytest.mark.parametrize("word", ["New York", *WORDS.split(" ")])
def test_odd_words_stay_words(file, word):
  (sentence,) = read(file, f"{word}\tO\n{word}\tB-X\n")
  assert sentence.words == (word, word)


@pytest.mark.parametrize("form", ["{0}", "{1}\t{0}", "{0} _"])
def test_without_a_scheme_words_are_enough(file, form):
  rows = "IMGID:a", ("New", 1), ("York", 2), "", ("1", 1), "", ("#", 1)
  lines = (form.format(*r) if isinstance(r, tuple) else r for r in rows)
  file.write_text("# a b\n" + "\n".join(lines))
  found = list(formats.read_conll(file, scheme=None))
  assert [s.words for s in found] == [("New", "York"), ("1",), ("#",)]
  assert (found[0].image, found[0].tags) == ("a", ("O", "O"))


def test_running_text_is_no_column_of_words(file):
  file.write_text("Ann lives here.\nBob sings too.\n")
  with pytest.raises(UserError, match=r":1: 'Ann lives here.' is not one word"):
    list(formats.read_conll(file, scheme=None))


INDICES = {
  "1 CD O\ncat NN O\n": [("1", "cat")],
  "1 a O\n\n1 b O\n2 c O\n": [("a",), ("b", "c")],
  "2 CD O\n3 CD O\n": [("2", "3")],
}


@pytest.mark.parametrize("content", INDICES)
def test_an_index_counts(file, content):
  assert [s.words for s in read(file, content)] == INDICES[content]


BAD_LINES = [
  ("a\tO\n\nb\tB-X\tO\n", 3, "expected 2 columns"),
  ("a\tO\n\xa0\n", 2, "expected 2 columns"),
  ("a\tO\nb O\n", 2, "expected 2 columns"),
  ("a\nb\n", 1, "no tag: it follows"),
  ("a\tO\n\tO\n", 2, "the word is empty"),
  ("a\tO\r\nb\tQ\r\n", 2, "'Q' is not a tag"),
  ("a\tO\nb\tS-PER\n", 2, "data.scheme"),
  ("-DOCSTART- -X- O\n\na NN X\n", 3, "'X' is not a tag"),
  ("IMGID:1\nIMGID:2\na\tO\n", 1, "IMGID without a sentence"),
  (b"a\tO\n\nb\xff\tO\n", 3, "not UTF-8"),
  ("a\tO\n".encode("utf-16"), 1, "not UTF-8"),
  ("0\ta\tO\n2\tb\tO\n", 2, "expected the index 1"),
  ("1\ta\tO\n\n0\tb\tO\n", 3, "expected the index 1"),
  ("1\ta\tO\n\n3\tb\tO\n", 3, "expected the index 1"),
  ("1 a O\n2-3 bc B-X\n2 b O\n", 2, "found '2-3' with 'B-X'"),
  ("1 a O\n\n1-2 b O\n", 3, "a sentence without a word"),
  (HIPE + "a\tO\tO\t_\t_\n", 3, "'_' is not a tag"),
  ("a\tO\n\n# b\nc\tO\n# d e\tO\n# f\n#\n", 7, "expected 2 columns"),
  ("a\tO\n\n" + "b\tO\n" * 2001, 3, "more than 2000 words"),
]


COLUMNS = [  # content, tag column, message
  (TWO, "-1", "column 3 (1 entities) and column 4 (2 entities); set data.tag"),
  ("1\ta\tB-PER\tO\n", "-1", "column 3 (1 entities) and column 4 (0 entit"),
  ("a\tB-pers\tB-pers.ind\n", "-1", "column 2 (1 entities) and column 3"),
  (TWO, "2", "=2 is no column of tags; there are: 3, 4"),
  (SAME["tab"], "9" * 5000, "is no column of tags; there are: 2"),
  (SAME["hipe"], "NE", "there are: 2, 3, 4, 5, TOKEN, NE-COARSE"),
  (SAME["hipe"], "TOKEN", "=TOKEN is no column of tags"),
  ("\n# a b\n", "-1", "no sentence in it"),
]


def read_line(file, **record):
  """The sentence of a JSONL file of one line."""
  path = file.with_suffix(".jsonl")
  path.write_text("\n" + json.dumps(record) + "\n")
  (sentence,) = formats.read(path, "en")
  return sentence


def test_jsonl_of_tokens(file):
  fields = {"tokens": ["New York", "\xa0", "x"], "tags": ["B-A", "O", "I-B"]}
  sentence = read_line(file, **fields, more=[1])
  words, tags = map(tuple, fields.values())
  assert sentence == formats.Sentence(words, tags, language="en")
  assert sentence.where(2) == f"{file.parent.name}/train.jsonl:2"
  more = {"image": "O_1", "language": "fr"}
  sentence = read_line(file, **fields, **more, source=None)
  assert sentence == formats.Sentence(words, tags, **more)
  assert read_line(file, **fields, source="s").source == "s"


def spanned(text, *spans):
  """A record of a text with spans (start, end, label)."""
  names = ("start", "end", "label")
  spans = [dict(zip(names, span, strict=True)) for span in spans]
  return {"text": text, "spans": spans}


SPANS = [  # text with its spans in brackets, words, tags
  ("[Ann Lee]'s  [New\xa0York].", "Ann Lee 's New York .", "BIOBIO"),
  ("[a][b]-[ c\n]", "a b - c", "BBOB"),
  ("\u4e2d[\u56fd]\xe9", "\u4e2d \u56fd \xe9", "OBO"),
  (" l'[Roma], \u5f20\u4e09 ", "l' Roma , \u5f20 \u4e09", "OBOOO"),
]


@pytest.mark.parametrize(("marked", "words", "tags"), SPANS)
def test_words_of_a_text_make_up_its_spans(file, marked, words, tags):
  parts = re.split(r"[][]", marked)
  ends = [0, *itertools.accumulate(map(len, parts))]
  spans = [(*ends[i : i + 2], "X") for i in range(1, len(parts), 2)]
  sentence = read_line(file, **spanned("".join(parts), *spans[::-1]))
  assert sentence.words == tuple(words.split())
  assert "".join(tag[0] for tag in sentence.tags) == tags


NO_TEXT = "'text' must be a string"
NO_SPAN = "has no word in it, overlaps another, or is not within the text of 4"
BAD_JSON = [
  ("{", "not JSON"),
  ("[" * 50_000, "not JSON"),
  (r'{"tokens": ["\ud800"], "tags": ["O"]}', "not JSON"),
  ("[1]", "not JSON of an object"),
  ("{}", f"{NO_TEXT}, not None; expected tokens+tags or text+spans"),
  ('{"tokens": ["a"]}', "'tags' must be a list"),
  ('{"tokens": ["a"], "tags": []}', "1 tokens and 0 tags"),
  ('{"tokens": ["a", 1], "tags": ["O", "O"]}', "must be strings"),
  ('{"tokens": ["a"], "tags": ["PER"]}', "'PER' is not a tag"),
  ('{"tokens": ["a"], "tags": ["O"], "image": 3}', "'image' must be a string"),
  ('{"text": "a", "spans": [3]}', "'start' must be a whole number"),
  ('{"text": "a", "spans": 3}', "'spans' must be a list"),
]
BAD_SPANS = [
  ([(True, 1, "X")], "'start' must be a whole number"),
  ([(0, 0, "X")], f"span from 0 to 0 {NO_SPAN}"),
  ([(1, 5, "X")], NO_SPAN),
  ([(0, 1, "a b")], "'B-a b' is not a tag"),
  ([(1, 4, "X"), (0, 2, "Y")], f"span from 1 to 4 {NO_SPAN}"),
]
BAD_JSON += [(json.dumps(spanned("ab c", *x)), said) for x, said in BAD_SPANS]
GOOD_LINE = '{"tokens": ["a"], "tags": ["O"]}\n'
BAD = [("txt", x, "-1", f":{line}: ", said) for x, line, said in BAD_LINES]
BAD += [("txt", x, column, ":", said) for x, column, said in COLUMNS]
BAD += [("jsonl", GOOD_LINE + x, "-1", ":2: ", said) for x, said in BAD_JSON]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[1][:40])
def test_bad_files_are_refused(file, case):
  suffix, content, column, where, message = case
  file = file.with_suffix(f".{suffix}")
  with pytest.raises(UserError) as error:
    read(file, content, column)
  said = str(error.value)
  assert said.startswith(f"{file}{where}") and message in said
  assert "\n" not in said and len(said) < len(f"{file}{column}") + 300

import os
import random
import subprocess
import sys

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from mner_jax.config import UserError
from mner_jax.data import formats, wordpiece

# Words that BERT's normalizer leaves nothing of.
INVISIBLE = ("\u200b", "\ufffd", "\xad", "\uf0d8", "\xa0", "\x85", "\u2028")

PRINT_VOCABULARY = """
import ast, sys
from mner_jax.data import formats, wordpiece
sentences = [
  formats.Sentence(words, ("O",) * len(words))
  for words in ast.literal_eval(sys.argv[1])
]
print(ascii(wordpiece.count_vocabulary(sentences, 200)))
"""


def sentence(*words):
  return formats.Sentence(words, ("O",) * len(words))


def own_tokenizer(sentences, size=100):
  vocabulary = wordpiece.count_vocabulary(sentences, size)
  return wordpiece.bert_tokenizer(vocabulary)


def greedy(word, vocabulary):
  """WordPiece as its paper has it: the longest known prefix, repeatedly."""
  pieces, start = [], 0
  while start < len(word):
    for stop in range(len(word), start, -1):
      piece = ("##" if start else "") + word[start:stop]
      if piece in vocabulary:
        break
    else:
      return ["[UNK]"]
    pieces.append(piece)
    start = stop
  return pieces


def random_sentences(count=60, seed=0):
  rng = random.Random(seed)
  return [
    sentence(
      *(
        "".join(rng.choices("abcdeßé中", k=rng.randint(1, 7)))
        for _ in range(rng.randint(1, 9))
      )
    )
    for _ in range(count)
  ]


def test_vocabulary_does_not_depend_on_the_order():
  sentences = random_sentences()
  vocabulary = wordpiece.count_vocabulary(sentences, 200)
  assert len(vocabulary) == len(set(vocabulary)) == 200
  assert vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  for seed in range(5):
    random.Random(seed).shuffle(sentences)
    assert wordpiece.count_vocabulary(sentences, 200) == vocabulary


def test_vocabulary_is_the_same_in_fresh_processes():
  sentences = random_sentences()
  here = ascii(wordpiece.count_vocabulary(sentences, 200))
  words = ascii([s.words for s in sentences])
  for seed in ("1", "2"):
    printed = subprocess.check_output(
      [sys.executable, "-c", PRINT_VOCABULARY, words],
      env={**os.environ, "PYTHONHASHSEED": seed},
      text=True,
    )
    assert printed.strip() == here


def test_frequent_words_are_pieces():
  sentences = [sentence("Paris", "rare")] + [sentence("Paris", "in")] * 9
  vocabulary = wordpiece.count_vocabulary(sentences, 40)
  encoded = wordpiece.bert_tokenizer(vocabulary).encode("in Paris")
  assert encoded.tokens == ["in", "Paris"]


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1), st.integers(1))
def test_every_character_of_the_corpus_is_encodable(words, size):
  tokenizer = own_tokenizer([sentence(*words)], size)
  for word in words:
    for text in (word, word[::-1], *word):
      assert "[UNK]" not in tokenizer.encode(text).tokens


ascii_words = st.text("abcAB", min_size=1, max_size=9)


@settings(deadline=None)
@given(
  st.lists(ascii_words, min_size=1, max_size=20),
  st.lists(ascii_words, min_size=1, max_size=20),
  st.integers(15, 60),
)
def test_first_piece_of_each_word(corpus, words, size):
  corpus.append("abcAB")
  vocabulary = wordpiece.count_vocabulary([sentence(*corpus)], size)
  tokenizer = wordpiece.bert_tokenizer(vocabulary)
  (window,) = wordpiece.windows(tokenizer, [sentence(*words)], 512)
  pieces = ["[CLS]"]
  for word, index in zip(words, window.first_piece, strict=True):
    assert index == len(pieces)
    pieces += greedy(word, vocabulary)
  assert [vocabulary[i] for i in window.pieces] == [*pieces, "[SEP]"]
  assert (window.sentence, window.start, window.unk_words) == (0, 0, 0)


def test_punctuation_and_chinese_split_a_word_but_not_its_index():
  words = ("don't", "中国人", "e-mail", "x")
  tokenizer = own_tokenizer([sentence(*words)], 0)
  (window,) = wordpiece.windows(tokenizer, [sentence(*words)], 64)
  tokens = [tokenizer.id_to_token(window.pieces[i]) for i in window.first_piece]
  assert tokens == ["d", "中", "e", "x"]


def test_invisible_and_unknown_words_become_unk():
  tokenizer = own_tokenizer([sentence("a", "b")])
  words = ("a", *INVISIBLE, "b", "Ω", "aΩ", "a-Ω")
  (window,) = wordpiece.windows(tokenizer, [sentence(*words)], 64)
  unk = tokenizer.token_to_id("[UNK]")
  tokens = [window.pieces[i] for i in window.first_piece]
  known = [token != unk for token in tokens]
  assert known == [True] + [False] * 7 + [True, False, False, True]
  assert window.unk_words == len(INVISIBLE) + 2


def test_invisible_words_are_counted_in_every_window_once():
  words = ("a", "\u200b", "bb", "\ufffd") * 8
  tokenizer = own_tokenizer([sentence(*words)])
  windows = wordpiece.windows(tokenizer, [sentence(*words)], 10)
  assert len(windows) > 2
  assert sum(w.unk_words for w in windows) == 16


some_words = st.one_of(
  st.text("ab", min_size=1, max_size=3),
  st.text("abc中-é", min_size=1, max_size=30),
  st.sampled_from(INVISIBLE),
)
some_sentences = st.lists(
  st.lists(some_words, min_size=1, max_size=25), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=200)
@given(some_sentences, st.integers(8, 40))
def test_windows_own_every_word_once_and_fit(words, max_pieces):
  sentences = [sentence(*w) for w in words]
  tokenizer = own_tokenizer([sentence("abc中-é", "ab", "ba")])
  cls, sep, unk = map(tokenizer.token_to_id, ("[CLS]", "[SEP]", "[UNK]"))
  windows = wordpiece.windows(tokenizer, sentences, max_pieces)
  owned = []
  for window in windows:
    assert len(window.pieces) <= max_pieces
    assert (window.pieces[0], window.pieces[-1]) == (cls, sep)
    assert len(window.first_piece) > 0
    owned += [(window.sentence, i) for i in range(window.start, window.stop)]
    for i, index in enumerate(window.first_piece, start=window.start):
      word = sentences[window.sentence].words[i]
      ids = tokenizer.encode(word).ids or [unk]
      assert window.pieces[index] == ids[0]
  assert owned == [(s, i) for s, w in enumerate(words) for i, _ in enumerate(w)]


@settings(deadline=None)
@given(some_sentences)
def test_a_short_sentence_is_one_whole_window(words):
  sentences = [sentence(*w) for w in words]
  tokenizer = own_tokenizer([sentence("abc中-é")])
  unk = tokenizer.token_to_id("[UNK]")
  whole = [
    [i for word in w for i in tokenizer.encode(word).ids or [unk]]
    for w in words
  ]
  longest = 2 + max(map(len, whole))
  windows = wordpiece.windows(tokenizer, sentences, longest)
  assert [w.pieces[1:-1].tolist() for w in windows] == whole


def test_own_words_have_context_on_both_sides():
  words = [f"w{i}" for i in range(50)]
  tokenizer = own_tokenizer([sentence(*words)], 200)
  windows = wordpiece.windows(tokenizer, [sentence(*words)], 18)
  tokens = [[tokenizer.id_to_token(i) for i in w.pieces] for w in windows]
  assert len(windows) > 3
  for window, pieces in zip(windows, tokens, strict=True):
    low = int(pieces[1][1:])  # the window's first word, own or not
    high = int(pieces[-2][1:])
    assert pieces[1:-1] == words[low : high + 1]
    assert len(pieces) == 18 or window is windows[-1]
    assert window.start - low == (4 if window.start else 0)
    assert high + 1 - window.stop == (4 if window.stop < 50 else 0)


def test_save_and_load(tmp_path):
  sentences = random_sentences()
  tokenizer = own_tokenizer(sentences)
  wordpiece.save(tokenizer, epath.Path(tmp_path / "a" / "tokenizer"))
  loaded = wordpiece.load(epath.Path(tmp_path / "a" / "tokenizer"))
  for before, after in zip(
    wordpiece.windows(tokenizer, sentences, 10),
    wordpiece.windows(loaded, sentences, 10),
    strict=True,
  ):
    assert before.pieces.tolist() == after.pieces.tolist()
    assert before.first_piece.tolist() == after.first_piece.tolist()


def test_load_names_the_file(tmp_path):
  path = epath.Path(tmp_path)
  with pytest.raises(UserError, match=r"tokenizer\.json: not found"):
    wordpiece.load(path)
  (path / "tokenizer.json").write_text('{"model": ')
  with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer"):
    wordpiece.load(path)

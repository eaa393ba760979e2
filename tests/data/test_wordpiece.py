import random

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from mner_jax.config import UserError
from mner_jax.data import files, formats, wordpiece

# Words that BERT's normalizer leaves nothing of.
INVISIBLE = ("\u200b", "\ufffd", "\xad", "\uf0d8", "\xa0", "\x85", "\u2028")


def sentence(*words):
  return formats.Sentence(words, ("O",) * len(words))


def own_tokenizer(sentences, size=100):
  return wordpiece.bert_tokenizer(wordpiece.count_vocabulary(sentences, size))


def greedy(word, vocabulary):
  """WordPiece as its paper has it: the longest known prefix, repeatedly."""
  pieces, start = [], 0
  while start < len(word):
    prefix = "##" if start else ""
    stops = range(len(word), start, -1)
    stop = next(x for x in stops if prefix + word[start:x] in vocabulary)
    pieces.append(prefix + word[start:stop])
    start = stop
  return pieces


def random_sentences():
  rng = random.Random(0)

  def word():
    return "".join(rng.choices("abcdeßé中", k=rng.randint(1, 7)))

  rows = ([word() for _ in range(rng.randint(1, 9))] for _ in range(60))
  return [sentence(*words) for words in rows]


def test_vocabulary_depends_on_neither_order_nor_process():
  sentences = random_sentences()
  vocabulary = wordpiece.count_vocabulary(sentences, 200)
  assert len(vocabulary) == len(set(vocabulary)) == 200
  assert vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  random.Random(0).shuffle(sentences)
  assert wordpiece.count_vocabulary(sentences, 200) == vocabulary
  # Python hashes strings otherwise in each process.
  assert files.hash_of(vocabulary) == "00a5a8b762930f68"


def test_frequent_words_are_pieces():
  sentences = [sentence("Paris", "rare")] + [sentence("Paris", "in")] * 9
  encoded = own_tokenizer(sentences, 40).encode("in Paris")
  assert encoded.tokens == ["in", "Paris"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1), st.integers(1))
def test_every_character_of_the_corpus_is_encodable(words, size):
  tokenizer = own_tokenizer([sentence(*words)], size)
  for word in words:
    for text in (word, word[::-1], *word):
      assert "[UNK]" not in tokenizer.encode(text).tokens


ascii_words = st.lists(st.text("abcAB", min_size=1, max_size=9), min_size=1)


@settings(deadline=None)
@given(ascii_words, ascii_words, st.integers(15, 60))
def test_pieces_are_those_of_the_paper(corpus, words, size):
  corpus.append("abcAB")
  vocabulary = wordpiece.count_vocabulary([sentence(*corpus)], size)
  tokenizer = wordpiece.bert_tokenizer(vocabulary)
  (window,) = wordpiece.windows(tokenizer, [sentence(*words)], 10_000)
  pieces, firsts = ["[CLS]"], []
  for word in words:
    firsts.append(len(pieces))
    pieces += greedy(word, vocabulary)
  assert [vocabulary[i] for i in window.pieces] == [*pieces, "[SEP]"]
  assert window.first_piece.tolist() == firsts


def test_words_that_are_split_invisible_or_unknown():
  tokenizer = own_tokenizer([sentence("don't", "中国人", "e-mail", "a", "b")])
  words = ("don't", "中国人", "e-mail", *INVISIBLE, "b", "Ω", "aΩ", "a-Ω")
  (window,) = wordpiece.windows(tokenizer, [sentence(*words)], 64)
  tokens = [tokenizer.id_to_token(window.pieces[i]) for i in window.first_piece]
  unknown = ["[UNK]"] * len(INVISIBLE)
  known = ["don", "中", "e", *unknown, "b", "[UNK]", "[UNK]", "a"]
  assert tokens == known and window.unk_words == len(INVISIBLE) + 2


some_words = st.one_of(
  st.text("ab", min_size=1, max_size=3),
  st.text("abc中-é", min_size=1, max_size=30),
  st.sampled_from(INVISIBLE),
)
one_sentence = st.lists(some_words, min_size=1, max_size=25)
some_sentences = st.lists(one_sentence, min_size=1, max_size=4)


@settings(deadline=None)
@given(some_sentences, st.integers(8, 40))
def test_windows_own_every_word_once_and_fit(words, max_pieces):
  sentences = [sentence(*w) for w in words]
  tokenizer = own_tokenizer([sentence("abc中-é", "ab", "ba")])
  cls, sep, unk = map(tokenizer.token_to_id, ("[CLS]", "[SEP]", "[UNK]"))
  pieces = [[tokenizer.encode(word).ids or [unk] for word in w] for w in words]
  owned, unknown = [], 0
  for window in wordpiece.windows(tokenizer, sentences, max_pieces):
    assert len(window.pieces) <= max_pieces and len(window.first_piece) > 0
    assert (window.pieces[0], window.pieces[-1]) == (cls, sep)
    owned += [(window.sentence, i) for i in range(window.start, window.stop)]
    own = pieces[window.sentence][window.start : window.stop]
    assert window.pieces[window.first_piece].tolist() == [x[0] for x in own]
    unknown += window.unk_words
  assert owned == [(s, i) for s, w in enumerate(words) for i, _ in enumerate(w)]
  assert unknown == sum(set(ids) == {unk} for w in pieces for ids in w)
  # A short sentence is one whole window.
  whole = [sum(w, []) for w in pieces]
  windows = wordpiece.windows(tokenizer, sentences, 2 + max(map(len, whole)))
  assert [w.pieces[1:-1].tolist() for w in windows] == whole


def test_own_words_have_context_on_both_sides():
  words = [f"w{i}" for i in range(50)]
  tokenizer = own_tokenizer([sentence(*words)], 200)
  windows = wordpiece.windows(tokenizer, [sentence(*words)], 18)
  assert len(windows) > 3
  for window in windows:
    pieces = [tokenizer.id_to_token(i) for i in window.pieces]
    low = int(pieces[1][1:])  # the window's first word, own or not
    high = int(pieces[-2][1:])
    assert pieces[1:-1] == words[low : high + 1]
    assert len(pieces) == 18 or window is windows[-1]
    assert window.start - low == (4 if window.start else 0)
    assert high + 1 - window.stop == (4 if window.stop < 50 else 0)


def test_save_and_load(tmp_path):
  folder = epath.Path(tmp_path / "a" / "tokenizer")
  tokenizer = own_tokenizer(random_sentences())
  wordpiece.save(tokenizer, folder)
  assert wordpiece.load(folder).to_str() == tokenizer.to_str()
  for damaged in (b'{"model": ', b"\xff"):
    (folder / "tokenizer.json").write_bytes(damaged)
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer"):
      wordpiece.load(folder)


def test_a_damaged_vocabulary_is_one_line(tmp_path):
  (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
  with pytest.raises(UserError, match="vocab.txt:2: not UTF-8"):
    wordpiece.published(tmp_path)

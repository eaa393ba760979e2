"""Words to word pieces: vocabulary, first-piece index, windows.

The tokenizer is BERT's: clean the text, split at punctuation and around CJK
characters, then take the longest known piece greedily. It comes from the
`tokenizers` library; the vocabulary of a model from scratch is counted here.
"""

import bisect
import collections
import dataclasses
import itertools

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from mner_jax.config import UserError
from mner_jax.data import files

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def bert_tokenizer(vocabulary, **options):
  """Makes BERT's tokenizer over a list of pieces; index = id.

  `options`: those of `normalizers.BertNormalizer`; cased by default.
  """
  ids = {piece: i for i, piece in enumerate(vocabulary)}
  tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
  options = {"lowercase": False} | options
  tokenizer.normalizer = normalizers.BertNormalizer(**options)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  return tokenizer


def count_vocabulary(sentences, size):
  """Counts a vocabulary from scratch, the same for the same sentences.

  Special tokens, then all characters (alone and as `##c`), then words,
  prefixes and suffixes by falling count. Ties are broken by the piece itself,
  so that the result does not depend on the order of the sentences.

  Args:
    sentences: Sentences to count in.
    size: largest number of pieces; characters are kept beyond it.
  """
  split = bert_tokenizer(SPECIAL)
  words = collections.Counter()
  raw = collections.Counter(w for s in sentences for w in s.words)
  for word, count in raw.items():
    text = split.normalizer.normalize_str(word)
    for part, _ in split.pre_tokenizer.pre_tokenize_str(text):
      words[part] += count
  pieces = collections.Counter()
  for word, count in words.items():
    pieces[word] += count
    for n in range(2, min(7, len(word))):
      pieces[word[:n]] += count
      pieces[f"##{word[-n:]}"] += count
  characters = sorted({c for word in words for c in word})
  vocabulary = [*SPECIAL, *characters, *(f"##{c}" for c in characters)]
  known = set(vocabulary)
  by_count = sorted(pieces, key=lambda piece: (-pieces[piece], piece))
  new = [piece for piece in by_count if piece not in known]
  return vocabulary + new[: max(0, size - len(vocabulary))]


def published(folder):
  """The tokenizer beside published weights: tokenizer.json or vocab.txt."""
  if (folder / "tokenizer.json").exists():
    tokenizer = load(folder)
    # The file may contain its author's padding and truncation.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    split = tokenizer.pre_tokenizer
    if isinstance(split, pre_tokenizers.ByteLevel):
      # RoBERTa marks the beginning of a word by the space in front.
      split.add_prefix_space = True
      tokenizer.pre_tokenizer = split
    return tokenizer
  path = folder / "vocab.txt"
  if not path.exists():
    raise UserError(f"{folder}: neither tokenizer.json nor vocab.txt in it")
  file = folder / "tokenizer_config.json"
  options = files.read_json(file) if file.exists() else {}
  return bert_tokenizer(
    [line for _, line in files.numbered_lines(path)],
    # BERT's tokenizer lower-cases unless its options say otherwise.
    lowercase=options.get("do_lower_case", True),
    strip_accents=options.get("strip_accents"),
    handle_chinese_chars=options.get("tokenize_chinese_chars", True),
  )


def save(tokenizer, folder):
  """Writes `tokenizer.json`, the file that `load` reads."""
  files.write(folder / "tokenizer.json", tokenizer.to_str(pretty=True))


def load(folder):
  """Reads the tokenizer of a folder with `tokenizer.json`."""
  path = folder / "tokenizer.json"
  content = path.read_bytes()
  try:
    return tokenizers.Tokenizer.from_buffer(content)
  except Exception as error:  # the library raises plain Exception
    raise UserError(f"{path}: not a tokenizer ({error})") from None


@dataclasses.dataclass(frozen=True)
class Window:
  """A part of a sentence that fits the encoder; most sentences have one.

  Every word belongs to exactly one window; the pieces around a window's own
  words are only context.
  """

  sentence: int
  pieces: np.ndarray  # ids, [CLS] ... [SEP]
  first_piece: np.ndarray  # of each own word, index into pieces
  start: int  # first own word
  unk_words: int  # own words that are nothing but [UNK]

  @property
  def stop(self):
    """One past the last own word."""
    return self.start + len(self.first_piece)


def windows(tokenizer, sentences, max_pieces):
  """Cuts all sentences, in order, into windows of at most `max_pieces` pieces.

  A word without pieces (only invisible characters) becomes [UNK]. In a
  sentence that needs several windows, the context on either side of a
  window's own words takes about a quarter of it, and a word of more pieces
  than that is truncated: only its first piece represents the word.
  """
  cls, sep, unk = _special_ids(tokenizer)
  # A word of the file that reads "[SEP]" is a word like any other.
  tokenizer.encode_special_tokens = True
  encodings = tokenizer.encode_batch(
    [s.words for s in sentences], is_pretokenized=True, add_special_tokens=False
  )
  budget = max_pieces - 2
  margin = max(1, budget // 4)
  result = []
  for index, encoding in enumerate(encodings):
    words = [[] for _ in sentences[index].words]
    for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
      words[word].append(piece)
    words = [pieces or [unk] for pieces in words]
    unknown = [set(pieces) == {unk} for pieces in words]
    if sum(map(len, words)) > budget:
      words = [pieces[:margin] for pieces in words]
    # ends[i]: pieces before word i; the last is their number.
    ends = [0, *itertools.accumulate(map(len, words))]
    for low, start, stop, high in _spans(ends, budget, margin):
      pieces = [cls, *itertools.chain(*words[low:high]), sep]
      window = Window(
        sentence=index,
        pieces=np.array(pieces, np.int32),
        first_piece=np.array(ends[start:stop], np.int32) - ends[low] + 1,
        start=start,
        unk_words=sum(unknown[start:stop]),
      )
      result.append(window)
  return result


def _special_ids(tokenizer):
  """The ids of [CLS], [SEP] and [UNK], or of RoBERTa's names for them."""
  for names in (("[CLS]", "[SEP]", "[UNK]"), ("<s>", "</s>", "<unk>")):
    ids = [tokenizer.token_to_id(name) for name in names]
    if None not in ids:
      return ids
  raise UserError("tokenizer: it has neither [CLS] [SEP] [UNK] nor <s> </s>")


def _spans(ends, budget, margin):
  """Yields (low, start, stop, high) of each window, in words.

  The own words are [start, stop), with context [low, high).

  Args:
    ends: pieces before each word, and of all words.
    budget: pieces of a window.
    margin: pieces of the context on one side, and of any word, at most.
  """
  last, stop = len(ends) - 1, 0
  while stop < last:
    start = stop
    low = bisect.bisect_left(ends, ends[start] - margin)
    high = bisect.bisect_right(ends, ends[low] + budget) - 1
    stop = high
    if high < last:
      stop = bisect.bisect_left(ends, ends[high] - margin, start + 1)
    yield low, start, stop, high

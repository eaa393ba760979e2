"""Words to word pieces: vocabulary, first-piece index, windows.

The tokenizer is BERT's: clean the text, split at punctuation and around CJK
characters, then take the longest known piece greedily. It comes from the
`tokenizers` library; the vocabulary of a model from scratch is counted here.
"""

import collections
import dataclasses
import json

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from mner_jax import files
from mner_jax.config import UserError

PAD, UNK, CLS, SEP, MASK = SPECIAL = (
  "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
)  # fmt: skip


def bert_tokenizer(vocabulary, **normalizer):
  """BERT's tokenizer over a list of pieces; index = id.

  `normalizer`: settings of `normalizers.BertNormalizer`, cased by default.
  """
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(
      {piece: i for i, piece in enumerate(vocabulary)}, unk_token=UNK
    )
  )
  tokenizer.normalizer = normalizers.BertNormalizer(
    **{"lowercase": False} | normalizer
  )
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  return tokenizer


def count_vocabulary(sentences, size):
  """A vocabulary from scratch, the same for the same sentences.

  Special tokens, then all characters (alone and as `##c`), then words,
  prefixes and suffixes by falling count. Ties go by the piece itself, so that
  the result does not depend on the order of the sentences.

  Args:
    sentences: Sentences to count in.
    size: largest number of pieces; characters are kept beyond it.
  """
  split = bert_tokenizer(SPECIAL)
  words = collections.Counter()
  for word, count in collections.Counter(
    w for s in sentences for w in s.words
  ).items():
    text = split.normalizer.normalize_str(word)
    for part, _ in split.pre_tokenizer.pre_tokenize_str(text):
      words[part] += count
  characters = {c for word in words for c in word}
  pieces = collections.Counter()
  for word, count in words.items():
    pieces[word] += count
    for n in range(2, min(7, len(word))):
      pieces[word[:n]] += count
      pieces[f"##{word[-n:]}"] += count
  vocabulary = dict.fromkeys(
    (*SPECIAL, *sorted(characters), *sorted(f"##{c}" for c in characters))
  )
  for piece, _ in sorted(pieces.items(), key=lambda kv: (-kv[1], kv[0])):
    if len(vocabulary) >= size:
      break
    vocabulary.setdefault(piece)
  return list(vocabulary)


def published(folder):
  """The tokenizer beside published weights: tokenizer.json or vocab.txt."""
  if (folder / "tokenizer.json").exists():
    tokenizer = load(folder)
    # The file may hold the padding of whoever wrote it.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    split = tokenizer.pre_tokenizer
    if isinstance(split, pre_tokenizers.ByteLevel):
      # RoBERTa tells a word from the rest of one by the space in front.
      split.add_prefix_space = True
      tokenizer.pre_tokenizer = split
    return tokenizer
  path = folder / "vocab.txt"
  if not path.exists():
    raise UserError(f"{folder}: neither tokenizer.json nor vocab.txt in it")
  file = folder / "tokenizer_config.json"
  settings = json.loads(file.read_text()) if file.exists() else {}
  vocabulary = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
  return bert_tokenizer(
    [piece.rstrip("\r") for piece in vocabulary],
    # BERT's tokenizer lower-cases unless its settings say otherwise.
    lowercase=settings.get("do_lower_case", True),
    strip_accents=settings.get("strip_accents"),
    handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
  )


def save(tokenizer, folder):
  """Writes `tokenizer.json`, the file that `load` reads."""
  files.write(folder / "tokenizer.json", tokenizer.to_str(pretty=True))


def load(folder):
  """The tokenizer of a folder with `tokenizer.json`."""
  path = folder / "tokenizer.json"
  try:
    return tokenizers.Tokenizer.from_str(path.read_text())
  except FileNotFoundError:
    raise UserError(f"{path}: not found; the workdir is incomplete") from None
  except Exception as error:  # the library raises plain Exception
    raise UserError(f"{path}: not a tokenizer ({error})") from None


@dataclasses.dataclass(frozen=True)
class Window:
  """A piece of a sentence that fits the encoder; most sentences have one.

  Every word belongs to exactly one window; the pieces around its words are
  there as context only.
  """

  sentence: int
  pieces: np.ndarray  # ids, [CLS] ... [SEP]
  first_piece: np.ndarray  # of each own word, index into pieces
  start: int  # first own word
  unk_words: int  # own words of which nothing is known

  @property
  def stop(self):
    """One past the last own word."""
    return self.start + len(self.first_piece)


def windows(tokenizer, sentences, max_pieces):
  """The windows of all sentences, in order, none above `max_pieces` pieces.

  A word without pieces (only invisible characters) becomes [UNK]. In a
  sentence that needs several windows, the context on either side of a
  window's own words takes about a quarter of it, and a word of more pieces
  than that is cut: only its first piece stands for the word.
  """
  cls, sep, unk = _special_ids(tokenizer)
  # A word of the file that reads "[SEP]" is a word like any other.
  tokenizer.encode_special_tokens = True
  encodings = tokenizer.encode_batch(
    [s.words for s in sentences], is_pretokenized=True, add_special_tokens=False
  )
  result = []
  for index, encoding in enumerate(encodings):
    words = [[] for _ in sentences[index].words]
    for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
      words[word].append(piece)
    words = [pieces or [unk] for pieces in words]
    for low, start, stop, high, margin in _spans(words, max_pieces - 2):
      pieces, first = [cls], []
      for i in range(low, high):
        if start <= i < stop:
          first.append(len(pieces))
        pieces.extend(words[i][:margin])
      pieces.append(sep)
      unknown = sum(set(words[i]) == {unk} for i in range(start, stop))
      result.append(
        Window(
          index, np.array(pieces, np.int32), np.array(first, np.int32), start,
          unknown,
        )
      )  # fmt: skip
  return result


def _special_ids(tokenizer):
  """Ids of [CLS], [SEP] and [UNK], or of what RoBERTa calls them."""
  for names in ((CLS, SEP, UNK), ("<s>", "</s>", "<unk>")):
    ids = [tokenizer.token_to_id(name) for name in names]
    if None not in ids:
      return ids
  raise UserError("tokenizer: it has neither [CLS] [SEP] [UNK] nor <s> </s>")


def _spans(words, budget):
  """(low, start, stop, high, margin) of each window, in words.

  Own words are [start, stop), context reaches [low, high); each word gives
  its first `margin` pieces.
  """
  if sum(map(len, words)) <= budget:
    return [(0, 0, len(words), len(words), None)]
  margin = max(1, budget // 4)
  sizes = [min(len(pieces), margin) for pieces in words]
  spans, start = [], 0
  while start < len(words):
    low, used = start, 0
    while low > 0 and used + sizes[low - 1] <= margin:
      low -= 1
      used += sizes[low]
    high = start
    while high < len(words) and used + sizes[high] <= budget:
      used += sizes[high]
      high += 1
    stop, context = high, 0
    if high < len(words):
      while stop - 1 > start and context + sizes[stop - 1] <= margin:
        stop -= 1
        context += sizes[stop]
    spans.append((low, start, stop, high, margin))
    start = stop
  return spans

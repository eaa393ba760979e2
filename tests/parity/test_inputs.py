"""Word pieces and pixels against transformers, on real text and pictures."""

import collections
import functools
import itertools
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import transformers
from etils import epath
from PIL import Image
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from mner_jax.data import formats, images, wordpiece
from mner_jax.models.resnet import IMAGENET_STATISTICS
from mner_jax.models.vit import PIXEL_STATISTICS, normalise

pytestmark = pytest.mark.skipif(
  "MNER_REAL_DATA" not in os.environ, reason="MNER_REAL_DATA is not set"
)

LANGUAGES = ("en", "fr", "de", "es")


def real(*path):
  return pathlib.Path(os.environ["MNER_REAL_DATA"], *path)


@functools.cache
def sentences(corpus):
  """All of Twitter-2017, or 500 sentences of WikiNEuRal in a language."""
  if corpus == "twitter2017":
    files = [real(corpus, f"{s}.txt") for s in ("train", "valid", "test")]
    return [s for file in files for s in formats.read_conll(file)]
  file = real("wikineural", corpus, "val.conllu")
  return list(itertools.islice(formats.read_conll(file, corpus), 500))


def vocabulary(case):
  names = {"cased": "multilingual-cased", "uncased": "uncased"}
  return real("vocab", f"bert-base-{names[case]}", "vocab.txt")


def theirs_of(case, kind):
  return kind(str(vocabulary(case)), do_lower_case=case == "uncased")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
  """Returns a function: case -> our tokenizer of its folder, theirs."""

  @functools.cache
  def make(case):
    folder = epath.Path(tmp_path_factory.mktemp(case))
    (folder / "vocab.txt").write_text(vocabulary(case).read_text("utf-8"))
    # Without options, BERT's tokenizer lower-cases.
    if case == "cased":
      options = '{"do_lower_case": false}'
      (folder / "tokenizer_config.json").write_text(options)
    theirs = theirs_of(case, transformers.BertTokenizerFast)
    return wordpiece.published(folder), theirs

  return make


def dropped_words(ours, theirs, corpus):
  """Asserts equal ids and first pieces of every word.

  A word of invisible characters is [UNK] in ours and nothing in theirs: these
  [UNK]s are taken out first.

  Returns:
    The words that transformers drops.
  """
  windows = wordpiece.windows(ours, corpus, 512)
  # No sentence is too long to be compared whole.
  assert [w.sentence for w in windows] == list(range(len(corpus)))
  encoded = theirs([list(s.words) for s in corpus], is_split_into_words=True)
  dropped = []
  for window, ids in zip(windows, encoded.input_ids, strict=True):
    first = {}
    for index, word in enumerate(encoded.word_ids(window.sentence)):
      first.setdefault(word, index)
    words = corpus[window.sentence].words
    gone = np.array([i not in first for i in range(len(words))])
    assert window.first_piece.shape == gone.shape
    extra = window.first_piece[gone]
    assert (window.pieces[extra] == theirs.unk_token_id).all()
    assert np.delete(window.pieces, extra).tolist() == ids
    moved = window.first_piece - np.cumsum(gone)
    kept = np.flatnonzero(~gone)
    assert moved[kept].tolist() == [first[i] for i in kept]
    dropped += [words[i] for i in np.flatnonzero(gone)]
  return dropped


INVISIBLE = {"\ufffd": 4, "\u200b": 5, "\u200d": 4, "\x92": 2, "\xad": 1}
# Removed where accents are, as the variation selector is a mark too.
SELECTOR = {"\ufe0f": 142}


cases = pytest.mark.parametrize("case", ["cased", "uncased"])


@cases
@pytest.mark.parametrize("corpus", ["twitter2017", *LANGUAGES])
def test_word_pieces_of_bert(bert, case, corpus):
  expected = {}
  if corpus == "twitter2017":
    expected = INVISIBLE if case == "cased" else INVISIBLE | SELECTOR
  dropped = dropped_words(*bert(case), sentences(corpus))
  assert collections.Counter(dropped) == expected


# What the corpora hardly have: invisible characters within a word, other
# scripts and letters, and words at the limit of 100 characters.
HARD = (
  *("co\xadop", "zero\u200bwidth", "\ufeffmark", "no\x00thing", "a\u2028b"),
  *("a\xa0b", "中国人", "かな", "İstanbul", "ﬁn", "ẞ", "naïve", "…", "👍🏽"),
  *("a" * 100, "a" * 101, "don't", "U.S."),
)


@cases
def test_words_against_the_tokenizer_in_python(bert, case):
  """transformers' slow BertTokenizer shares no code with `tokenizers`."""
  ours, _ = bert(case)
  theirs = theirs_of(case, transformers.BertTokenizer)
  corpora = map(sentences, ("twitter2017", *LANGUAGES))
  words = sorted({*HARD, *(w for c in corpora for s in c for w in s.words)})
  assert len(words) > 10_000
  rows = [formats.Sentence((word,), ("O",)) for word in words]
  windows = wordpiece.windows(ours, rows, 512)
  for word, window in zip(words, windows, strict=True):
    want = theirs.convert_tokens_to_ids(theirs.tokenize(word))
    assert window.pieces[1:-1].tolist() == (want or [theirs.unk_token_id])


SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def unigram(corpus):
  """A tokenizer built as XLM-R's, its scores counted in `corpus`."""
  counts = collections.Counter()
  for word in (w for s in corpus for w in s.words):
    word = f"▁{word}"
    counts.update(word)
    for size in range(2, min(9, len(word) + 1)):
      counts.update((word[:size], word[-size:]))
  total = counts.total()
  # Rare characters stay unknown.
  pieces = [(p, math.log(n / total)) for p, n in counts.items() if n > 3]
  pieces = [*((token, 0.0) for token in SPECIAL), *sorted(pieces)]
  tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3))
  rules = [normalizers.Nmt(), normalizers.NFKC()]
  tokenizer.normalizer = normalizers.Sequence(rules)
  splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
  tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
  )
  tokenizer.add_special_tokens(SPECIAL)
  return tokenizer


def test_word_pieces_of_a_unigram_model(tmp_path):
  corpus = [s for name in LANGUAGES for s in sentences(name)[:100]]
  tweets = sentences("twitter2017")
  corpus += tweets[:100]
  corpus += [s for s in tweets[100:] if INVISIBLE.keys() & set(s.words)]
  tokenizer = unigram(corpus)
  names = "bos_token", "pad_token", "eos_token", "unk_token"
  named = dict(zip(names, SPECIAL, strict=True), tokenizer_object=tokenizer)
  theirs = transformers.PreTrainedTokenizerFast(**named)
  # As all-MiniLM's file has it; ours must not cut or pad for that.
  tokenizer.enable_truncation(16)
  tokenizer.enable_padding(length=32)
  tokenizer.save(str(tmp_path / "tokenizer.json"))
  ours = wordpiece.published(epath.Path(tmp_path))
  dropped = collections.Counter(dropped_words(ours, theirs, corpus))
  assert dropped == {"\ufffd": 4, "\u200b": 5, "\u200d": 4}
  # Neither all characters known nor all words whole.
  windows = wordpiece.windows(ours, corpus, 512)
  unknown = sum((w.pieces == theirs.unk_token_id).sum() for w in windows)
  assert unknown > dropped.total() + 20
  pieces = sum(len(w.pieces) for w in windows)
  assert pieces > 1.5 * sum(len(s.words) for s in corpus)


def test_word_pieces_of_a_byte_level_model(tmp_path):
  """RoBERTa's: a word is known by the space in front of it."""
  split = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = split
  corpus = sentences("twitter2017")[:500]
  trainer = trainers.BpeTrainer(
    vocab_size=1000,
    show_progress=False,
    special_tokens=[*SPECIAL, "<mask>"],
    initial_alphabet=split.alphabet(),
  )
  texts = (" ".join(s.words) for s in corpus)
  tokenizer.train_from_iterator(texts, trainer)
  tokenizer.post_processor = processors.RobertaProcessing(
    ("</s>", 2), ("<s>", 0), add_prefix_space=False
  )
  tokenizer.save(str(tmp_path / "tokenizer.json"))
  fast = transformers.RobertaTokenizerFast(
    tokenizer_file=str(tmp_path / "tokenizer.json"), add_prefix_space=True
  )
  ours = wordpiece.published(epath.Path(tmp_path))
  assert not dropped_words(ours, fast, corpus)


@functools.cache
def pictures():
  """20 files, spread evenly from the narrowest picture to the widest."""
  chosen = []
  for collection in ("flickr8k_multi30k", "cp_mner_zh"):
    ratios = []
    for path in real(collection, "images").iterdir():
      with Image.open(path) as image:
        ratios.append((image.width / image.height, path))
    ratios.sort()
    spread = np.linspace(0, len(ratios) - 1, 10, dtype=int)
    chosen += [ratios[i] for i in spread]
  assert min(chosen)[0] < 0.25 and max(chosen)[0] > 8
  return [path for _, path in chosen]


# The defaults are those of openai/clip-vit-base-patch32 and of
# google/vit-base-patch16-224; the last is torchvision's ImageNet evaluation.
PROCESSORS = {
  "clip": transformers.CLIPImageProcessor(),
  "google": transformers.ViTImageProcessor(),
  "resnet": transformers.CLIPImageProcessor(
    size={"shortest_edge": 256},
    resample=Image.Resampling.BILINEAR,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
  ),
}


@pytest.mark.parametrize("encoder", PROCESSORS)
def test_pixels(encoder):
  theirs = PROCESSORS[encoder]
  statistics = PIXEL_STATISTICS | {"resnet": IMAGENET_STATISTICS}

  @jax.jit
  def on_device(pixels):
    return normalise(pixels, *statistics[encoder], jnp.float32)

  for path in pictures():
    picture = images.decode(path.read_bytes())
    if encoder == "resnet":
      pixels = images.scene_pixels(picture, 224)
    else:
      pixels = images.vit_pixels(picture, 224, encoder)
    with Image.open(path) as image:
      options = {"data_format": "channels_last", "do_rescale": False}
      raw = theirs(image, do_normalize=False, **options).pixel_values[0]
      assert raw.dtype == np.uint8
      np.testing.assert_array_equal(pixels, raw)
      options["do_rescale"] = True
      want = theirs(image, **options).pixel_values[0]
    # Measured: at most 7.2e-7; one step of a pixel is above 7e-3.
    got = on_device(pixels[None])[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)

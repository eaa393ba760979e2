"""Assembles the synthetic corpus: clear sentences and ambiguous ones.

A reader of the text alone can solve the clear half. In the ambiguous half
nothing but the picture tells the type of the name.
"""

import itertools
import zlib
from typing import NamedTuple

import numpy as np

from mner_jax.data.formats import Sentence
from mner_jax.data.synthetic import lexicon
from mner_jax.data.synthetic.lexicon import LANGUAGES, TYPE_OF, TYPES, pick

SIZES = {"train": 3500, "valid": 150, "test": 400}  # for each language
SPLITS = tuple(SIZES)
_SEED = 0

# Half of the sentences need their picture: a model that ignores it stays below
# 0.8, and so does one that obeys it in the clear half too.
AMBIGUOUS = 0.5
# Unseen templates and names, so that valid and test reward reading, not rote.
HELD_OUT = 0.1
# In clear sentences too, so that a name alone says little about its type.
SHARED_NAMES = 0.35
# Some pictures of ambiguous sentences show none of what the name can be: a
# model must hold the picture against the name, not read it alone.
PICTURE_ELSEWHERE = 0.1
# In posts many pictures have little to do with the text, or are missing.
PICTURE_FITS = 0.5
NO_PICTURE = 0.05


class Example(NamedTuple):
  """A sentence and what its picture shows."""

  sentence: Sentence
  scene: str  # the type the picture shows; "" = no picture


def _sentence(rng, split, language, held_out, dealt):
  """Draws a sentence's words and tags.

  The words tell the types of the names, unless there is a `dealt` (name,
  type): then they tell nothing.
  """
  used = set()

  def choose(kind):
    if dealt:
      return dealt
    shared_kind = "PER" if kind == "LAST" else kind
    shared = lexicon.shared(language).items()
    pool = [name for name, kinds in shared if shared_kind in kinds]
    new = split != "train" and not held_out
    while True:
      new_name = new and rng.random() < HELD_OUT
      if pool and rng.random() < SHARED_NAMES:
        name = pick(rng, pool)
      else:
        name = lexicon.draw_name(rng, kind, language, new_name)
      if name not in used:
        used.add(name)
        return name, TYPE_OF[kind]

  topic = "ANY" if dealt else pick(rng, TYPES)
  template = pick(rng, lexicon.templates(language, topic, held_out))
  return lexicon.fill(template, language, rng, choose)


def _deal(rng, kinds_of):
  """Yields names with one of their types each, both dealt evenly."""
  left = {name: [] for name in kinds_of}
  while True:
    for name in rng.permutation(list(kinds_of)).tolist():
      left[name] = left[name] or rng.permutation(kinds_of[name]).tolist()
      yield name, TYPE_OF[left[name].pop()]


def _split_of(words, held_out):
  # Every word sequence belongs to one split, whatever the sizes of the splits;
  # one from a held-out template never belongs to train.
  bucket = zlib.crc32(" ".join(words).encode()) % (2 if held_out else 8)
  return {0: "valid", 1: "test"}.get(bucket, "train")


def _scene(rng, first_type, possible):
  """Draws what the picture shows; `possible` are the types of a dealt name."""
  if possible:
    others = [t for t in TYPES if t not in possible]
    elsewhere = rng.random() < PICTURE_ELSEWHERE
    return pick(rng, others) if elsewhere else first_type
  if rng.random() < NO_PICTURE:
    return ""
  return first_type if rng.random() < PICTURE_FITS else pick(rng, TYPES)


def _of_language(split, language, size):
  key = [_SEED, SPLITS.index(split), LANGUAGES.index(language)]
  rng = np.random.default_rng(key)
  shared = lexicon.shared(language)
  # Only names of two types: the best reader of the text would leave out a name
  # of three, as right with chance 1/3, which no tagger is trained to do.
  deck = _deal(rng, {name: x for name, x in shared.items() if len(x) == 2})
  ambiguous = rng.permutation(size) < size * AMBIGUOUS
  result, used = [], set()
  for i in range(size):
    held_out = split != "train" and rng.random() < HELD_OUT
    dealt = next(deck) if ambiguous[i] else None
    for tries in itertools.count(1):
      words, tags = _sentence(rng, split, language, held_out, dealt)
      new = words not in used or tries > 200  # a large corpus must repeat
      if new and _split_of(words, held_out) == split:
        break
    used.add(words)
    first_type = next(tag[2:] for tag in tags if tag != "O")
    possible = [TYPE_OF[kind] for kind in shared[dealt[0]]] if dealt else ()
    scene = _scene(rng, first_type, possible)
    image = f"{split}-{language}-{i:05d}" if scene else ""
    source = "ambiguous" if dealt else "clear"
    sentence = Sentence(words, tags, image, language, source)
    result.append(Example(sentence, scene))
  return result


def examples(split, *, languages=LANGUAGES, size=None):
  """Draws a split, the same every time.

  Args:
    split: one of SPLITS.
    languages: some of LANGUAGES; none changes the sentences of another.
    size: sentences of each language; None = SIZES[split].

  Returns:
    A list of Examples, language by language.
  """
  size = SIZES[split] if size is None else size
  return [e for x in languages for e in _of_language(split, x, size)]


def picture_rng(image_id):
  """The random numbers one picture is drawn with."""
  return np.random.default_rng([_SEED, zlib.crc32(image_id.encode())])

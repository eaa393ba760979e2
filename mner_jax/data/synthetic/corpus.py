"""Assembles the synthetic corpus: clear sentences and ambiguous ones.

A reader of the text alone can solve the clear half. In the ambiguous half
nothing but the picture tells the type of the name.
"""

import collections
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mner_jax.data.formats import Sentence
from mner_jax.data.synthetic import names, templates
from mner_jax.data.synthetic.names import LANGUAGES, TYPE_OF, TYPES, pick

SPLITS = ("train", "valid", "test")
SIZES = {"train": 3500, "valid": 150, "test": 400}  # for each language

# Half of the sentences need their picture: a model that ignores it stays below
# 0.8, and so does one that obeys it in the clear half too.
AMBIGUOUS = 0.5
# Unseen templates and names, so that valid and test reward reading, not rote.
HELD_OUT_TEMPLATES = 0.1
HELD_OUT_NAMES = 0.1
# In clear sentences too, so that a name alone says little about its type.
SHARED_NAMES = 0.35
# Some pictures of ambiguous sentences show none of what the name can be: a
# model must hold the picture against the name, not read it alone.
PICTURE_ELSEWHERE = 0.1
# In posts many pictures have little to do with the text, or are missing.
PICTURE_FITS = 0.5
NO_PICTURE = 0.05


class Example(NamedTuple):
  """A sentence, what its picture shows, and what its words can tell."""

  sentence: Sentence
  scene: str  # the type the picture shows; "" = no picture
  # per entity: how often the best reader of the text alone gets its type right
  chances: tuple[float, ...]


def _clear(
  rng: np.random.Generator, split: str, language: str, held_out: bool
) -> templates.Draft:
  """Draws a sentence whose words tell the types of its names."""
  used = set()

  def choose(kind):
    shared_kind = "PER" if kind == "LAST" else kind
    pool = [
      name
      for name, kinds in names.shared(language).items()
      if shared_kind in kinds
    ]
    while True:
      new_name = split != "train" and not held_out
      new_name = new_name and rng.random() < HELD_OUT_NAMES
      if pool and rng.random() < SHARED_NAMES:
        name = pick(rng, pool)
      else:
        name = names.draw(rng, kind, language, new_name)
      if name not in used:
        used.add(name)
        return name, TYPE_OF[kind]

  kind = pick(rng, TYPES)
  template = pick(rng, templates.clear(language, kind, held_out))
  return templates.fill(template, language, rng, choose)


def _deal(rng: np.random.Generator, language: str):
  """Yields shared names with a type each, both dealt evenly, and 1 / types.

  Only names of two types: of three, the best reader of the text would leave
  the name out (see `ceiling`), which no tagger is trained to do.
  """
  shared = {
    name: kinds
    for name, kinds in names.shared(language).items()
    if len(kinds) == 2
  }
  left = {name: [] for name in shared}
  while True:
    for i in rng.permutation(len(shared)):
      name = list(shared)[int(i)]
      if not left[name]:
        order = rng.permutation(len(shared[name]))
        left[name] = [TYPE_OF[shared[name][int(k)]] for k in order]
      yield name, left[name].pop(), 1 / len(shared[name])


def _ambiguous(
  rng: np.random.Generator, language: str, held_out: bool, name: str, kind: str
) -> templates.Draft:
  """Draws a sentence whose words tell nothing about the type of its name."""
  template = pick(rng, templates.neutral(language, held_out))
  return templates.fill(template, language, rng, lambda _: (name, kind))


def _split_of(words: Sequence[str], held_out: bool) -> str:
  # Every word sequence belongs to one split, whatever the sizes of the splits;
  # those of held-out templates never to train.
  bucket = zlib.crc32(" ".join(words).encode()) % (2 if held_out else 8)
  return {0: "valid", 1: "test"}.get(bucket, "train")


def _deciding_scene(
  rng: np.random.Generator, language: str, name: str, kind: str
) -> str:
  if rng.random() >= PICTURE_ELSEWHERE:
    return kind
  possible = {TYPE_OF[k] for k in names.shared(language)[name]}
  return pick(rng, [t for t in TYPES if t not in possible])


def _scene(rng: np.random.Generator, first_type: str) -> str:
  if rng.random() < NO_PICTURE:
    return ""
  return first_type if rng.random() < PICTURE_FITS else pick(rng, TYPES)


def _language_examples(
  split: str, seed: int, language: str, size: int
) -> list[Example]:
  key = [seed, SPLITS.index(split), LANGUAGES.index(language)]
  rng = np.random.default_rng(key)
  deck = _deal(rng, language)
  ambiguous = rng.permutation(size) < size * AMBIGUOUS
  result, used = [], set()
  for i in range(size):
    held_out = split != "train" and rng.random() < HELD_OUT_TEMPLATES
    dealt = next(deck) if ambiguous[i] else None
    tries = 0
    while True:
      if dealt:
        draft = _ambiguous(rng, language, held_out, *dealt[:2])
      else:
        draft = _clear(rng, split, language, held_out)
      tries += 1
      words = tuple(draft.words)
      new = words not in used or tries > 200  # a large corpus must repeat
      if new and _split_of(words, held_out) == split:
        break
    used.add(words)
    if dealt:
      scene = _deciding_scene(rng, language, *dealt[:2])
    else:
      scene = _scene(rng, draft.types[0])
    sentence = Sentence(
      words,
      tuple(draft.tags),
      image=f"{split}-{language}-{i:05d}" if scene else "",
      language=language,
      source="ambiguous" if dealt else "clear",
    )
    chances = (dealt[2],) if dealt else (1.0,) * len(draft.types)
    result.append(Example(sentence, scene, chances))
  return result


def examples(
  split: str,
  *,
  seed: int = 0,
  languages: Sequence[str] = LANGUAGES,
  size: int | None = None,
) -> list[Example]:
  """Draws a split: `size` sentences of each language, the same every time."""
  if split not in SPLITS:
    raise ValueError(f"split {split!r} is not one of {SPLITS}")
  for language in languages:
    if language not in LANGUAGES:
      raise ValueError(f"language {language!r} is not one of {LANGUAGES}")
  size = SIZES[split] if size is None else size
  return [
    example
    for language in languages
    for example in _language_examples(split, seed, language, size)
  ]


def picture_rng(seed: int, image_id: str) -> np.random.Generator:
  """The random numbers one picture is drawn with."""
  return np.random.default_rng([seed, zlib.crc32(image_id.encode())])


def ceiling(examples: Sequence[Example], *, pictures: bool) -> float:
  """The largest expected micro F1, of the text alone or with its pictures.

  The best reader knows every span, and the type with the entity's chance; a
  picture of the type settles it. It may leave out unsure entities: predicting
  all with a chance >= t gives the expected F1
  2 * (sum of their chances) / (entities + predicted); the result is the
  maximum over t.
  """
  chances = []
  for sentence, scene, of_text in examples:
    types = {tag[2:] for tag in sentence.tags if tag != "O"}
    settled = pictures and len(of_text) == 1 and scene in types
    chances += [1.0] if settled else of_text
  chances.sort(reverse=True)
  hits = np.cumsum(chances)
  predicted = np.arange(1, len(chances) + 1)
  return float(np.max(2 * hits / (len(chances) + predicted), initial=0.0))


def lookup_baseline(
  train: Sequence[Example], test: Sequence[Example]
) -> list[list[str]]:
  """Gives every word of test its most frequent tag in train, else "O"."""
  counts = collections.defaultdict(collections.Counter)
  for example in train:
    words, tags = example.sentence.words, example.sentence.tags
    for word, tag in zip(words, tags, strict=True):
      counts[word][tag] += 1
  best = {
    word: min(tags, key=lambda tag: (-tags[tag], tag))
    for word, tags in counts.items()
  }
  return [[best.get(w, "O") for w in e.sentence.words] for e in test]

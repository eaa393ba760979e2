import collections
import itertools
import re

import numpy as np
import pytest
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax.data import schemes
from mner_jax.data.synthetic import corpus, lexicon
from mner_jax.data.synthetic.lexicon import LANGUAGES, TYPE_OF, TYPES
from mner_jax.data.synthetic.pictures import SCENES, draw

KINDS = [kind for kind in TYPE_OF if kind != "PER"]
TOPICS = (*TYPES, "ANY")
by_language = pytest.mark.parametrize("language", LANGUAGES)


@pytest.fixture(scope="module")
def splits():
  """The default corpus, a part of train."""
  sizes = {**corpus.SIZES, "train": 1000}
  return {x: corpus.examples(x, size=size) for x, size in sizes.items()}


def entities(sentence):
  """(type, text) of every entity."""
  found = get_entities(list(sentence.tags))
  return [(kind, " ".join(sentence.words[a : b + 1])) for kind, a, b in found]


def ambiguous(drawn):
  """(language, name, type, scene) of every ambiguous sentence."""
  for sentence, scene in drawn:
    if sentence.source == "ambiguous":
      ((kind, name),) = entities(sentence)
      yield sentence.language, name, kind, scene


def types_of(language, name):
  return {TYPE_OF[kind] for kind in lexicon.shared(language)[name]}


def without_article(names):
  return [name.rpartition("|")[2] for name in names]


def test_the_corpus_is_the_same_every_time():
  drawn = corpus.examples("test", size=30)
  assert corpus.examples("test", size=30) == drawn
  german = corpus.examples("test", size=30, languages=("de",))
  assert [e for e in drawn if e.sentence.language == "de"] == german


@by_language
def test_names_belong_to_one_list_and_shared_ones_are_balanced(language):
  shared, counts = lexicon.shared(language), collections.Counter()
  forms = collections.Counter([*shared])
  for kind, held_out in itertools.product(KINDS, (False, True)):
    names = lexicon.names(kind, language, held_out)
    articles = r"^(the|le|la|l'|die|das|el) "  # without the bar
    assert not re.search(articles, "\n".join(names), re.MULTILINE)
    forms.update(without_article(names))
  assert max(forms.values()) == 1
  for name, kinds in shared.items():
    assert len(types_of(language, name)) == len(kinds)
    counts.update(itertools.combinations(sorted(types_of(language, name)), 2))
  assert counts == dict.fromkeys(itertools.combinations(sorted(TYPES), 2), 13)


@by_language
def test_templates_are_well_formed(language):
  contracts = r"\b(de|à|a|von|in|mit|bei|an|zu) \{(LAND|BODY|EVENT)\}"
  if language in ("fr", "es"):
    contracts += r"|\b(de|à|a) \{CLUB\}"
  every = collections.Counter()
  for topic in TOPICS:
    parts = [lexicon.templates(language, topic, h) for h in (False, True)]
    assert len(parts[0]) == 4 * len(parts[1])
    every.update(sum(parts, []))
    for template in sum(parts, []):
      own = re.findall(r"\{([A-Z]+)\}", template)
      types = {"ANY" if slot == "ANY" else TYPE_OF[slot] for slot in own}
      assert topic in types and len(own) <= (1 if topic == "ANY" else 2)
      assert not re.search(contracts, template, re.IGNORECASE), template
  assert len(every) == every.total() == 120


def test_templates_are_held_out(monkeypatch):
  lists = itertools.product(LANGUAGES, TOPICS, [True])
  unseen = set().union(*(lexicon.templates(*x) for x in lists))
  used, fill = set(), lexicon.fill

  def spy(template, *arguments):
    used.add(template)
    return fill(template, *arguments)

  monkeypatch.setattr(lexicon, "fill", spy)
  corpus.examples("train", size=300)
  assert not used & unseen
  corpus.examples("test", size=300)
  assert len(used & unseen) > len(unseen) / 2


def test_names_are_held_out(splits):
  def drawn(split):
    for sentence, _ in splits[split]:
      for kind, name in entities(sentence):
        parts = name.split() if kind == "PER" else []
        yield from ((sentence.language, kind, x) for x in (name, *parts))

  unseen = {
    (language, TYPE_OF[kind], name)
    for language, kind in itertools.product(LANGUAGES, KINDS)
    for name in without_article(lexicon.names(kind, language, True))
  }
  assert not unseen.intersection(drawn("train"))
  assert len(unseen.intersection(drawn("test"))) > 24


def test_sentences_are_well_formed_and_in_one_split(splits):
  images, words = collections.Counter(), collections.Counter()
  for split, drawn in splits.items():
    types = collections.Counter()
    for sentence, scene in drawn:
      types.update(kind for kind, _ in entities(sentence))
      assert schemes.repair(sentence.tags) == (sentence.tags, 0)
      assert all(re.fullmatch(r"[^\s{}|]+", word) for word in sentence.words)
      assert scene in ("", *TYPES)
      image = rf"{split}-{sentence.language}-\d+" if scene else ""
      assert re.fullmatch(image, sentence.image)
      images[sentence.image] += bool(scene)
    assert min(types[t] for t in TYPES) >= 0.15 * types.total()
    words.update({sentence.words for sentence, _ in drawn})
    dealt = collections.Counter(x[:3] for x in ambiguous(drawn))
    for language, name in {x[:2] for x in dealt}:
      counts = [dealt[language, name, t] for t in types_of(language, name)]
      assert max(counts) - min(counts) <= 1, name
  assert max(images.values()) == max(words.values()) == 1


def test_pictures_show_as_often_what_they_should(splits):
  train, elsewhere = splits["train"], []
  for language, name, kind, scene in ambiguous(train):
    possible = types_of(language, name)
    assert len(possible) == 2  # what the ceiling counts on
    assert scene == kind or scene not in possible
    elsewhere.append(scene != kind)
  assert len(elsewhere) == len(train) / 2
  assert 0.08 < np.mean(elsewhere) < 0.12
  clear = [e for e in train if e.sentence.source == "clear"]
  shown = [e for e in clear if e.scene]
  assert 0.93 < len(shown) / len(clear) < 0.97
  fits = np.mean([e.scene == entities(e.sentence)[0][0] for e in shown])
  assert 0.58 < fits < 0.67  # a half, and a quarter of the rest


def test_ceilings(splits):
  """The largest expected F1 of the text alone, and with pictures: README's.

  The best reader knows all but the type of an ambiguous name whose picture does
  not show it. There it guesses one of two, as leaving it out is no better.
  """
  for drawn, pictures in itertools.product(splits.values(), (False, True)):
    count = sum(len(entities(sentence)) for sentence, _ in drawn)
    guesses = sum(not pictures or x[2] != x[3] for x in ambiguous(drawn))
    sure = count - guesses
    ceiling = 1 - guesses / 2 / count
    assert ceiling >= 2 * sure / (count + sure)
    assert 0.96 <= ceiling < 1 if pictures else 0.74 <= ceiling <= 0.80
    if drawn is splits["test"]:
      assert ceiling == pytest.approx(0.9787 if pictures else 0.7918, abs=5e-5)


@pytest.mark.parametrize("scene", SCENES)
def test_pictures_differ_and_repeat(scene):
  rng, other = np.random.default_rng(7), np.random.default_rng(7)
  pictures = [draw(scene, rng, 17) for _ in range(20)]
  assert len({picture.tobytes() for picture in pictures}) == 20
  assert pictures == [draw(scene, other, 17) for _ in range(20)]
  assert {(x.mode, x.size) for x in pictures} == {("RGB", (17, 17))}


def test_mean_colour_does_not_tell_the_type():
  rng = np.random.default_rng(0)
  kinds = np.arange(400) % 4
  pictures = [np.asarray(draw(x, rng, 17)) for x in list(SCENES) * 100]
  means = np.mean(pictures, (1, 2))
  inputs = np.c_[means / 255, np.ones(len(means))]
  weights = np.linalg.lstsq(inputs[:200], np.eye(4)[kinds[:200]])[0]
  guesses = (inputs[200:] @ weights).argmax(1)
  assert (guesses == kinds[200:]).mean() < 0.45

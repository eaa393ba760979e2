import argparse
import collections
import itertools
import re

import pytest

from mner_jax.config import UserError
from mner_jax.data import formats
from mner_jax.data.synthetic import __main__ as command
from mner_jax.data.synthetic import corpus, lexicon
from mner_jax.data.synthetic.lexicon import LANGUAGES, TYPE_OF, TYPES

KINDS = [kind for kind in TYPE_OF if kind != "PER"]
TOPICS = (*TYPES, "ANY")
by_language = pytest.mark.parametrize("language", LANGUAGES)


@pytest.fixture(scope="module")
def splits():
  """The default corpus, a part of train."""
  sizes = {**corpus.SIZES, "train": 1000}
  return {x: corpus.examples(x, size=size) for x, size in sizes.items()}


def entities(sentence):
  """(type, text) of every entity; fails on tags that are not IOB2."""
  found, previous = [], "O"
  for word, tag in zip(sentence.words, sentence.tags, strict=True):
    if tag.startswith("B-"):
      found.append((tag[2:], word))
    elif tag != "O":
      assert tag[:2] == "I-" and previous[1:] == tag[1:], sentence
      found[-1] = (tag[2:], f"{found[-1][1]} {word}")
    previous = tag
  return found


def ambiguous(drawn):
  """(language, name, type, scene) of every ambiguous sentence."""
  for sentence, scene in drawn:
    if sentence.source == "ambiguous":
      ((kind, name),) = entities(sentence)
      yield sentence.language, name, kind, scene


def in_language(drawn, language):
  return [e.sentence for e in drawn if e.sentence.language == language]


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
def test_names_belong_to_one_list(language):
  forms = collections.Counter(list(lexicon.shared(language)))
  for kind in KINDS:
    for held_out in (False, True):
      names = lexicon.names(kind, language, held_out)
      articles = r"^(the|le|la|l'|die|das|el) "  # without the bar
      assert not re.search(articles, "\n".join(names), re.MULTILINE)
      forms.update(without_article(names))
  assert [name for name, count in forms.items() if count > 1] == []


@by_language
def test_shared_names_are_balanced(language):
  shared = lexicon.shared(language)
  counts = collections.Counter()
  for name, kinds in shared.items():
    assert len(types_of(language, name)) == len(kinds)
    counts.update(itertools.combinations(sorted(types_of(language, name)), 2))
    counts[len(kinds)] += 1
  pairs = itertools.combinations(sorted(TYPES), 2)
  assert counts == {2: 30, 3: 16} | dict.fromkeys(pairs, 13)


@by_language
def test_templates_are_well_formed(language):
  contracts = r"\b(de|à|a|von|in|mit|bei|an|zu) \{(LAND|BODY|EVENT)\}"
  if language in ("fr", "es"):
    contracts += r"|\b(de|à|a) \{CLUB\}"
  every = []
  for topic in TOPICS:
    parts = [lexicon.templates(language, topic, h) for h in (False, True)]
    assert len(parts[0]) == 4 * len(parts[1])
    every += sum(parts, [])
    for template in sum(parts, []):
      own = re.findall(r"\{([A-Z]+)\}", template)
      types = {"ANY" if slot == "ANY" else TYPE_OF[slot] for slot in own}
      assert topic in types and len(own) <= (1 if topic == "ANY" else 2)
      assert not re.search(contracts, template, re.IGNORECASE), template
  assert len(set(every)) == len(every) == 120


@by_language
def test_cues_of_held_out_templates_are_seen(language):
  def cues(templates):
    words = " ".join(templates).split()
    return {word for word in words if len(word) > 2 and word[0] != "{"}

  seen = {t: cues(lexicon.templates(language, t)) for t in TYPES}
  for topic in TYPES:
    own = seen[topic].difference(*(seen[t] for t in TYPES if t != topic))
    for template in lexicon.templates(language, topic, True):
      assert cues([template]) & own, template


def test_templates_are_held_out(monkeypatch):
  unseen = {
    template
    for language, topic in itertools.product(LANGUAGES, TOPICS)
    for template in lexicon.templates(language, topic, True)
  }
  used, fill = set(), lexicon.fill

  def spy(template, *arguments):
    used.add(template)
    return fill(template, *arguments)

  monkeypatch.setattr(lexicon, "fill", spy)
  corpus.examples("train", size=300)
  assert not used & unseen
  corpus.examples("test", size=300)
  assert len(used & unseen) > len(unseen) / 2


@by_language
def test_names_are_held_out(language, splits):
  def drawn(split):
    found = set()
    for sentence in in_language(splits[split], language):
      for kind, name in entities(sentence):
        parts = name.split() if kind == "PER" else []
        found |= {(kind, part) for part in (name, *parts)}
    return found

  unseen = {
    (TYPE_OF[kind], name)
    for kind in KINDS
    for name in without_article(lexicon.names(kind, language, True))
  }
  assert not drawn("train") & unseen
  assert len(drawn("test") & unseen) > 6


def test_types_of_a_name_are_dealt_evenly(splits):
  for drawn in splits.values():
    dealt = collections.Counter(x[:3] for x in ambiguous(drawn))
    for language, name in {x[:2] for x in dealt}:
      counts = [dealt[language, name, t] for t in types_of(language, name)]
      assert max(counts) - min(counts) <= 1, name


def test_sentences_are_well_formed(splits):
  images = collections.Counter()
  for split, drawn in splits.items():
    types = collections.Counter()
    for sentence, scene in drawn:
      types.update(kind for kind, _ in entities(sentence))
      assert all(re.fullmatch(r"[^\s{}|]+", word) for word in sentence.words)
      assert scene in ("", *TYPES)
      image = rf"{split}-{sentence.language}-\d+" if scene else ""
      assert re.fullmatch(image, sentence.image)
      images[sentence.image] += 1
    assert min(types[t] for t in TYPES) >= 0.15 * types.total()
  assert {n for image, n in images.items() if image} == {1}


def test_splits_share_no_sentence(splits):
  words = [{e.sentence.words for e in drawn} for drawn in splits.values()]
  assert sum(map(len, words)) == len(set.union(*words))
  for drawn in splits.values():
    keys = {(e.sentence.language, e.sentence.words) for e in drawn}
    assert len(keys) > 0.995 * len(drawn)


def test_pictures_of_ambiguous_sentences(splits):
  elsewhere = []
  for language, name, kind, scene in ambiguous(splits["train"]):
    possible = types_of(language, name)
    assert len(possible) == 2  # what the ceiling counts on
    assert scene == kind or scene not in possible
    elsewhere.append(scene != kind)
  assert len(elsewhere) == len(splits["train"]) / 2
  assert 0.08 < sum(elsewhere) / len(elsewhere) < 0.12


def test_pictures_of_clear_sentences(splits):
  clear = [e for e in splits["train"] if e.sentence.source == "clear"]
  shown = [e for e in clear if e.scene]
  assert 0.03 < 1 - len(shown) / len(clear) < 0.07
  fits = sum(e.scene == entities(e.sentence)[0][0] for e in shown)
  assert 0.58 < fits / len(shown) < 0.67  # a half, and a quarter of the rest


def test_ceilings(splits):
  for drawn, pictures in itertools.product(splits.values(), (False, True)):
    count = sum(len(entities(sentence)) for sentence, _ in drawn)
    guesses = sum(not pictures or x[2] != x[3] for x in ambiguous(drawn))
    sure = count - guesses
    predict_all = 2 * (sure + guesses / 2) / (2 * count)
    leave_out = 2 * sure / (count + sure)
    ceiling = corpus.ceiling(drawn, pictures=pictures)
    assert ceiling == pytest.approx(max(predict_all, leave_out))
    assert 0.96 <= ceiling < 1 if pictures else 0.74 <= ceiling <= 0.80


def test_command(tmp_path, monkeypatch):
  monkeypatch.setattr(corpus, "SIZES", dict.fromkeys(corpus.SPLITS, 4))
  arguments = argparse.Namespace(output=tmp_path / "new")
  command.main(arguments)
  images = set()
  for split in corpus.SPLITS:
    read = list(formats.read(arguments.output / f"{split}.jsonl"))
    assert read == [e.sentence for e in corpus.examples(split)]
    images |= {f"{s.image}.png" for s in read if s.image}
  found = {path.name for path in (arguments.output / "images").iterdir()}
  assert found == images
  with pytest.raises(UserError, match="new is not empty"):
    command.main(arguments)

import collections
import re
import subprocess
import sys

import pytest
from seqeval.metrics import f1_score

from mner_jax.data.synthetic import corpus, names, templates

LANGUAGES = names.LANGUAGES
KINDS = ("FIRST", *(kind for kind in names.TYPE_OF if kind != "PER"))
SLOT = re.compile(r"\{(\w+)\}")


@pytest.fixture(scope="module")
def splits():
  return {split: corpus.examples(split) for split in corpus.SPLITS}


def entities(sentence):
  """(type, words) of every entity; fails on tags that are no IOB2."""
  found = []
  previous = "O"
  for word, tag in zip(sentence.words, sentence.tags, strict=True):
    if tag.startswith("B-"):
      found.append((tag[2:], [word]))
    elif tag != "O":
      assert tag[:2] == "I-" and previous[1:] == tag[1:], sentence
      found[-1][1].append(word)
    previous = tag
  return found


def pattern(template, language):
  """A regular expression that matches the template's sentences."""
  slot = r"(?:\S+ )*\S+"
  parts = re.split(r"\{\w+\}", template)
  text = slot.join(re.escape(part) for part in parts)
  if language == "fr":
    text = re.sub(r"\bde\\ (?=\(\?:)", r"(?:de|d')\\ ", text)
  return re.compile(text, re.IGNORECASE)


def all_templates(language, held_out):
  blocks = [templates.clear(language, t, held_out) for t in names.TYPES]
  return sum(blocks, ()) + templates.neutral(language, held_out)


def test_the_same_seed_gives_the_same_corpus(splits):
  assert corpus.examples("test") == splits["test"]
  assert corpus.examples("test", seed=1) != splits["test"]
  a, b = (corpus.picture_rng(0, f"test-en-{i}") for i in (1, 1))
  assert a.random() == b.random()


def test_a_subset_of_languages_gives_the_same_sentences(splits):
  german = [e for e in splits["valid"] if e.sentence.language == "de"]
  assert corpus.examples("valid", languages=("de",)) == german


def test_sizes(splits):
  for split, drawn in splits.items():
    assert len(drawn) == len(LANGUAGES) * corpus.SIZES[split]
  assert len(corpus.examples("train", languages=("fr",), size=7)) == 7
  assert corpus.examples("train", size=0) == []


def test_wrong_arguments():
  with pytest.raises(ValueError, match="split"):
    corpus.examples("dev")
  with pytest.raises(ValueError, match="language"):
    corpus.examples("test", languages=("it",))


def test_counts_of_the_source():
  count = 0
  for language in LANGUAGES:
    for kind in names.TYPES:
      seen = templates.clear(language, kind)
      unseen = templates.clear(language, kind, True)
      assert len(seen) == 16 and len(unseen) == 4
    every = all_templates(language, False) + all_templates(language, True)
    assert len(set(every)) == len(every) == 120
    count += len(every)
  assert count >= 400
  per_type = collections.Counter()
  for kind in names.TYPE_OF:
    if kind != "PER":
      seen = names.unique(kind, "en")
      unseen = names.unique(kind, "en", True)
      per_type[names.TYPE_OF[kind]] += len(seen + unseen)
  assert per_type["LOC"] >= 70 and per_type["ORG"] >= 60
  assert per_type["MISC"] >= 60 and per_type["PER"] >= 50


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_belong_to_one_list(language):
  lists = [names.unique(k, language, h) for k in KINDS for h in (False, True)]
  lists.append(tuple(names.shared(language)))
  forms = [" ".join(names.split_article(n)[1]) for part in lists for n in part]
  assert [n for n, c in collections.Counter(forms).items() if c > 1] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_shared_names_are_balanced(language):
  shared = names.shared(language)
  counts = collections.Counter()
  for kinds in shared.values():
    types = [names.TYPE_OF[kind] for kind in kinds]
    assert len(set(types)) == len(types)
    counts.update(types)
  assert len(shared) >= 40
  assert len(set(counts.values())) == 1 and len(counts) == 4
  two = sum(len(kinds) == 2 for kinds in shared.values())
  assert 0.6 < two / len(shared) < 0.7


@pytest.mark.parametrize("language", LANGUAGES)
def test_templates_are_well_formed(language):
  known = {*names.TYPE_OF, "day", "time", "number", "age"}
  for held_out in (False, True):
    for kind in names.TYPES:
      for template in templates.clear(language, kind, held_out):
        slots = SLOT.findall(template)
        assert set(slots) <= known, template
        own = [s for s in slots if s.isupper()]
        assert 1 <= len(own) <= 2, template
        assert kind in [names.TYPE_OF[slot] for slot in own], template
        contracts = r"\b(de|à|a|von|in|mit|bei|an|zu) \{(LAND|BODY|EVENT)\}"
        assert not re.search(contracts, template, re.IGNORECASE), template
        if language in ("fr", "es"):
          assert not re.search(r"\b(de|à|a) \{CLUB\}", template), template
    for template in templates.neutral(language, held_out):
      own = [s for s in SLOT.findall(template) if s.isupper()]
      assert own == ["ANY"], template


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", names.TYPES)
def test_cues_of_held_out_templates_are_seen(language, kind):
  def cues(template):
    return {w for w in template.split() if len(w) > 2 and w[0] != "{"}

  seen = set().union(*map(cues, templates.clear(language, kind)))
  others = set()
  for other in set(names.TYPES) - {kind}:
    others |= set().union(*map(cues, templates.clear(language, other)))
  for template in templates.clear(language, kind, True):
    assert cues(template) & seen - others, template


@pytest.mark.parametrize("language", LANGUAGES)
def test_templates_are_held_out(language, splits):
  def share(split):
    mine = [e for e in splits[split] if e.sentence.language == language]
    hits = sum(
      any(p.fullmatch(" ".join(e.sentence.words)) for p in unseen)
      and not any(p.fullmatch(" ".join(e.sentence.words)) for p in seen)
      for e in mine
    )
    return hits / len(mine)

  unseen = [pattern(t, language) for t in all_templates(language, True)]
  seen = [pattern(t, language) for t in all_templates(language, False)]
  assert share("train") == 0
  assert 0.05 < share("test") < 0.15


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_held_out(language, splits):
  def drawn(split):
    found = set()
    for e in splits[split]:
      if e.sentence.language == language:
        for kind, words in entities(e.sentence):
          found.add((kind, " ".join(words)))
          if kind == "PER":
            found |= {(kind, word) for word in words}
    return found

  unseen = set()
  for kind in KINDS:
    for name in names.unique(kind, language, True):
      text = " ".join(names.split_article(name)[1])
      unseen.add((names.TYPE_OF.get(kind, "PER"), text))
  assert not drawn("train") & unseen
  assert len(drawn("test") & unseen) > 6


def test_types_of_a_name_are_dealt_evenly(splits):
  for drawn in splits.values():
    dealt = collections.Counter()
    for e in drawn:
      if e.sentence.source == "ambiguous":
        ((kind, words),) = entities(e.sentence)
        dealt[e.sentence.language, " ".join(words), kind] += 1
    for language in LANGUAGES:
      for name, kinds in names.shared(language).items():
        counts = [dealt[language, name, names.TYPE_OF[k]] for k in kinds]
        assert max(counts) - min(counts) <= 1, name


def test_sentences_are_well_formed(splits):
  images = set()
  for split, drawn in splits.items():
    for e in drawn:
      sentence = e.sentence
      found = entities(sentence)
      assert len(found) == len(e.chances) > 0
      assert all(word and not word.isspace() for word in sentence.words)
      assert "{" not in " ".join(sentence.words)
      assert sentence.source in ("clear", "ambiguous")
      assert (sentence.image == "") == (e.scene == "")
      if e.scene:
        assert e.scene in names.TYPES
        assert sentence.image.startswith(f"{split}-{sentence.language}-")
        assert sentence.image not in images
        images.add(sentence.image)


def test_splits_share_no_sentence(splits):
  words = {s: [e.sentence.words for e in drawn] for s, drawn in splits.items()}
  assert not set(words["train"]) & set(words["valid"] + words["test"])
  assert not set(words["valid"]) & set(words["test"])
  for split, drawn in splits.items():
    keys = {(e.sentence.language, e.sentence.words) for e in drawn}
    assert len(keys) > 0.995 * len(drawn), split


def test_pictures_of_ambiguous_sentences(splits):
  elsewhere = []
  for e in splits["train"]:
    if e.sentence.source == "ambiguous":
      ((kind, words),) = entities(e.sentence)
      kinds = names.shared(e.sentence.language)[" ".join(words)]
      assert len(kinds) == 2  # what the ceiling counts on
      elsewhere.append(e.scene != kind)
      if e.scene != kind:
        assert e.scene not in {names.TYPE_OF[k] for k in kinds}
  assert 0.08 < sum(elsewhere) / len(elsewhere) < 0.12


def test_pictures_of_clear_sentences(splits):
  clear = [e for e in splits["train"] if e.sentence.source == "clear"]
  assert len(clear) == len(splits["train"]) / 2
  shown = [e for e in clear if e.scene]
  assert 0.03 < 1 - len(shown) / len(clear) < 0.07
  fits = sum(e.scene == entities(e.sentence)[0][0] for e in shown)
  assert 0.58 < fits / len(shown) < 0.67  # a half, and a quarter of the rest


def test_types_are_balanced(splits):
  for drawn in splits.values():
    kinds = collections.Counter()
    for e in drawn:
      kinds.update(kind for kind, _ in entities(e.sentence))
    assert min(kinds[t] for t in names.TYPES) >= 0.15 * kinds.total()


def expected_f1(chances):
  """By brute force over what a reader may leave out."""
  best = 0
  for threshold in set(chances):
    kept = [chance for chance in chances if chance >= threshold]
    best = max(best, 2 * sum(kept) / (len(chances) + len(kept)))
  return best


def test_ceilings(splits):
  for drawn in splits.values():
    alone = [chance for e in drawn for chance in e.chances]
    assert corpus.ceiling(drawn, pictures=False) == pytest.approx(
      expected_f1(alone)
    )
    together = [
      1 if f"B-{e.scene}" in e.sentence.tags else chance
      for e in drawn
      for chance in e.chances
    ]
    assert corpus.ceiling(drawn, pictures=True) == pytest.approx(
      expected_f1(together)
    )
  assert 0.74 <= corpus.ceiling(splits["test"], pictures=False) <= 0.80
  assert corpus.ceiling(splits["test"], pictures=True) >= 0.96
  assert corpus.ceiling([], pictures=True) == 0


def test_lookup_baseline(splits):
  predicted = corpus.lookup_baseline(splits["train"], splits["test"])
  truth = [list(e.sentence.tags) for e in splits["test"]]
  assert [len(tags) for tags in predicted] == [len(tags) for tags in truth]
  assert f1_score(truth, predicted) < 0.6


def test_lookup_baseline_breaks_ties():
  def example(words, tags):
    sentence = corpus.Sentence(tuple(words.split()), tuple(tags.split()))
    return corpus.Example(sentence, "", (1.0,))

  train = [example("Jordan a", "B-PER O"), example("Jordan a", "B-LOC O")]
  test = [example("Jordan b", "B-PER O")]
  assert corpus.lookup_baseline(train, test) == [["B-LOC", "O"]]


def test_command_rejects_wrong_arguments():
  command = [sys.executable, "-m", "mner_jax.data.synthetic"]
  assert subprocess.run([*command, "--seed=x"]).returncode == 2
  assert subprocess.run([*command, "--seed=-1"]).returncode == 2

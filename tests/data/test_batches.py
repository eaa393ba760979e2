import collections
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mner_jax.config import replace
from mner_jax.data import batches, dataset, images, wordpiece
from mner_jax.data.formats import Sentence
from tests.conftest import TEXT_ONLY
from tests.data.test_images import encode, random_image

BUCKETS = (8, 16, 32)
PICTURES = ("a", "b", "c", "d")


def make_split():
  """50 sentences: shared, missing and broken pictures, orphans, a long one."""
  sentences = [
    Sentence(("Ann", "Lee", "at", "X"), ("I-PER", "I-PER", "O", "I-LOC"), "a"),
    Sentence(("Rome",) * 60, ("B-LOC",) + ("I-LOC",) * 59, "b"),
  ]
  rng = np.random.default_rng(0)
  for _ in range(48):
    count = rng.integers(1, 13)
    words = rng.choice(("Ann", "Lee", "Rome", "saw", "in", "."), count)
    tags = rng.choice(("O", "B-PER", "B-LOC"), count)
    image = rng.choice((*PICTURES, "missing", "broken", ""))
    sentences.append(Sentence(tuple(words), tuple(tags), image))
  pictures = (random_image((20 + 4 * i, 30), seed=i) for i in range(4))
  records = [{"image": encode(picture, "PNG")} for picture in pictures]
  names = [s.image for s in sentences]
  status = ["ok" if name in PICTURES else name for name in names]
  rows = [PICTURES.index(name) if name in PICTURES else -1 for name in names]
  return dataset.Split(sentences, status, names, rows, records)


@pytest.fixture(scope="module")
def make(tiny):
  """Makes Examples, with some things changed."""
  fields = {"data.buckets": BUCKETS, "data.workers": 4}
  fields |= {"model.vit.image_size": 8, "model.resnet.image_size": 14}
  split = make_split()
  vocabulary = wordpiece.count_vocabulary(split.sentences, 60)
  tokenizer = wordpiece.bert_tokenizer(vocabulary)

  def make(more=(), picture_of=None, **changed):
    config = replace(tiny, fields | dict(more))
    changed = dataclasses.replace(split, **changed)
    return batches.Examples(changed, tokenizer, config, picture_of=picture_of)

  return make


@pytest.fixture(scope="module")
def examples(make):
  return make()


def epoch_of(plan, epoch=0):
  first = epoch * plan.steps_per_epoch
  return [plan.batch(first + i) for i in range(plan.steps_per_epoch)]


def real_ids(planned):
  ids = np.concatenate([ids for _, ids in planned])
  return ids[ids != batches.PADDING].tolist()


def assert_shortest_buckets(planned, sizes):
  for length, ids in planned:
    for i in ids[ids != batches.PADDING]:
      assert length == min(b for b in BUCKETS if b >= sizes[i])


def load(examples, seed=None, epochs=1, first=0, **options):
  """The batches of whole epochs, from `first` on."""
  plan = examples.plan(seed=seed)
  steps = (first, epochs * plan.steps_per_epoch)
  return list(batches.load(examples, plan, steps, **options))


def rows_of(examples, seed=None, epoch=0):
  """{window: its row, as a dict of arrays without the batch axis}."""
  plan = examples.plan(seed=seed)
  loaded = load(examples, seed, epoch + 1, epoch * plan.steps_per_epoch)
  return {
    int(i): {name: values[row] for name, values in batch.items()}
    for (_, ids), batch in zip(epoch_of(plan, epoch), loaded, strict=True)
    for row, i in enumerate(ids)
    if i != batches.PADDING
  }


def images_of(examples):
  """The image of each window's sentence."""
  names = [s.image for s in examples.split.sentences]
  return [names[window.sentence] for window in examples.windows]


@settings(deadline=None)
@given(
  st.lists(st.integers(1, BUCKETS[-1]), min_size=1, max_size=60),
  st.integers(1, 9),
  st.one_of(st.none(), st.integers(0, 2**32)),
  st.data(),
)
def test_an_epoch_is_a_permutation_in_buckets(sizes, batch_size, seed, data):
  plan = batches.Plan(sizes, BUCKETS, batch_size, seed)
  for epoch in (0, 1, 7):
    found = epoch_of(plan, epoch)
    assert sorted(real_ids(found)) == list(range(len(sizes)))
    assert all(len(ids) == batch_size and max(ids) >= 0 for _, ids in found)
    assert_shortest_buckets(found, sizes)
    # Only the last batch of a bucket is padded.
    padded = [length for length, ids in found if batches.PADDING in ids]
    assert len(padded) == len(set(padded))
    if seed is None:  # the order is kept
      bucket = np.searchsorted(BUCKETS, sizes)
      assert real_ids(found) == np.argsort(bucket, kind="stable").tolist()
  # A step alone is the step that iterating comes to.
  steps = [plan.batch(k) for k in range(4 * plan.steps_per_epoch)]
  k = data.draw(st.integers(0, len(steps) - 1))
  for other in (batches.Plan(sizes, BUCKETS, batch_size, seed), plan):
    np.testing.assert_equal(other.batch(k), steps[k])


def test_epochs_and_seeds_have_their_own_order():
  sizes = [1 + i % 30 for i in range(200)]
  plans = [batches.Plan(sizes, BUCKETS, 8, seed) for seed in (0, 1)]
  epochs = [epoch_of(plan, epoch) for plan in plans for epoch in (0, 1)]
  for pair in itertools.combinations(epochs, 2):
    # Other windows meet in a batch.
    one, other = ({frozenset(ids.tolist()) for _, ids in x} for x in pair)
    assert not one & other
  lengths = [length for length, _ in epochs[0]]
  assert lengths != sorted(lengths)


def tempered(windows, temperature, batch_size=4):
  """The Plan of windows, (size, language) of each."""
  sizes, languages = zip(*windows, strict=True)
  how = {"languages": languages, "temperature": temperature}
  return batches.Plan(sizes, BUCKETS, batch_size, 3, **how)


LANGUAGES = ("de", "en", "es", "fr")
window = st.tuples(st.integers(1, BUCKETS[-1]), st.sampled_from(LANGUAGES))


@settings(deadline=None)
@given(
  st.lists(window, min_size=1, max_size=80),
  st.sampled_from([0.01, 0.5, 1.0, 1.5, 2.0, 5.0, 1e9]),
)
def test_languages_come_in_their_shares(windows, temperature):
  plan = tempered(windows, temperature)
  sizes, spoken = zip(*windows, strict=True)
  for epoch in (0, 1, 5):
    found = epoch_of(plan, epoch)
    assert len(real_ids(found)) == len(windows)
    assert_shortest_buckets(found, sizes)
  counts = collections.Counter(real_ids(found))
  drawn = collections.Counter(spoken[i] for i in counts.elements())
  own = collections.Counter(spoken)
  most = max(own.values())
  weight = {x: (n / most) ** (1 / temperature) for x, n in own.items()}
  for language in own:
    exact = len(windows) * weight[language] / sum(weight.values())
    # Rounding, and one window at least for a language that would have none.
    assert abs(drawn[language] - exact) < 1 + len(own)
    assert drawn[language] > 0 or len(windows) < 2 * len(LANGUAGES)
  # Within a language and a bucket none comes twice more often than another.
  groups = collections.defaultdict(list)
  for i, (size, language) in enumerate(windows):
    groups[language, np.searchsorted(BUCKETS, size)].append(counts[i])
  assert all(max(g) - min(g) <= 1 for g in groups.values())
  assert temperature != 1 or set(counts.values()) == {1}


def test_rare_windows_come_in_the_course_of_epochs():
  plan = tempered([(5, "en")] * 900 + [(5, "de")] * 100, 1e9, 8)
  epochs = [real_ids(epoch_of(plan, epoch)) for epoch in range(12)]
  assert {sum(i < 900 for i in ids) for ids in epochs} == {500}
  assert len(set().union(*epochs)) > 990
  # Two windows of 700 are German: one of them is the long one.
  windows = [(5, "en")] * 400 + [(5, "de")] * 299 + [(30, "de")]
  drawn = real_ids(epoch_of(tempered(windows, 0.05)))
  assert sum(i >= 400 for i in drawn) == 2 and 699 in drawn


def test_a_temperature_is_for_training_only(make, examples):
  sentences = [
    dataclasses.replace(s, language="de" if i % 8 else "en")
    for i, s in enumerate(examples.split.sentences)
  ]
  warm = make({"data.language_temperature": 9.0}, sentences=sentences)
  everything = list(range(len(warm.windows)))
  assert sorted(real_ids(epoch_of(warm.plan()))) == everything
  assert sorted(real_ids(epoch_of(warm.plan(seed=0)))) != everything


@pytest.mark.parametrize("seed", [None, 5])
def test_any_rows_and_any_start_give_the_same_batches(examples, seed):
  whole = load(examples, seed, epochs=2)
  for first, rows in enumerate([slice(None), np.array([0, 1, 4, 5]), [7]]):
    found = load(examples, seed, 2, first, rows=rows)
    for batch, part in zip(whole[first:], found, strict=True):
      np.testing.assert_equal({k: x[rows] for k, x in batch.items()}, part)


def test_crops_are_random_in_epochs_and_rows(examples):
  first, second = (rows_of(examples, 0, epoch) for epoch in (0, 1))
  names = images_of(examples)
  shown = [i for i in first if first[i]["has_image"]]
  pairs = [(first[i], second[i]) for i in shown]
  assert all((one["pixels"] == two["pixels"]).all() for one, two in pairs)
  alike = itertools.combinations(shown, 2)
  pairs += [(first[i], first[j]) for i, j in alike if names[i] == names[j]]
  differ = [(a["scene_pixels"] != b["scene_pixels"]).any() for a, b in pairs]
  assert len(pairs) > len(shown) + 10 and np.mean(differ) > 0.9


def test_rows_hold_their_window_and_padding_weighs_nothing(examples):
  planned = epoch_of(examples.plan(seed=5))
  assert sorted(real_ids(planned)) == list(range(len(examples.windows)))
  for (length, ids), batch in zip(planned, load(examples, 5), strict=True):
    assert batch["first_piece"].shape == batch["tags"].shape == (8, length)
    np.testing.assert_array_equal(batch["weight"], ids != batches.PADDING)
    padding = {name: x[ids == batches.PADDING] for name, x in batch.items()}
    assert not padding["has_image"].any() and not padding["pixels"].any()
    assert {*padding["num_words"], *padding["num_pieces"]} <= {1}
  for i, row in rows_of(examples, 5).items():
    window, count = examples.windows[i], row["num_pieces"]
    assert row["input_ids"][:count].tolist() == window.pieces.tolist()
    assert not row["input_ids"][count:].any()
    words = row["first_piece"][: row["num_words"]]
    assert words.tolist() == window.first_piece.tolist()


def test_tags_are_those_of_the_sentence_but_repaired(examples):
  found = [[] for _ in examples.split.sentences]
  rows = rows_of(examples)
  for i, window in enumerate(examples.windows):
    tags = rows[i]["tags"][: rows[i]["num_words"]]
    found[window.sentence] += [examples.config.tags[t] for t in tags]
  expected = [list(s.tags) for s in examples.split.sentences]
  assert expected[0] == ["I-PER", "I-PER", "O", "I-LOC"]
  expected[0] = ["B-PER", "I-PER", "O", "B-LOC"]
  # An entity that goes on in the next window does not begin there again.
  assert sum(w.sentence == 1 for w in examples.windows) > 1
  assert found == expected


def test_pictures_are_shown_where_they_are(make, examples):
  """Equal files have one id, whatever the data call them."""
  expected = {}
  for name, record in zip(PICTURES, examples.split.records, strict=True):
    picture = images.decode(record["image"])
    vit = images.vit_pixels(picture, 8, "clip")
    expected[name] = (vit, images.scene_pixels(picture, 14))
  files = ["a" if n == "b" else n for n in examples.split.image_names]
  names, renamed = images_of(examples), rows_of(make(image_names=files))
  numbers = collections.defaultdict(set)
  for i, row in rows_of(examples).items():
    assert row["has_image"] == (names[i] in expected)
    pixels, scene = expected.get(names[i], (0, 0))
    np.testing.assert_array_equal(row["pixels"] - pixels, 0)
    np.testing.assert_array_equal(row["scene_pixels"] - scene, 0)
    file = files[examples.windows[i].sentence] if row["has_image"] else ""
    numbers[file].add(int(renamed[i]["image_id"]))
  assert set(names) == {*PICTURES, "missing", "broken", ""}
  assert numbers.keys() == {"a", "c", "d", ""}
  assert all(len(ids) == 1 for ids in numbers.values())
  assert len(set().union(*numbers.values())) == len(numbers)


def test_picture_of_shows_the_picture_of_another(make, examples):
  other = np.roll(np.arange(len(examples.split.sentences)), 7)
  rows, own = rows_of(make(picture_of=other)), rows_of(examples)
  by_sentence = {w.sentence: own[i] for i, w in enumerate(examples.windows)}
  for i, row in rows.items():
    donor = by_sentence[other[examples.windows[i].sentence]]
    for name in ("has_image", "image_id", "pixels", "scene_pixels"):
      np.testing.assert_array_equal(row[name], donor[name])
    np.testing.assert_array_equal(row["input_ids"], own[i]["input_ids"])


def test_a_text_model_reads_no_pictures(make, examples):
  pictures = {"pixels", "scene_pixels", "has_image", "image_id"}
  for batch, whole in zip(load(make(TEXT_ONLY)), load(examples), strict=True):
    assert whole.keys() - batch.keys() == pictures
    np.testing.assert_equal(batch, {name: whole[name] for name in batch})

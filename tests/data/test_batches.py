import collections
import dataclasses
import functools
import itertools
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mner_jax.config import replace, to_json
from mner_jax.data import batches, builders, images, wordpiece
from tests.conftest import TEXT_ONLY

ROOT = pathlib.Path(__file__).parents[2]
BUCKETS = (8, 16, 32)
LONG = 60  # words of the sentence that needs several windows
PICTURES = "abcd"

sizes = st.lists(st.integers(1, BUCKETS[-1]), min_size=1, max_size=60)
batch_sizes = st.integers(1, 9)
seeds = st.one_of(st.none(), st.integers(0, 2**32))


def block(words, tags, image=""):
  lines = [f"IMGID:{image}"] if image else []
  lines += [f"{word}\t{tag}" for word, tag in zip(words, tags, strict=True)]
  return "\n".join(lines) + "\n"


def write_data(folder):
  """50 sentences: shared, missing and broken pictures, orphans, a long one."""
  rng = random.Random(0)
  blocks = [
    block(("Ann", "Lee", "in", "Rome"), ("I-PER", "I-PER", "O", "I-LOC"), "a"),
    block(["Rome"] * LONG, ["B-LOC"] + ["I-LOC"] * (LONG - 1), "b"),
  ]
  for _ in range(48):
    count = rng.randint(1, 12)
    words = rng.choices(("Ann", "Lee", "Rome", "saw", "in", "."), k=count)
    tags = rng.choices(("O", "B-PER", "B-LOC"), k=count)
    name = rng.choice((*PICTURES, "missing", "broken", ""))
    blocks.append(block(words, tags, name))
  for name in ("train", "valid", "test"):
    (folder / f"{name}.txt").write_text("\n".join(blocks))
  (folder / "images").mkdir()
  noise = np.random.default_rng(0)
  for name in PICTURES:
    size = noise.integers(20, 40, 2)
    pixels = noise.integers(1, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
  (folder / "images" / "broken.png").write_text("no picture")


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny):
  folder = tmp_path_factory.mktemp("data")
  write_data(folder)
  fields = {
    "data.path": str(folder),
    "data.languages": ("en",),
    "data.cache_dir": str(tmp_path_factory.mktemp("cache")),
    "data.buckets": BUCKETS,
    "data.workers": 4,
    "model.vit.image_size": 8,
    "model.resnet.image_size": 14,
  }
  return replace(tiny, fields)


def make_examples(config, fields=(), picture_of=None, **changed):
  """The Examples of the training split, with some things changed."""
  split = builders.load(config.data, splits=("train",))["train"]
  vocabulary = wordpiece.count_vocabulary(split.sentences, 60)
  return batches.Examples(
    dataclasses.replace(split, **changed),
    wordpiece.bert_tokenizer(vocabulary),
    replace(config, dict(fields)),
    picture_of=picture_of,
  )


@pytest.fixture(scope="module")
def make(config):
  return functools.partial(make_examples, config)


@pytest.fixture(scope="module")
def examples(make):
  return make()


def epoch_of(plan, epoch=0):
  first = epoch * plan.steps_per_epoch
  return [plan.batch(first + i) for i in range(plan.steps_per_epoch)]


def real_ids(plan_batches):
  ids = np.concatenate([ids for _, ids in plan_batches])
  return ids[ids != batches.PADDING].tolist()


def assert_shortest_buckets(plan_batches, sizes):
  for length, ids in plan_batches:
    for i in ids[ids != batches.PADDING]:
      assert length == min(b for b in BUCKETS if b >= sizes[i])


def assert_equal(batch, other):
  assert batch.keys() == other.keys()
  for name in batch:
    assert batch[name].dtype == other[name].dtype
    np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


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


def names_of(examples):
  """{window: the name of its sentence's picture}."""
  sentences = examples.split.sentences
  return {
    i: sentences[w.sentence].image for i, w in enumerate(examples.windows)
  }


@settings(deadline=None)
@given(sizes, batch_sizes, seeds, st.data())
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
  for first, second in itertools.combinations(epochs, 2):
    same = np.array(real_ids(first)) == np.array(real_ids(second))
    assert np.mean(same) < 0.1
    # Other windows meet in a batch.
    met = [{frozenset(ids.tolist()) for _, ids in x} for x in (first, second)]
    assert not met[0] & met[1]
  lengths = [length for length, _ in epochs[0]]
  assert lengths != sorted(lengths)


LANGUAGES = ("de", "en", "es", "fr")
windows = st.lists(
  st.tuples(st.integers(1, BUCKETS[-1]), st.sampled_from(LANGUAGES)),
  min_size=1,
  max_size=80,
)
temperatures = st.sampled_from([0.01, 0.5, 1.0, 1.5, 2.0, 5.0, 1e9])


def tempered(windows, temperature, batch_size=4, seed=3):
  sizes, spoken = zip(*windows, strict=True)
  return batches.Plan(
    sizes, BUCKETS, batch_size, seed, languages=spoken, temperature=temperature
  )


@settings(deadline=None)
@given(windows, temperatures)
def test_languages_come_in_their_shares(windows, temperature):
  plan = tempered(windows, temperature)
  sizes, spoken = zip(*windows, strict=True)
  for epoch in (0, 1, 5):
    found = epoch_of(plan, epoch)
    assert len(real_ids(found)) == len(windows)
    assert_shortest_buckets(found, sizes)
  counts = collections.Counter(real_ids(epoch_of(plan)))
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


def test_epochs_draw_other_windows_of_a_language():
  spoken = ["en"] * 900 + ["de"] * 100
  plan = tempered([(5, language) for language in spoken], 1e9, 8)
  epochs = [real_ids(epoch_of(plan, epoch)) for epoch in range(12)]
  assert {sum(i < 900 for i in ids) for ids in epochs} == {500}
  assert len(set().union(*epochs)) > 990


def test_rare_lengths_and_languages_are_not_left_out():
  spoken = ["en"] * 400 + ["de"] * 300
  sizes = [5] * 399 + [30] + [5] * 299 + [30]
  plan = tempered(list(zip(sizes, spoken, strict=True)), 0.05)
  for epoch in (0, 1):
    drawn = real_ids(epoch_of(plan, epoch))
    # Two windows of 700 are German: one of them is the long one.
    assert [spoken[i] for i in drawn].count("de") == 2
    assert 699 in drawn


def test_a_temperature_is_for_training_only(make, examples):
  sentences = [
    dataclasses.replace(s, language="de" if i % 8 else "en")
    for i, s in enumerate(examples.split.sentences)
  ]
  warm = make({"data.language_temperature": 9.0}, sentences=sentences)
  everything = list(range(len(warm.windows)))
  assert sorted(real_ids(epoch_of(warm.plan()))) == everything
  drawn = real_ids(epoch_of(warm.plan(seed=0)))
  assert len(drawn) == len(everything)
  assert sorted(drawn) != everything


@pytest.mark.parametrize("seed", [None, 5])
def test_any_rows_and_any_start_give_the_same_batches(examples, seed):
  whole = load(examples, seed, epochs=2)
  for first, rows in enumerate([slice(None), np.array([0, 1, 4, 5]), [7]]):
    found = load(examples, seed, 2, first, rows=rows)
    for batch, part in zip(whole[first:], found, strict=True):
      assert_equal({k: x[rows] for k, x in batch.items()}, part)


def test_crops_are_random_in_epochs_and_rows(examples):
  first, second = (rows_of(examples, 0, epoch) for epoch in (0, 1))
  shown = [i for i in first if first[i]["has_image"]]
  assert all((first[i]["pixels"] == second[i]["pixels"]).all() for i in shown)
  names = names_of(examples)
  pairs = [(first[i], second[i]) for i in shown]
  pairs += [
    (first[i], first[j])
    for i, j in itertools.combinations(shown, 2)
    if names[i] == names[j]
  ]
  assert len(pairs) > len(shown) + 10
  differ = [(a["scene_pixels"] != b["scene_pixels"]).any() for a, b in pairs]
  assert np.mean(differ) > 0.9


@pytest.mark.parametrize("seed", [None, 5])
def test_rows_hold_their_window_and_padding_weighs_nothing(examples, seed):
  planned = epoch_of(examples.plan(seed=seed))
  for (length, ids), batch in zip(planned, load(examples, seed), strict=True):
    assert batch["first_piece"].shape == batch["tags"].shape == (8, length)
    np.testing.assert_array_equal(batch["weight"], ids != batches.PADDING)
    assert (batch["num_words"] >= 1).all()
    assert (batch["num_words"] <= batch["num_pieces"]).all()
    assert batch["first_piece"].max() < length
    for row, i in enumerate(ids):
      if i == batches.PADDING:
        assert not batch["has_image"][row] and not batch["pixels"][row].any()
        continue
      window = examples.windows[i]
      count = batch["num_pieces"][row]
      assert batch["input_ids"][row, :count].tolist() == window.pieces.tolist()
      assert not batch["input_ids"][row, count:].any()
      words = batch["first_piece"][row, : batch["num_words"][row]]
      assert words.tolist() == window.first_piece.tolist()
  assert sorted(real_ids(planned)) == list(range(len(examples.windows)))


def test_tags_are_those_of_the_sentence_but_repaired(examples, config):
  found = [[] for _ in examples.split.sentences]
  rows = rows_of(examples)
  for i, window in enumerate(examples.windows):
    tags = rows[i]["tags"][: rows[i]["num_words"]]
    found[window.sentence] += [config.tags[t] for t in tags]
  expected = [list(s.tags) for s in examples.split.sentences]
  assert expected[0] == ["I-PER", "I-PER", "O", "I-LOC"]
  expected[0] = ["B-PER", "I-PER", "O", "B-LOC"]
  # An entity that goes on in the next window does not begin there again.
  assert sum(w.sentence == 1 for w in examples.windows) > 1
  assert found == expected


def test_pictures_are_shown_where_they_are(examples, config):
  expected = {}
  for name in PICTURES:
    picture = Image.open(f"{config.data.path}/images/{name}.png")
    vit = images.vit_pixels(picture, 8, "clip")
    expected[name] = (vit, images.scene_pixels(picture, 14))
  names = names_of(examples)
  for i, row in rows_of(examples).items():
    assert row["has_image"] == (names[i] in expected)
    pixels, scene = expected.get(names[i], (0, 0))
    np.testing.assert_array_equal(row["pixels"] - pixels, 0)
    np.testing.assert_array_equal(row["scene_pixels"] - scene, 0)
  assert set(names.values()) == {*PICTURES, "missing", "broken", ""}


def test_image_ids_are_equal_for_one_file(make, examples):
  names = [n.replace("b.png", "a.png") for n in examples.split.image_names]
  examples = make(image_names=names)
  found = collections.defaultdict(set)
  for i, row in rows_of(examples).items():
    file = names[examples.windows[i].sentence]
    found[file if row["has_image"] else ""].add(int(row["image_id"]))
  assert found.keys() == {"a.png", "c.png", "d.png", ""}
  assert all(len(ids) == 1 for ids in found.values())
  assert len(set().union(*found.values())) == len(found)


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
    assert_equal(batch, {name: whole[name] for name in batch})


LOAD = """
import json, sys
from jax._src import xla_bridge
from mner_jax.config import from_dict
from tests.data import test_batches

examples = test_batches.make_examples(from_dict(json.loads(sys.argv[1])))
loaded = test_batches.load(examples, seed=0)
assert any(batch["has_image"].any() for batch in loaded)
assert not xla_bridge.backends_are_initialized() and not xla_bridge._backends
"""


def test_loading_initialises_no_jax_backend(config):
  command = [sys.executable, "-c", LOAD, to_json(config)]
  subprocess.run(command, check=True, cwd=ROOT)

import collections
import dataclasses
import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mner_jax import config as config_lib
from mner_jax.config import UserError
from mner_jax.data import batches, builders, images, wordpiece

BUCKETS = (8, 16, 32)
LONG = 60  # words of the sentence that needs several windows

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
  pictures = ("a", "b", "c", "d", "missing", "broken", "")
  blocks = [
    block(("Ann", "Lee", "in", "Rome"), ("I-PER", "I-PER", "O", "I-LOC"), "a"),
    block(["Rome"] * LONG, ["B-LOC"] + ["I-LOC"] * (LONG - 1), "b"),
  ]
  for _ in range(48):
    count = rng.randint(1, 12)
    words = rng.choices(("Ann", "Lee", "Rome", "saw", "in", "."), k=count)
    tags = rng.choices(("O", "B-PER", "B-LOC"), k=count)
    blocks.append(block(words, tags, rng.choice(pictures)))
  (folder / "images").mkdir()
  for name in ("train", "valid", "test"):
    (folder / f"{name}.txt").write_text("\n".join(blocks))
  noise = np.random.default_rng(0)
  for name in "abcd":
    size = noise.integers(20, 40, 2)
    pixels = noise.integers(1, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
  (folder / "images" / "broken.png").write_text("no picture")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  write_data(folder)
  return config_lib.Config(
    data=config_lib.DataConfig(
      path=str(folder),
      languages=("en",),
      labels=("LOC", "PER"),
      cache_dir=str(tmp_path_factory.mktemp("cache")),
      buckets=BUCKETS,
    ),
    model=config_lib.ModelConfig(
      vit=config_lib.VitConfig(image_size=8),
      resnet=config_lib.ResnetConfig(image_size=14),
    ),
    train=config_lib.TrainConfig(batch_size=8),
  )


@pytest.fixture(scope="module")
def examples(config):
  split = builders.load(config.data, splits=("train",))["train"]
  vocabulary = wordpiece.count_vocabulary(split.sentences, 60)
  return batches.Examples(split, wordpiece.bert_tokenizer(vocabulary), config)


def epoch_of(plan, epoch=0):
  first = epoch * plan.steps_per_epoch
  return [plan.batch(first + i) for i in range(plan.steps_per_epoch)]


def real_ids(plan_batches):
  ids = np.concatenate([ids for _, ids in plan_batches])
  return [int(i) for i in ids if i != batches.PADDING]


def assert_equal(batch, other):
  assert batch.keys() == other.keys()
  for name in batch:
    assert batch[name].dtype == other[name].dtype
    np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def whole_epoch(examples, seed=None):
  plan = examples.plan(seed=seed)
  return list(batches.load(examples, plan, (0, plan.steps_per_epoch)))


def rows_of(loaded):
  """Window -> its row, as a dict of arrays without the batch axis."""
  return {
    int(i): {name: values[row] for name, values in batch.items()}
    for batch in loaded
    for row, i in enumerate(batch["window"])
    if i != batches.PADDING
  }


@settings(deadline=None)
@given(sizes, batch_sizes, seeds)
def test_every_epoch_is_a_permutation(sizes, batch_size, seed):
  plan = batches.Plan(sizes, BUCKETS, batch_size, seed)
  for epoch in (0, 1, 7):
    found = epoch_of(plan, epoch)
    assert sorted(real_ids(found)) == list(range(len(sizes)))
    assert all(len(ids) == batch_size for _, ids in found)


@settings(deadline=None)
@given(sizes, batch_sizes, seeds)
def test_bucket_is_the_smallest_that_holds_its_members(sizes, batch_size, seed):
  plan = batches.Plan(sizes, BUCKETS, batch_size, seed)
  for length, ids in epoch_of(plan):
    for i in ids[ids != batches.PADDING]:
      assert length == min(b for b in BUCKETS if b >= sizes[i])


@settings(deadline=None)
@given(sizes, batch_sizes, seeds)
def test_only_the_last_batch_of_a_bucket_is_padded(sizes, batch_size, seed):
  plan = batches.Plan(sizes, BUCKETS, batch_size, seed)
  padded = [length for length, ids in epoch_of(plan) if batches.PADDING in ids]
  assert len(padded) == len(set(padded))
  assert all((ids >= 0).any() for _, ids in epoch_of(plan))


@settings(deadline=None)
@given(sizes, batch_sizes, seeds, st.data())
def test_a_step_alone_is_the_step_reached_by_iterating(
  sizes, batch_size, seed, data
):
  plan = batches.Plan(sizes, BUCKETS, batch_size, seed)
  steps = 4 * plan.steps_per_epoch
  iterated = [plan.batch(k) for k in range(steps)]
  k = data.draw(st.integers(0, steps - 1))
  length, ids = batches.Plan(sizes, BUCKETS, batch_size, seed).batch(k)
  assert length == iterated[k][0]
  np.testing.assert_array_equal(ids, iterated[k][1])
  np.testing.assert_array_equal(ids, plan.batch(k)[1])


def test_epochs_and_seeds_have_their_own_order():
  sizes = [1 + i % 30 for i in range(200)]
  plan, other = (batches.Plan(sizes, BUCKETS, 8, seed) for seed in (0, 1))
  orders = [
    real_ids(epoch_of(plan, 0)),
    real_ids(epoch_of(plan, 1)),
    real_ids(epoch_of(other, 0)),
    real_ids(epoch_of(other, 1)),
  ]
  for first, second in itertools.combinations(orders, 2):
    assert first != second
    same = np.mean(np.array(first) == np.array(second))
    assert same < 0.1
  # Other windows meet in a batch, and the lengths come mixed.
  first, second = (
    {frozenset(ids.tolist()) for _, ids in epoch_of(plan, epoch)}
    for epoch in (0, 1)
  )
  assert not first & second
  lengths = [length for length, _ in epoch_of(plan)]
  assert lengths != sorted(lengths)


LANGUAGES = ("de", "en", "es", "fr")
languages = st.sampled_from(LANGUAGES)
windows = st.lists(
  st.tuples(st.integers(1, BUCKETS[-1]), languages), min_size=1, max_size=80
)
temperatures = st.sampled_from([0.01, 0.5, 1.5, 2.0, 5.0, 1e9])


def tempered(windows, temperature, batch_size=4, seed=3):
  sizes, spoken = zip(*windows, strict=True)
  return batches.Plan(
    sizes, BUCKETS, batch_size, seed, languages=spoken, temperature=temperature
  )


@settings(deadline=None)
@given(windows, batch_sizes, seeds)
def test_temperature_1_is_as_without(windows, batch_size, seed):
  plan = tempered(windows, 1.0, batch_size, seed)
  other = batches.Plan([n for n, _ in windows], BUCKETS, batch_size, seed)
  for found, expected in zip(epoch_of(plan), epoch_of(other), strict=True):
    np.testing.assert_array_equal(found[1], expected[1])


@settings(deadline=None)
@given(windows, temperatures)
def test_temperature_keeps_the_length_of_an_epoch(windows, temperature):
  plan = tempered(windows, temperature)
  for epoch in (0, 1, 5):
    found = epoch_of(plan, epoch)
    assert len(real_ids(found)) == len(windows)
    for length, ids in found:
      for i in ids[ids != batches.PADDING]:
        assert length == min(b for b in BUCKETS if b >= windows[i][0])
  k = 2 * plan.steps_per_epoch + 1
  alone = tempered(windows, temperature).batch(k)
  np.testing.assert_array_equal(alone[1], plan.batch(k)[1])


@settings(deadline=None)
@given(windows, temperatures)
def test_languages_come_in_their_shares(windows, temperature):
  own = collections.Counter(language for _, language in windows)
  most = max(own.values())
  weight = {x: (n / most) ** (1 / temperature) for x, n in own.items()}
  counts = collections.Counter(
    real_ids(epoch_of(tempered(windows, temperature)))
  )
  drawn = collections.Counter()
  for i, count in counts.items():
    drawn[windows[i][1]] += count
  for language in own:
    exact = len(windows) * weight[language] / sum(weight.values())
    # Rounding, and one window at least for who would have none.
    assert abs(drawn[language] - exact) < 1 + len(own)
    if len(windows) >= 2 * len(LANGUAGES):
      assert drawn[language] > 0
  # Within a language and a bucket none comes twice more often than another.
  groups = collections.defaultdict(list)
  for i, (size, language) in enumerate(windows):
    groups[language, np.searchsorted(BUCKETS, size)].append(counts[i])
  assert all(max(g) - min(g) <= 1 for g in groups.values())


def test_a_high_temperature_evens_languages_out():
  sizes = [1 + i % 30 for i in range(1_000)]
  spoken = ["en"] * 900 + ["de"] * 100
  for temperature, expected in ((2.0, 750), (1e9, 500)):
    plan = tempered(list(zip(sizes, spoken, strict=True)), temperature, 8)
    epochs = [real_ids(epoch_of(plan, epoch)) for epoch in (0, 1)]
    assert [sum(i < 900 for i in ids) for ids in epochs] == [expected] * 2
    # Other windows of the language that is drawn less.
    assert set(epochs[0]) != set(epochs[1])
  seen = set()
  for epoch in range(12):
    seen |= set(real_ids(epoch_of(plan, epoch)))
  assert len(seen) > 990


@settings(deadline=None)
@given(sizes, batch_sizes)
def test_without_a_seed_the_order_is_kept(sizes, batch_size):
  plan = batches.Plan(sizes, BUCKETS, batch_size)
  found = epoch_of(plan)
  for bucket in BUCKETS:
    ids = real_ids([(bucket, []), *(b for b in found if b[0] == bucket)])
    assert ids == sorted(ids)
  for (length, ids), (again, same) in zip(
    found, epoch_of(plan, 3), strict=True
  ):
    assert length == again
    np.testing.assert_array_equal(ids, same)


@pytest.mark.parametrize("seed", [None, 5])
def test_slices_of_all_processes_make_up_the_batch(examples, seed):
  whole = whole_epoch(examples, seed)
  for count in (2, 4, 8):
    plans = [examples.plan(seed=seed) for _ in range(count)]
    slices = [
      batches.load(examples, plan, (0, len(whole)), process=(i, count))
      for i, plan in enumerate(plans)
    ]
    for batch, *parts in zip(whole, *slices, strict=True):
      joined = {
        name: np.concatenate([part[name] for part in parts]) for name in batch
      }
      assert_equal(joined, batch)


@pytest.mark.parametrize("seed", [None, 5])
def test_starting_in_the_middle_gives_the_same_batches(examples, seed):
  plan = examples.plan(seed=seed)
  last = 2 * plan.steps_per_epoch
  whole = list(batches.load(examples, plan, (0, last)))
  assert len(whole) == last
  for first in (1, plan.steps_per_epoch + 1, last - 1, last):
    rest = batches.load(examples, examples.plan(seed=seed), (first, last))
    for batch, other in zip(whole[first:], rest, strict=True):
      assert_equal(batch, other)


def test_epochs_have_their_own_random_crops(examples):
  plan = examples.plan(seed=0)
  count = plan.steps_per_epoch
  loaded = list(batches.load(examples, plan, (0, 2 * count)))
  first, second = rows_of(loaded[:count]), rows_of(loaded[count:])
  shown = [i for i in first if first[i]["has_image"]]
  for i in shown:
    np.testing.assert_array_equal(first[i]["pixels"], second[i]["pixels"])
  differ = [
    (first[i]["scene_pixels"] != second[i]["scene_pixels"]).any() for i in shown
  ]
  assert np.mean(differ) > 0.9


def test_rows_have_their_own_random_crops(examples):
  names = [s.image for s in examples.split.sentences]
  differ = []
  for batch in whole_epoch(examples, seed=0):
    shown = np.flatnonzero(batch["has_image"])
    for i, j in itertools.combinations(shown, 2):
      one, other = (
        names[examples.windows[batch["window"][row]].sentence] for row in (i, j)
      )
      if one == other:
        crops = batch["scene_pixels"]
        differ.append((crops[i] != crops[j]).any())
  assert len(differ) > 10
  assert np.mean(differ) > 0.9


def test_batch_size_must_be_shared_evenly(examples):
  with pytest.raises(UserError, match="batch_size 8 .* 3 processes"):
    batches.load(examples, examples.plan(), (0, 1), process=(0, 3))


@pytest.mark.parametrize("seed", [None, 5])
def test_every_window_comes_once_and_padding_weighs_nothing(examples, seed):
  loaded = whole_epoch(examples, seed)
  windows = np.concatenate([b["window"] for b in loaded])
  weight = np.concatenate([b["weight"] for b in loaded])
  assert (windows == batches.PADDING).any()
  np.testing.assert_array_equal(weight, windows != batches.PADDING)
  real = sorted(windows[windows != batches.PADDING])
  assert real == list(range(len(examples.windows)))
  for batch in loaded:
    padding = batch["window"] == batches.PADDING
    assert not batch["has_image"][padding].any()
    assert not batch["pixels"][padding].any()


def test_shapes_and_bounds(examples):
  for batch in whole_epoch(examples, seed=0):
    length = batch["input_ids"].shape[1]
    assert length in BUCKETS
    for name in ("input_ids", "first_piece", "tags"):
      assert batch[name].shape == (8, length)
    assert batch["pixels"].shape == (8, 8, 8, 3)
    assert batch["scene_pixels"].shape == (8, 14, 14, 3)
    assert (batch["num_pieces"] <= length).all()
    assert (1 <= batch["num_words"]).all()
    assert (batch["num_words"] <= batch["num_pieces"]).all()
    assert (batch["first_piece"] < length).all()
    assert batch["tags"].max() < len(examples.config.tags)


def test_rows_hold_their_window(examples):
  for i, row in rows_of(whole_epoch(examples)).items():
    window = examples.windows[i]
    count, words = row["num_pieces"], row["num_words"]
    np.testing.assert_array_equal(row["input_ids"][:count], window.pieces)
    assert not row["input_ids"][count:].any()
    np.testing.assert_array_equal(
      row["first_piece"][:words], window.first_piece
    )


def test_tags_are_those_of_the_sentence_but_repaired(examples, config):
  found = {}
  rows = rows_of(whole_epoch(examples))
  for i, window in enumerate(examples.windows):
    tags = [config.tags[t] for t in rows[i]["tags"]]
    found.setdefault(window.sentence, []).extend(tags[: rows[i]["num_words"]])
  expected = [list(s.tags) for s in examples.split.sentences]
  assert expected[0] == ["I-PER", "I-PER", "O", "I-LOC"]
  expected[0] = ["B-PER", "I-PER", "O", "B-LOC"]
  assert [found[i] for i in range(len(expected))] == expected
  # An entity that goes on in the next window does not begin there again.
  assert sum(w.sentence == 1 for w in examples.windows) > 1
  assert found[1] == ["B-LOC"] + ["I-LOC"] * (LONG - 1)


def test_pictures_are_shown_where_they_are(examples, config):
  names = [s.image for s in examples.split.sentences]
  folder = f"{config.data.path}/images"
  expected = {}
  for name in "abcd":
    picture = Image.open(f"{folder}/{name}.png")
    expected[name] = (
      images.vit_pixels(picture, 8, "clip"),
      images.scene_pixels(picture, 14),
    )
  shown = set()
  for i, row in rows_of(whole_epoch(examples)).items():
    name = names[examples.windows[i].sentence]
    shown.add(name)
    assert row["has_image"] == (name in expected)
    pixels, scene = expected.get(name, (0, 0))
    np.testing.assert_array_equal(row["pixels"] - pixels, 0)
    np.testing.assert_array_equal(row["scene_pixels"] - scene, 0)
  assert shown == {*"abcd", "missing", "broken", ""}


def test_image_ids_tell_pictures_apart(examples):
  rows = rows_of(whole_epoch(examples))
  names = {
    i: examples.split.sentences[examples.windows[i].sentence].image
    for i in rows
  }
  for i, j in itertools.combinations(rows, 2):
    if rows[i]["has_image"] and rows[j]["has_image"]:
      equal = rows[i]["image_id"] == rows[j]["image_id"]
      assert equal == (names[i] == names[j])
    elif rows[i]["has_image"] or rows[j]["has_image"]:
      assert rows[i]["image_id"] != rows[j]["image_id"]


def test_ids_of_one_file_are_one_image_id(examples, config):
  names = [n.replace("b.png", "a.png") for n in examples.split.image_names]
  split = dataclasses.replace(examples.split, image_names=names)
  rows = rows_of(
    whole_epoch(batches.Examples(split, examples_tokenizer(examples), config))
  )
  found = collections.defaultdict(set)
  for i, row in rows.items():
    if row["has_image"]:
      found[names[examples.windows[i].sentence]].add(int(row["image_id"]))
  assert found.keys() == {"a.png", "c.png", "d.png"}
  assert all(len(ids) == 1 for ids in found.values())
  assert len(set().union(*found.values())) == 3


def test_a_temperature_is_for_training_only(examples, config, change):
  sentences = [
    dataclasses.replace(s, language="de" if i % 8 else "en")
    for i, s in enumerate(examples.split.sentences)
  ]
  warm = batches.Examples(
    dataclasses.replace(examples.split, sentences=sentences),
    examples_tokenizer(examples),
    change(config, data__language_temperature=9.0),
  )
  everything = list(range(len(warm.windows)))
  assert sorted(real_ids(epoch_of(warm.plan()))) == everything
  drawn = real_ids(epoch_of(warm.plan(seed=0)))
  assert len(drawn) == len(everything)
  assert sorted(drawn) != everything


def test_rare_lengths_and_languages_are_not_left_out():
  spoken = ["en"] * 400 + ["de"] * 300
  sizes = [5] * 399 + [30] + [5] * 299 + [30]
  plan = tempered(list(zip(sizes, spoken, strict=True)), 0.05)
  for epoch in (0, 1):
    drawn = real_ids(epoch_of(plan, epoch))
    # Two windows of 700 are German: one of them is the long one.
    assert [spoken[i] for i in drawn].count("de") == 2
    assert 699 in drawn


def test_picture_of_shows_the_picture_of_another(examples, config):
  count = len(examples.split.sentences)
  names = [s.image for s in examples.split.sentences]
  other = np.roll(np.arange(count), 7)
  swapped = batches.Examples(
    examples.split, examples_tokenizer(examples), config, picture_of=other
  )
  rows, own = rows_of(whole_epoch(swapped)), rows_of(whole_epoch(examples))
  by_sentence = {w.sentence: own[i] for i, w in enumerate(examples.windows)}
  for i, row in rows.items():
    donor = by_sentence[other[examples.windows[i].sentence]]
    for name in ("has_image", "image_id", "pixels", "scene_pixels"):
      np.testing.assert_array_equal(row[name], donor[name])
    np.testing.assert_array_equal(row["input_ids"], own[i]["input_ids"])
  assert len({names[i] for i in other}) > 4


def examples_tokenizer(examples):
  vocabulary = wordpiece.count_vocabulary(examples.split.sentences, 60)
  return wordpiece.bert_tokenizer(vocabulary)


def test_a_text_model_reads_no_pictures(examples, config):
  model = dataclasses.replace(
    config.model,
    vit=config_lib.VitConfig(enabled=False),
    resnet=config_lib.ResnetConfig(enabled=False),
  )
  text_only = batches.Examples(
    examples.split,
    examples_tokenizer(examples),
    dataclasses.replace(config, model=model),
  )
  whole = whole_epoch(examples)
  for batch, with_pictures in zip(whole_epoch(text_only), whole, strict=True):
    pictures = {"pixels", "scene_pixels", "has_image", "image_id"}
    assert with_pictures.keys() - batch.keys() == pictures
    assert_equal(batch, {name: with_pictures[name] for name in batch})


LOAD_A_BATCH = """
import sys
import mner_jax.data.batches, mner_jax.data.builders
from jax._src import xla_bridge
from mner_jax import config as config_lib
from mner_jax.data import batches, builders, wordpiece

data = config_lib.DataConfig(
  path=sys.argv[1], cache_dir=sys.argv[2], languages=("en",),
  labels=("LOC", "PER"),
)
vit = config_lib.VitConfig(image_size=224)
config = config_lib.Config(data=data, model=config_lib.ModelConfig(vit=vit))
split = builders.load(data, splits=("train",))["train"]
tokenizer = wordpiece.bert_tokenizer(
  wordpiece.count_vocabulary(split.sentences, 60)
)
examples = batches.Examples(split, tokenizer, config)
plan = examples.plan(seed=0)
loaded = list(batches.load(examples, plan, (0, plan.steps_per_epoch)))
assert any(batch["has_image"].any() for batch in loaded)
assert not xla_bridge.backends_are_initialized()
assert not xla_bridge._backends
"""


def test_loading_initialises_no_jax_backend(config, tmp_path):
  subprocess.run(
    [sys.executable, "-c", LOAD_A_BATCH, config.data.path, str(tmp_path)],
    check=True,
  )

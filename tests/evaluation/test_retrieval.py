"""Recall against a plain ranking; similarities against the loss's own."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mner_jax.data import batches, wordpiece
from mner_jax.evaluation import retrieval
from mner_jax.models import contrastive
from mner_jax.models.mner import MultimodalNER
from tests.conftest import assert_close


def brute_force(similarity, own, k):
  """Share of rows with one of its own among the k most similar, ties last."""
  hits = []
  for scores, mine in zip(similarity, own, strict=True):
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], mine[j]))
    hits.append(any(mine[j] for j in order[:k]))
  return np.mean(hits)


def test_recall_is_that_of_a_ranking():
  rng = np.random.default_rng(0)
  pictures = np.array([7, 8, 9, 11, 12, 15, 16, 18, 20, 21, 22, 30])
  text_picture = np.concatenate([pictures, rng.choice(pictures, 10)])
  # Coarse numbers, so that many are equal.
  to_image = rng.integers(0, 6, (22, 12)).astype(float)
  to_text = rng.integers(0, 6, (12, 22)).astype(float)
  found = retrieval.recalls(to_image, to_text, text_picture, pictures)
  own = text_picture[:, None] == pictures
  ways = {"text_to_image": (to_image, own), "image_to_text": (to_text, own.T)}
  for way, (similarity, own) in ways.items():
    for k in retrieval.RANKS:
      assert found[way][str(k)] == brute_force(similarity, own, k)
    # Chance is what random numbers reach.
    random = rng.random((500, *own.shape))
    for k in retrieval.RANKS:
      mean = np.mean([brute_force(x, own, k) for x in random])
      assert found["chance"][way][str(k)] == pytest.approx(mean, abs=0.02)
  assert (found["sentences"], found["pictures"]) == (22, 12)
  assert found["p"] > 0.05


def test_p_is_that_of_all_permutations():
  """Four pictures, six sentences: 24 ways to give pictures to captions."""
  rng = np.random.default_rng(3)
  pictures, text_picture = np.array([2, 3, 5, 9]), np.array([9, 2, 3, 5, 3, 9])
  own = text_picture[:, None] == pictures
  to_image = rng.normal(size=(6, 4)) + 1.5 * own
  to_text = rng.normal(size=(4, 6)) + 1.5 * own.T

  def mean_rank(own):
    total = 0
    for similarity, mine in ((to_image, own), (to_text, own.T)):
      best = np.where(mine, similarity, -np.inf).max(axis=1, keepdims=True)
      total += np.mean(np.sum(similarity > best, axis=1))
    return total

  orders = itertools.permutations(range(4))
  ranks = np.array([mean_rank(own[:, list(order)]) for order in orders])
  exact = np.mean(ranks <= ranks[0] + 1e-9)
  assert 0 < exact < 0.5
  found = retrieval.recalls(to_image, to_text, text_picture, pictures)
  assert found["p"] == pytest.approx(exact, abs=0.02)


def units(rng, *shape):
  return np.array(contrastive.normalise(rng.normal(size=shape)), np.float32)


def test_similarities_are_those_of_the_loss():
  rng = np.random.default_rng(0)
  words, tokens = units(rng, 6, 5, 8), units(rng, 6, 7, 8)
  num_words = np.array([1, 2, 3, 4, 5, 5])

  def check(found, sides):
    for one, (seer, seen) in zip(found, (sides, sides[::-1]), strict=True):
      expected, _ = contrastive.similarities(seer, seen)
      np.testing.assert_allclose(one, expected, atol=1e-6)

  text = [x[:count] for x, count in zip(words, num_words, strict=True)]
  found = retrieval.similarities(text, {"vit": tokens})
  check(found, contrastive.sides(*map(jnp.array, (words, tokens, num_words))))
  # One vector each, of two branches.
  text, image = words[:, :1], tokens[:, :1]
  found = retrieval.similarities(list(text), {"vit": image, "resnet": image})
  sides = contrastive.sides(jnp.array(text[:, 0]), jnp.array(image[:, 0]))
  check([x / 2 for x in found], sides)


def test_pairs_are_what_the_model_compares(trained):
  """The embeddings of a split against the model's own output."""
  evaluated = trained[1]
  params, examples = evaluated.params, evaluated.examples
  text, images, picture, language = retrieval.embed(evaluated)
  firsts = [i for i, w in enumerate(examples.windows) if w.start == 0]
  batch = examples.rows(24, firsts)
  model = MultimodalNER(examples.config)
  output = jax.jit(model.apply)({"params": params}, batch)
  expected = jax.tree.map(contrastive.normalise, (output.text, output.images))
  shown = np.flatnonzero(batch["has_image"])
  assert 0 < len(shown) < len(firsts)
  found = np.stack(text)[:, 0], {name: x[:, 0] for name, x in images.items()}
  # Batches come by length: find each sentence in the output.
  order = shown[(found[0] @ expected[0][shown].T).argmax(axis=1)]
  assert sorted(order) == shown.tolist()
  expected = jax.tree.map(lambda x: x[order], expected)
  assert_close(found, expected, atol=1e-5)
  assert picture.tolist() == batch["image_id"][order].tolist()
  scores = retrieval.score(evaluated)
  counts = {k: (s["sentences"], s["pictures"]) for k, s in scores.items()}
  assert counts == {"all": (8, 4), "de": (4, 4), "en": (4, 4)}
  assert sorted(language) == ["de"] * 4 + ["en"] * 4


def test_without_pictures_there_is_no_score(trained):
  workdir, evaluated = trained
  split, config = evaluated.examples.split, evaluated.examples.config
  split = dataclasses.replace(split, image_status=[""] * len(split.sentences))
  tokenizer = wordpiece.load(workdir / "tokenizer")
  examples = batches.Examples(split, tokenizer, config)
  assert retrieval.score(evaluated._replace(examples=examples)) == {}

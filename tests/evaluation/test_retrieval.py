"""Recall against a plain ranking; similarities against the loss's own."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from mner_jax.evaluation import retrieval
from mner_jax.models import contrastive


def brute_force(similarity, own, k):
  """Share of rows with one of its own among the k most similar, ties last."""
  hits = []
  for scores, mine in zip(similarity, own, strict=True):
    ranking = sorted(
      range(len(scores)), key=lambda j: (-scores[j], bool(mine[j]))
    )
    hits.append(any(mine[j] for j in ranking[:k]))
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
  for k in retrieval.RANKS:
    assert found["text_to_image"][str(k)] == brute_force(to_image, own, k)
    assert found["image_to_text"][str(k)] == brute_force(to_text, own.T, k)
    for way, similarity, mine in (
      ("text_to_image", to_image, own), ("image_to_text", to_text, own.T)
    ):  # fmt: skip
      ranks = range(1, similarity.shape[1] + 1)
      # The mean rank is the sum over k of those not found among k.
      missed = [1 - brute_force(similarity, mine, k) for k in ranks]
      assert found[way]["mean_rank"] == pytest.approx(1 + sum(missed))
  assert (found["sentences"], found["pictures"]) == (22, 12)


def test_chance_is_what_random_numbers_reach():
  rng = np.random.default_rng(0)
  pictures = np.arange(15)
  text_picture = np.array([*pictures, 3, 3, 3, 4])
  runs = [
    retrieval.recalls(
      rng.random((19, 15)),
      rng.random((15, 19)),
      text_picture,
      pictures,
      replicates=0,
    )  # fmt: skip
    for _ in range(2000)
  ]
  for way, recalls in runs[0]["chance"].items():
    for k, chance in recalls.items():
      mean = np.mean([run[way][k] for run in runs])
      assert mean == pytest.approx(
        chance, abs=0.1 if k == "mean_rank" else 0.01
      )


def test_embeddings_that_say_nothing_find_nothing():
  same = np.ones((20, 20))
  found = retrieval.recalls(same, same, np.arange(20), np.arange(20))
  assert [found["text_to_image"][k] for k in "1 5 10".split()] == [0, 0, 0]
  assert found["p"] == 1


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

  ranks = [
    mean_rank(own[:, list(order)]) for order in itertools.permutations(range(4))
  ]
  exact = np.mean([r <= ranks[0] + 1e-9 for r in ranks])
  assert 0 < exact < 0.5
  found = retrieval.recalls(to_image, to_text, text_picture, pictures)
  assert found["p"] == pytest.approx(exact, abs=0.02)


def units(rng, *shape):
  x = rng.normal(size=shape).astype(np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_similarities_are_those_of_the_loss():
  rng = np.random.default_rng(0)
  words, tokens = units(rng, 6, 5, 8), units(rng, 6, 7, 8)
  num_words = np.array([1, 2, 3, 4, 5, 5])
  sides = contrastive.sides(
    jnp.array(words), jnp.array(tokens), jnp.array(num_words)
  )
  text = [x[:count] for x, count in zip(words, num_words, strict=True)]
  to_image, to_text = retrieval.similarities(text, {"vit": tokens})
  for found, pair in ((to_image, sides), (to_text, sides[::-1])):
    np.testing.assert_allclose(found, contrastive.similarity(*pair), atol=1e-6)

  sides = contrastive.sides(jnp.array(words[:, 0]), jnp.array(tokens[:, 0]))
  to_image, to_text = retrieval.similarities(
    list(words[:, :1]), {"vit": tokens[:, :1], "resnet": tokens[:, :1]}
  )
  for found, pair in ((to_image, sides), (to_text, sides[::-1])):
    np.testing.assert_allclose(
      found / 2, contrastive.similarity(*pair), atol=1e-6
    )

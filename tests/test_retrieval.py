"""Recall against a plain ranking; similarities against the loss's own."""

import jax.numpy as jnp
import numpy as np
import pytest

from mner_jax import retrieval
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
  assert (found["sentences"], found["pictures"]) == (22, 12)


def test_chance_is_what_random_numbers_reach():
  rng = np.random.default_rng(0)
  pictures = np.arange(15)
  text_picture = np.array([*pictures, 3, 3, 3, 4])
  runs = [
    retrieval.recalls(
      rng.random((19, 15)), rng.random((15, 19)), text_picture, pictures
    )
    for _ in range(2000)
  ]
  for way, recalls in runs[0]["chance"].items():
    for k, chance in recalls.items():
      mean = np.mean([run[way][k] for run in runs])
      assert mean == pytest.approx(chance, abs=0.01)


def test_embeddings_that_say_nothing_find_nothing():
  same = np.ones((20, 20))
  found = retrieval.recalls(same, same, np.arange(20), np.arange(20))
  assert found["text_to_image"] == {"1": 0.0, "5": 0.0, "10": 0.0}


def units(rng, *shape):
  x = rng.normal(size=shape).astype(np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_similarities_are_those_of_the_loss():
  rng = np.random.default_rng(0)
  words, tokens = units(rng, 6, 5, 8), units(rng, 6, 7, 8)
  num_words = np.array([1, 2, 3, 4, 5, 5])
  by_word = contrastive.similarities(
    jnp.array(words), jnp.array(tokens), jnp.array(num_words)
  )
  text = [x[:count] for x, count in zip(words, num_words, strict=True)]
  to_image, to_text = retrieval.similarities(text, {"vit": tokens})
  np.testing.assert_allclose(to_image, by_word[:, 0, :, 1], atol=1e-6)
  np.testing.assert_allclose(to_text, by_word[:, 1, :, 0], atol=1e-6)

  by_sentence = contrastive.similarities(
    jnp.array(words[:, 0]), jnp.array(tokens[:, 0])
  )
  to_image, to_text = retrieval.similarities(
    list(words[:, :1]), {"vit": tokens[:, :1], "resnet": tokens[:, :1]}
  )
  np.testing.assert_allclose(to_image / 2, by_sentence[:, 0, :, 1], atol=1e-6)
  np.testing.assert_allclose(to_text / 2, by_sentence[:, 1, :, 0], atol=1e-6)

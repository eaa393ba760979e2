"""The contrastive losses against loops over pairs in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mner_jax.models import contrastive


def vectors():
  return np.random.default_rng(0).normal(size=(2, 6, 5)).astype("f4")


def reference(
  kind, text, image, weight, ids, temperature, text_share=0.5, num_words=None
):
  """-log softmax of each positive, one loop at a time."""
  sides = [np.asarray(x, np.float64) for x in (text, image)]
  sides = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in sides]
  rows = [i for i in range(len(weight)) if weight[i] > 0]
  if num_words is None:
    sides = [[[x] for x in side] for side in sides]
  else:
    sides[0] = [x[:n] for x, n in zip(sides[0], num_words, strict=True)]

  def term(anchor, other):
    # Late interaction; of two vectors, their cosine.
    largest = [max(a @ b for b in other) for a in anchor]
    return np.exp(np.mean(largest) / temperature)

  total_loss = 0
  for i in rows:
    for side, share in ((0, text_share), (1, 1 - text_share)):
      anchor = sides[side][i]
      positive = term(anchor, sides[1 - side][i])
      total = positive
      for j in rows:
        if j == i or ids[j] == ids[i]:
          continue
        total += term(anchor, sides[1 - side][j])
        if kind == "nt_xent":
          total += term(anchor, sides[side][j])
      total_loss -= share * np.log(positive / total)
  return total_loss / len(rows)


kinds = pytest.mark.parametrize("kind", ["nt_xent", "clip"])


@functools.partial(jax.jit, static_argnames=("kind", "temperature"))
def with_gradients(kind, text, image, weight, **options):
  """The loss, and its gradients by both sides, in one program."""
  loss = jax.value_and_grad(contrastive.LOSSES[kind], argnums=(0, 1))
  return loss(text, image, weight, **options)


# Weights, pictures, and other options than a temperature of 0.3.
LAST = [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 2, 3]
SHARE = {"temperature": 0.2, "text_share": 0.3}
WORDS = {"num_words": np.array([1, 2, 3, 3, 1, 2])}
CASES = {
  "all": ([1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5], {}),
  "masked rows": ([1, 0, 1, 1, 0, 1], [0, -1, 2, 3, -1, 5], {}),
  "same pictures": ([1, 1, 1, 1, 1, 1], [0, 1, 0, 3, 3, 3], {}),
  "both": ([0, 1, 1, 0, 1, 1], [0, 0, 0, 1, 1, 2], {}),
  "shares": (*LAST, SHARE),
  "tokens": (*LAST, SHARE | WORDS),
}


@kinds
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(kind, case):
  """Central differences in float64."""
  weight, ids, options = CASES[case]
  weight, ids = np.float32(weight), np.array(ids)
  options = {"temperature": 0.3} | options
  inputs = vectors()
  if case == "tokens":
    inputs = np.random.default_rng(1).normal(size=(2, 6, 3, 4)).astype("f4")
  value, grads = with_gradients(kind, *inputs, weight, image_id=ids, **options)

  def exact(change):
    return reference(kind, *(inputs + change), weight, ids, **options)

  steps = 1e-5 * np.eye(inputs.size).reshape(-1, *inputs.shape)
  want = np.reshape([exact(h) - exact(-h) for h in steps], inputs.shape) / 2e-5
  np.testing.assert_allclose(value, exact(0), rtol=1e-5)
  np.testing.assert_allclose(np.stack(grads), want, rtol=1e-4, atol=1e-5)


@kinds
def test_masked_rows_have_no_gradient_and_no_influence(kind):
  text, image = vectors()
  weight = np.float32([1, 0, 1, 1, 0, 1])
  loss = functools.partial(with_gradients, kind, temperature=0.5)
  value, grads = loss(text, image, weight)
  text[1], image[4] = 1e3, -7
  other, other_grads = loss(text, image, weight)
  np.testing.assert_array_equal(value, other)
  for g, o in zip(grads, other_grads, strict=True):
    assert not np.any(g[1]) and not np.any(g[4])
    np.testing.assert_array_equal(g, o)
  # Neither a vector of zeros nor a batch without a row makes a NaN.
  text[2] = 0
  _, grads = loss(text, image, weight)
  assert all(np.isfinite(g).all() for g in grads)
  value, grads = loss(text, image, 0 * weight)
  assert value == 0 and not any(map(np.any, grads))


@kinds
@pytest.mark.parametrize("own", [1, -1], ids=["alike", "opposite"])
def test_a_low_temperature(kind, own):
  """Cosines of 1 and -1 only, whose exp(s / tau) is far above fp32's range."""
  text, weight = np.float32([[1], [1], [-1], [1], [-1], [1]]), np.ones(6, "f4")
  sides, options = (text, own * text), {"temperature": 0.005}
  value, grads = with_gradients(kind, *sides, weight, **options)
  want = reference(kind, *sides, weight, range(6), **options)
  np.testing.assert_allclose(value, want, rtol=1e-5)
  assert all(np.isfinite(g).all() for g in grads)


@kinds
@pytest.mark.parametrize("words", [False, True], ids=["vectors", "tokens"])
def test_bf16_is_the_same_loss(kind, words):
  """Of bf16 vectors, against the same numbers in fp32."""
  rng = np.random.default_rng(0)
  shape = (2, 64, 3, 32) if words else (2, 64, 32)
  half = rng.normal(size=shape).astype(jnp.bfloat16)
  options = {"temperature": 0.1}
  if words:
    options["num_words"] = rng.integers(1, 4, size=64)
  weight = np.ones(64, "f4")
  got, grads = with_gradients(kind, *half, weight, **options)
  want, want_grads = with_gradients(kind, *half.astype("f4"), weight, **options)
  np.testing.assert_allclose(got, want, rtol=3e-3)
  for g, w in zip(grads, want_grads, strict=True):
    assert g.dtype == jnp.bfloat16
    assert np.linalg.norm(np.float32(g) - w) / np.linalg.norm(w) < 0.02

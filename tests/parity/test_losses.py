"""The CRF against pytorch-crf, the contrastive losses against PyTorch."""

import functools

import jax
import numpy as np
import pytest
import torch
import torchcrf
from transformers.models.clip import modeling_clip

from mner_jax.models import contrastive, crf
from tests.parity import reference

# Sentences, words, tags; the last is a batch of the longest there are.
SIZES = [(1, 1, 2), (4, 6, 3), (8, 24, 9), (32, 128, 13)]


def error(got, want):
  """The largest error, relative to the largest entry of the reference."""
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  assert got.shape == want.shape
  return np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)


def crf_case(size, seed=0, *, integers=False):
  """Scores, emissions, tags and lengths: one of all words, one of 1."""
  batch, words, tags = size
  rng = np.random.default_rng(seed)

  def draw(*shape):
    x = rng.integers(-1, 2, shape) if integers else rng.normal(size=shape)
    return x.astype(np.float32)

  scores = crf.CRFParams(draw(tags), draw(tags, tags), draw(tags))
  lengths = rng.integers(1, words + 1, batch)
  lengths[0], lengths[-1] = words, 1
  path = rng.integers(tags, size=(batch, words))
  return scores, draw(batch, words, tags), path, lengths


def pytorch_crf(size, scores, lengths, dtype):
  """The module with these scores, and the mask that it wants."""
  _, words, tags = size
  model = torchcrf.CRF(tags, batch_first=True).to(dtype)
  with torch.no_grad():
    model.start_transitions.copy_(torch.tensor(scores.start))
    model.transitions.copy_(torch.tensor(scores.transitions))
    model.end_transitions.copy_(torch.tensor(scores.end))
  return model, torch.arange(words)[None] < torch.tensor(lengths)[:, None]


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
def weighted(scores, emissions, path, lengths, weight):
  values = crf.log_likelihood(scores, emissions, path, lengths)
  return (values * weight).sum(), values


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_crf_log_likelihood_and_gradients(size):
  scores, emissions, path, lengths = crf_case(size)
  # Each sentence with a weight of its own, or errors could cancel.
  weight = np.linspace(0.5, 1.5, len(lengths), dtype=np.float32)
  found = weighted(scores, emissions, path, lengths, weight)
  (_, values), (grads, emission_grads) = found

  # In fp64, so that the error is ours alone; its own in fp32 is larger.
  model, mask = pytorch_crf(size, scores, lengths, torch.float64)
  inputs = torch.tensor(emissions, dtype=torch.float64, requires_grad=True)
  want = model(inputs, torch.tensor(path), mask, reduction="none")
  (want * torch.tensor(weight)).sum().backward()
  if size[1] == 1:  # PyTorch has None where no transition is used
    model.transitions.grad = torch.zeros_like(model.transitions)
  # Measured: 4.2e-7.
  np.testing.assert_allclose(values, want.detach(), rtol=1e-6, atol=1e-6)
  # Measured: 3.2e-7 (pytorch-crf in fp32: 4.0e-5).
  assert error(emission_grads, inputs.grad) <= 1e-6
  assert error(grads.start, model.start_transitions.grad) <= 1e-6
  assert error(grads.transitions, model.transitions.grad) <= 1e-6
  assert error(grads.end, model.end_transitions.grad) <= 1e-6


@pytest.mark.parametrize("integers", [False, True], ids=["random", "ties"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_crf_decodes_the_same_path(size, integers):
  decode = jax.jit(crf.viterbi)
  for seed in range(3):
    scores, emissions, _, lengths = crf_case(size, seed, integers=integers)
    best, _ = decode(scores, emissions, lengths)
    model, mask = pytorch_crf(size, scores, lengths, torch.float32)
    want = model.decode(torch.tensor(emissions), mask)
    assert [b[:n].tolist() for b, n in zip(best, lengths, strict=True)] == want


def clip(text, image, temperature):
  text, image = (torch.nn.functional.normalize(x) for x in (text, image))
  return modeling_clip.clip_loss(text @ image.T / temperature)


@pytest.mark.parametrize("temperature", [0.5, 0.07])
@pytest.mark.parametrize("excluded", [0, 0.3], ids=["all", "some rows"])
@pytest.mark.parametrize("size", [(6, 5), (32, 768)], ids=str)
@pytest.mark.parametrize("kind", ["nt_xent", "clip"])
def test_contrastive_loss_and_gradients(kind, size, excluded, temperature):
  rng = np.random.default_rng(0)
  # Pairs that resemble each other, as after some training.
  text = rng.normal(size=size).astype(np.float32)
  image = (0.5 * text + rng.normal(size=size)).astype(np.float32)
  weight = (rng.random(size[0]) >= excluded).astype(np.float32)
  rows = np.flatnonzero(weight)
  loss = functools.partial(contrastive.LOSSES[kind], temperature=temperature)
  both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  value, grads = both(text, image, weight)

  their_loss = {"nt_xent": reference.nt_xent, "clip": clip}[kind]
  inputs = [
    torch.tensor(x[rows], dtype=torch.float64, requires_grad=True)
    for x in (text, image)
  ]
  want = their_loss(*inputs, temperature)
  want.backward()
  # Measured: 8.2e-8; gradients 1.9e-6 of their largest entry.
  np.testing.assert_allclose(value, want.item(), rtol=1e-6, atol=1e-6)
  for got, x in zip(grads, inputs, strict=True):
    want = np.zeros(size)
    want[rows] = x.grad
    assert error(got, want) <= 1e-5

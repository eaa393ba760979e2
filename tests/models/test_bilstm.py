"""The BiLSTM against PyTorch's, and what it says of padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mner_jax.config import TextConfig
from mner_jax.models.baselines.bilstm import BiLSTM

SIZES = TextConfig(
  encoder="bilstm", vocab_size=30, hidden_size=8, num_layers=2, dropout=0.0
)


def sentences(lengths, width):
  ids = np.random.default_rng(0).integers(1, 30, (len(lengths), width))
  mask = np.arange(width)[None] < np.array(lengths)[:, None]
  return ids.astype(np.int32), mask


@functools.cache
def params():
  ids, mask = sentences([3], 4)
  tree = BiLSTM(SIZES).init(jax.random.key(0), ids, mask)["params"]
  leaves, structure = jax.tree.flatten(tree)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return structure.unflatten(
    x + 0.3 * jax.random.normal(k, x.shape)
    for x, k in zip(leaves, keys, strict=True)
  )


def apply(ids, mask):
  return BiLSTM(SIZES).apply({"params": params()}, ids, mask)


def test_equals_torch():
  torch = pytest.importorskip("torch", reason="needs the extra [parity]")
  lengths = [7, 1, 4]
  ids, mask = sentences(lengths, 7)
  lstm = torch.nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True)
  tree = jax.tree.map(np.array, params())
  state = lstm.state_dict()
  for layer in range(2):
    for name, suffix in (("forward", ""), ("backward", "_reverse")):
      ours = tree[f"{name}_{layer}"]
      end = f"l{layer}{suffix}"
      state[f"weight_ih_{end}"] = torch.tensor(ours["input"]["kernel"].T)
      state[f"bias_ih_{end}"] = torch.tensor(ours["input"]["bias"])
      state[f"weight_hh_{end}"] = torch.tensor(ours["recurrent"].T)
      state[f"bias_hh_{end}"] = torch.zeros(16)
  lstm.load_state_dict(state)
  x = torch.tensor(tree["word_embeddings"]["embedding"])[torch.tensor(ids)]
  packed = torch.nn.utils.rnn.pack_padded_sequence(
    x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
  )
  with torch.no_grad():
    states, (last, _) = lstm(packed)
  states, _ = torch.nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
  got, pooled = apply(ids, mask)
  np.testing.assert_allclose(
    np.array(got)[mask], states.numpy()[mask], atol=2e-6
  )
  want = np.concatenate([last[2].numpy(), last[3].numpy()], axis=1)
  np.testing.assert_allclose(pooled, want, atol=2e-6)


def test_padding_changes_no_state():
  ids, mask = sentences([3, 5], 5)
  states, pooled = apply(ids, mask)
  longer = np.pad(ids, ((0, 0), (0, 4)), constant_values=7)
  other, other_pooled = apply(longer, np.pad(mask, ((0, 0), (0, 4))))
  np.testing.assert_allclose(
    np.array(other)[:, :5][mask], np.array(states)[mask], atol=1e-6
  )
  np.testing.assert_allclose(other_pooled, pooled, atol=1e-6)


def test_each_state_sees_the_whole_sentence_and_no_padding():
  ids, mask = sentences([4], 6)
  tree = params()

  def state(table, t):
    changed = tree | {"word_embeddings": {"embedding": table}}
    return jnp.sum(BiLSTM(SIZES).apply({"params": changed}, ids, mask)[0][0, t])

  ids[0] = np.arange(1, 7)
  for t in range(4):
    grad = jax.grad(state)(tree["word_embeddings"]["embedding"], t)
    moved = np.abs(grad).max(axis=1) > 0
    np.testing.assert_array_equal(np.flatnonzero(moved), np.arange(1, 5))

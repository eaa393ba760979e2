"""The BiLSTM against PyTorch's, which meets no padding."""

import jax
import numpy as np
import torch

from mner_jax.config import TextConfig
from mner_jax.models.baselines.bilstm import BiLSTM
from tests.conftest import random_params


def test_equals_torch():
  rng = np.random.default_rng(0)
  lengths = np.array([7, 1, 4])
  ids = rng.integers(1, 30, (3, 9)).astype(np.int32)
  mask = np.arange(9) < lengths[:, None]
  sizes = {"vocab_size": 30, "hidden_size": 8, "num_layers": 2}
  model = BiLSTM(TextConfig(encoder="bilstm", dropout=0.0, **sizes))
  abstract = jax.eval_shape(model.init, jax.random.key(0), ids, mask)["params"]
  params = random_params(abstract, 0.5)
  got, pooled = jax.jit(model.apply)({"params": params}, ids, mask)

  lstm = torch.nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True)
  state = {}
  for layer in range(2):
    for name, suffix in (("forward", ""), ("backward", "_reverse")):
      ours = params[f"{name}_{layer}"]
      end = f"l{layer}{suffix}"
      state[f"weight_ih_{end}"] = torch.tensor(ours["input"]["kernel"].T)
      state[f"bias_ih_{end}"] = torch.tensor(ours["input"]["bias"])
      state[f"weight_hh_{end}"] = torch.tensor(ours["recurrent"].T)
      state[f"bias_hh_{end}"] = torch.zeros(16)
  lstm.load_state_dict(state)
  table = torch.tensor(params["word_embeddings"]["embedding"])
  packed = torch.nn.utils.rnn.pack_padded_sequence(
    table[torch.tensor(ids)], lengths, batch_first=True, enforce_sorted=False
  )
  with torch.no_grad():
    states, (last, _) = lstm(packed)
  states, _ = torch.nn.utils.rnn.pad_packed_sequence(
    states, batch_first=True, total_length=9
  )
  error = np.abs(got - states.numpy())[mask]
  assert error.max() <= 2e-6
  want = np.concatenate([last[2].numpy(), last[3].numpy()], axis=1)
  np.testing.assert_allclose(pooled, want, atol=2e-6)

"""BiLSTM, the text encoder before BERT (Huang et al. 2015, arXiv:1508.01991).

Cell as in `torch.nn.LSTM`: gates i, f, g, o;
c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c).
B sentences, T word pieces, D width, H = D / 2 units in each direction.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.config import TextConfig


class LSTM(nn.Module):
  """One direction of one layer; padding leaves the state as it is."""

  units: int
  backward: bool
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, mask):
    """[B, T, D] and mask [B, T] bool -> states [B, T, H], the last [B, H]."""
    h = self.units

    def forget_little(key, shape, dtype):  # Jozefowicz et al. 2015
      return jnp.zeros(shape, dtype).at[h : 2 * h].set(1)

    gates = nn.Dense(
      4 * h, dtype=self.dtype, bias_init=forget_little, name="input"
    )(x)  # [B, T, 4 H], of all pieces in one product
    recurrent = self.param(
      "recurrent", nn.initializers.orthogonal(), (h, 4 * h)
    ).astype(self.dtype)

    def step(state, inputs):
      hidden, cell = state  # [B, H] each; fp32: it adds up over the sentence
      gate, inside = inputs  # [B, 4 H], [B]
      gate = (gate + hidden.astype(self.dtype) @ recurrent).astype(jnp.float32)
      i, f, g, o = jnp.split(gate, 4, axis=-1)
      new = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
      inside = inside[:, None]
      cell = jnp.where(inside, new, cell)
      hidden = jnp.where(inside, jax.nn.sigmoid(o) * jnp.tanh(new), hidden)
      return (hidden, cell), hidden

    zero = jnp.zeros((x.shape[0], h), jnp.float32)
    inputs = (jnp.swapaxes(gates, 0, 1), mask.T)
    (last, _), states = jax.lax.scan(
      step, (zero, zero), inputs, reverse=self.backward
    )
    return jnp.swapaxes(states, 0, 1).astype(self.dtype), last


class BiLSTM(nn.Module):
  """Word pieces to hidden states and a vector of the sentence, like `Bert`."""

  config: TextConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, input_ids, piece_mask, *, deterministic=True):
    """Encodes pieces.

    Args:
      input_ids: [B, T] int32.
      piece_mask: [B, T] bool, False for padding; it stands at the end.
      deterministic: False applies dropout, to what enters and leaves a layer.

    Returns:
      States [B, T, D], and [B, D]: each direction's state at its end.
    """
    cfg = self.config
    drop = nn.Dropout(cfg.dropout, deterministic=deterministic)
    x = nn.Embed(
      cfg.vocab_size, cfg.hidden_size, dtype=self.dtype, name="word_embeddings"
    )(input_ids)  # [B, T, D]
    for i in range(cfg.num_layers):
      x = drop(x)
      lstm = functools.partial(LSTM, cfg.hidden_size // 2, dtype=self.dtype)
      directions = [
        lstm(backward=False, name=f"forward_{i}")(x, piece_mask),
        lstm(backward=True, name=f"backward_{i}")(x, piece_mask),
      ]
      x, last = (
        jnp.concatenate(sides, axis=-1)
        for sides in zip(*directions, strict=True)
      )
    return drop(x), last.astype(self.dtype)


MODULE = BiLSTM  # `models.mner` finds it by this name

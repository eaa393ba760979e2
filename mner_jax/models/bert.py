"""BERT, the text encoder (Devlin et al. 2019, arXiv:1810.04805).

Reference implementation: `transformers.BertModel`. Post-norm blocks, exact
(erf) GELU, learned positions.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.config import TextConfig
from mner_jax.models.attention import Attention, flax_dense, layer_norm
from mner_jax.models.layers import run_layers


class BertLayer(nn.Module):
  """Attention and feed-forward, each with residual and LayerNorm."""

  config: TextConfig
  dtype: jnp.dtype = jnp.float32
  dense: Callable = flax_dense

  @nn.compact
  def __call__(self, x, mask, deterministic=True, keys=None):
    """[B, T, D] attends to `keys` [B, S, D], None = x, with mask [B, S]."""
    cfg = self.config
    norm = functools.partial(layer_norm, cfg.layer_norm_eps, self.dtype)
    drop = nn.Dropout(cfg.dropout, deterministic=deterministic)
    attention = Attention(
      cfg.num_heads,
      cfg.attention_dropout,
      dense=self.dense,
      dtype=self.dtype,
      name="attention",
    )
    keys = x if keys is None else keys
    y = attention(x, keys, mask, deterministic=deterministic)
    x = norm("attention_norm")(x + drop(y))
    width, inner = cfg.hidden_size, cfg.intermediate_size
    y = self.dense(inner, width, self.dtype, "intermediate")(x)
    y = jax.nn.gelu(y, approximate=False)
    y = self.dense(width, inner, self.dtype, "output")(y)
    return norm("output_norm")(x + drop(y))


class Bert(nn.Module):
  """Word pieces to hidden states and the pooled sentence."""

  config: TextConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, input_ids, piece_mask, *, deterministic=True):
    """Encodes pieces.

    Args:
      input_ids: [B, T] int32.
      piece_mask: [B, T] bool, False for padding.
      deterministic: False applies dropout.

    Returns:
      Last hidden states [B, T, D] and the pooler's output [B, D].
    """
    cfg = self.config

    embed = functools.partial(
      nn.Embed,
      features=cfg.hidden_size,
      dtype=self.dtype,
      embedding_init=nn.initializers.normal(0.02),
    )
    positions = jnp.arange(input_ids.shape[1])
    words = embed(cfg.vocab_size, name="word_embeddings")
    places = embed(cfg.max_positions, name="position_embeddings")
    types = embed(cfg.type_vocab_size, name="type_embeddings")
    x = words(input_ids) + places(positions)[None]  # [B, T, D]
    # Every piece is of the first segment: there is one sentence.
    x += types(jnp.zeros((1, 1), int))
    x = layer_norm(cfg.layer_norm_eps, self.dtype, "embeddings_norm")(x)
    x = nn.Dropout(cfg.dropout, deterministic=deterministic)(x)
    run = functools.partial(run_layers, unroll=cfg.unroll, remat=cfg.remat)
    lower = BertLayer(cfg, self.dtype, name="lower_layers")  # not trained
    x = run(lower, cfg.frozen_layers, x, piece_mask, deterministic)
    upper = BertLayer(cfg, self.dtype, name="layers")
    count = cfg.num_layers - cfg.frozen_layers
    x = run(upper, count, x, piece_mask, deterministic)
    pooled = nn.Dense(cfg.hidden_size, dtype=self.dtype, name="pooler")(x[:, 0])
    return x, jnp.tanh(pooled)

"""Multi-head attention, as in BERT, the ViT and the collaboration module."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


def flax_dense(width, fan_in, dtype, name):
  """Returns a Dense that starts as Flax's: that of encoders from scratch."""
  return nn.Dense(width, dtype=dtype, name=name)


def bert_dense(width, fan_in, dtype, name):
  """Returns a Dense that starts as BERT's, N(0, 0.02^2): UMT's and MAF's."""
  init = nn.initializers.normal(0.02)
  return nn.Dense(width, dtype=dtype, kernel_init=init, name=name)


def linear(width, fan_in, dtype, name):
  """Returns the Dense [..., fan_in] -> [..., width] of the model's new layers.

  It starts as `torch.nn.Linear` does, which the authors' program uses: kernel
  and bias from U(-1, 1) / sqrt(fan_in). Flax's kernel is 1.73 times wider.
  """

  def init(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, -1, 1) / fan_in**0.5

  return nn.Dense(
    width, dtype=dtype, kernel_init=init, bias_init=init, name=name
  )


class Attention(nn.Module):
  """softmax(q k^T / sqrt(H)) v, N heads of width H, then the output Dense.

  Reference: "Attention Is All You Need", 3.2; parameters as in BERT.

  Attributes:
    num_heads: N; N H = D.
    dropout: rate on the attention weights.
    tied_query: project queries with the key projection, as the authors'
      released fusion blocks do.
    dense: makes its Dense layers, as `linear` does.
    dtype: of the matmuls; the softmax is fp32.
  """

  num_heads: int
  dropout: float = 0.0
  tied_query: bool = False
  dense: Callable = flax_dense
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, queries, keys, mask=None, *, deterministic=True):
    """[B, Q, D], [B, S, C] and mask [B, S] bool (None = all) -> [B, Q, D].

    Keys [B, 1, C] with a mask [B, S] are S equal keys, projected once.
    """
    width = queries.shape[-1]

    def project(name, x):
      return self.dense(width, x.shape[-1], self.dtype, name)

    def heads(x):  # [B, S, D] -> [B, S, N, H]
      return x.reshape(*x.shape[:-1], self.num_heads, width // self.num_heads)

    key, value = project("key", keys), project("value", keys)
    query = key if self.tied_query else project("query", queries)
    q, k, v = heads(query(queries)), heads(key(keys)), heads(value(keys))
    scores = jnp.einsum("bqnh,bsnh->bnqs", q, k) / jnp.sqrt(q.shape[-1])
    # [B, N, Q, S]; here the scores of one key, [B, N, Q, 1], become S equal ones.
    scores = scores.astype(jnp.float32)
    if mask is not None:
      scores = jnp.where(
        mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min
      )
    weights = jax.nn.softmax(scores)
    # Stored where a caller asks for "intermediates", but not within run_layers.
    self.sow("intermediates", "weights", weights)
    weights = weights.astype(self.dtype)
    weights = nn.Dropout(self.dropout)(weights, deterministic=deterministic)
    # The value of one key stands for all S, without a copy.
    v = jnp.broadcast_to(v, (len(v), weights.shape[-1], *v.shape[2:]))
    context = jnp.einsum("bnqs,bsnh->bqnh", weights, v)
    context = context.reshape(*context.shape[:-2], width)
    return project("output", context)(context)


def layer_norm(eps, dtype, name):
  """LayerNorm as PyTorch computes it: two-pass variance, statistics in fp32."""
  return nn.LayerNorm(
    epsilon=eps, use_fast_variance=False, dtype=dtype, name=name
  )

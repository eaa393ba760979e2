"""Multi-head attention, as in BERT, the ViT and the collaboration module."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Attention(nn.Module):
  """softmax(q k^T / sqrt(H)) v, N heads of width H, then the output Dense.

  Reference: "Attention Is All You Need", 3.2; parameters as in BERT.

  Attributes:
    num_heads: N; N H = D.
    dropout: rate on the attention weights.
    tied_query: project queries with the key projection, as the authors'
      released fusion blocks do.
    dtype: of the matmuls; the softmax is fp32.
  """

  num_heads: int
  dropout: float = 0.0
  tied_query: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, queries, keys, mask=None, *, deterministic=True):
    """[B, Q, D], [B, S, D] and mask [B, S] bool (None = all) -> [B, Q, D]."""
    width = queries.shape[-1]

    def heads(x):  # [B, S, D] -> [B, S, N, H]
      return x.reshape(*x.shape[:-1], self.num_heads, width // self.num_heads)

    key = nn.Dense(width, dtype=self.dtype, name="key")
    value = nn.Dense(width, dtype=self.dtype, name="value")
    k, v = heads(key(keys)), heads(value(keys))
    if self.tied_query:
      query = key
    else:
      query = nn.Dense(width, dtype=self.dtype, name="query")
    q = heads(query(queries))
    scores = jnp.einsum("bqnh,bsnh->bnqs", q, k) / jnp.sqrt(q.shape[-1])
    scores = scores.astype(jnp.float32)  # [B, N, Q, S]
    if mask is not None:
      scores = jnp.where(
        mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min
      )
    weights = jax.nn.softmax(scores)
    # Stored only where a caller asks for "intermediates".
    self.sow("intermediates", "weights", weights)
    weights = weights.astype(self.dtype)
    weights = nn.Dropout(self.dropout)(weights, deterministic=deterministic)
    context = jnp.einsum("bnqs,bsnh->bqnh", weights, v)
    context = context.reshape(*context.shape[:-2], width)
    return nn.Dense(width, dtype=self.dtype, name="output")(context)


def layer_norm(eps, dtype, name):
  """LayerNorm as PyTorch computes it: two-pass variance, statistics in fp32."""
  return nn.LayerNorm(
    epsilon=eps, use_fast_variance=False, dtype=dtype, name=name
  )

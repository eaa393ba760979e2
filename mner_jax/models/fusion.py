"""How image tokens reach the words: collaboration, concatenation."""

import flax.linen as nn
import jax.numpy as jnp

from mner_jax.models.attention import Attention, layer_norm


class ImageAttention(nn.Module):
  """H = LN(m (W_o MHA(words, image tokens) + b_o) + words), one image branch.

  No feed-forward and no gate. With m = 0 (no picture) only the words remain.

  Attributes:
    released: project the queries with the KEY projection, as the authors'
      released code does.
  """

  num_heads: int
  dropout: float
  released: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, words, tokens, has_image, *, deterministic=True):
    """[B, W, D], [B, P, D] and [B] bool -> [B, W, D]."""
    attention = Attention(
      self.num_heads, self.dropout, tied_query=self.released,
      dtype=self.dtype, name="attention",
    )  # fmt: skip
    seen = attention(words, tokens, deterministic=deterministic)
    seen = nn.Dropout(self.dropout)(seen, deterministic=deterministic)
    seen = jnp.where(has_image[:, None, None], seen, 0)
    return layer_norm(1e-12, self.dtype, "norm")(seen + words)


class Collaboration(nn.Module):
  """One ImageAttention per branch, joined: H = Linear([H_v ; H_r])."""

  num_heads: int
  dropout: float
  released: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, words, branches, has_image, *, deterministic=True):
    """Joins the words with every image branch.

    Args:
      words: [B, W, D].
      branches: {name: image tokens [B, P, D]}, in the order of joining.
      has_image: [B] bool.
      deterministic: False applies dropout.

    Returns:
      [B, W, D].
    """
    joined = [
      ImageAttention(
        self.num_heads, self.dropout, self.released, self.dtype, name=name
      )(words, tokens, has_image, deterministic=deterministic)
      for name, tokens in branches.items()
    ]  # [B, W, D] each
    return nn.Dense(words.shape[-1], dtype=self.dtype, name="join")(
      jnp.concatenate(joined, axis=-1)
    )


class Concatenation(nn.Module):
  """H = Linear([words ; mean image token of each branch]), without attention.

  Every word gets the same vectors, 0 where there is no picture.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, words, branches, has_image):
    """Arguments and result as in `Collaboration`."""
    joined = [words]
    for tokens in branches.values():
      mean = jnp.where(has_image[:, None], jnp.mean(tokens, axis=1), 0)
      mean = jnp.broadcast_to(mean[:, None], (*words.shape[:2], mean.shape[-1]))
      joined.append(mean)  # [B, W, D]
    return nn.Dense(words.shape[-1], dtype=self.dtype, name="join")(
      jnp.concatenate(joined, axis=-1)
    )

"""How image tokens reach the words: collaboration, concatenation.

Every fusion, those in `baselines` too, is a module of a Config that maps words
and images to `Fused`. B sentences, W words, P image tokens, D width,
K tags.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.config import Config, ModelConfig
from mner_jax.models.attention import Attention, layer_norm, linear
from mner_jax.models.padding import length_mask


class Fused(NamedTuple):
  """Words that have seen their picture, and what a fusion adds of its own.

  Attributes:
    words: [B, W, D'].
    emissions: [B, W, K], averaged with those of the words; None = none.
    tagging: {name: scalar} auxiliary losses, added to L_crf.
    aligning: {name: scalar} auxiliary losses, added to L_cl.
  """

  words: jax.Array
  emissions: jax.Array | None = None
  tagging: dict[str, jax.Array] = {}
  aligning: dict[str, jax.Array] = {}


class ImageAttention(nn.Module):
  """H = LN(m (W_o MHA(words, image tokens) + b_o) + words), one image branch.

  No feed-forward and no gate. With m = 0 (no picture) only the words remain.
  Where `config.released`, queries go through the KEY projection.
  """

  config: ModelConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, words, tokens, has_image, mask, *, deterministic=True):
    """[B, W, D], [B, P, C], [B] bool and `Attention`'s mask -> [B, W, D]."""
    cfg = self.config
    attention = Attention(
      cfg.fusion_heads,
      cfg.dropout,
      tied_query=cfg.released,
      dense=linear,
      dtype=self.dtype,
      name="attention",
    )
    seen = attention(words, tokens, mask, deterministic=deterministic)
    seen = nn.Dropout(cfg.dropout)(seen, deterministic=deterministic)
    seen = jnp.where(has_image[:, None, None], seen, 0)
    return layer_norm(1e-12, self.dtype, "norm")(seen + words)


def with_scene(images):
  """Replaces the ResNet's regions by r, their mean: one token [B, 1, C]."""
  tokens = {k: images[k] for k in ("vit", "resnet") if k in images}  # as joined
  if "resnet" in tokens:
    tokens["resnet"] = jnp.mean(tokens["resnet"], axis=1, keepdims=True)
  return tokens


def image_tokens(images, width, dtype):
  """Tokens of each branch, [B, P, C]; of the ResNet one, W_r r.

  To be called in a module, which then owns W_r.
  """
  tokens = with_scene(images)
  if "resnet" in tokens:
    scene = tokens["resnet"]
    project = linear(width, scene.shape[-1], dtype, "scene_token")
    tokens["resnet"] = project(scene)
  return tokens


class Collaboration(nn.Module):
  """One ImageAttention per branch, joined: H = Linear([H_v ; H_r])."""

  config: Config
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, words, images, batch, *, deterministic=True):
    """Lets the words attend to every image branch.

    Args:
      words: [B, W, D].
      images: "vit", tokens [B, P, C], and "resnet", regions [B, G, C], or one
        of them.
      batch: see `data.batches.Examples.rows`.
      deterministic: False applies dropout.

    Returns:
      Fused, words [B, W, D].
    """
    width = words.shape[-1]
    # As in the authors' program the scene is W equal keys. At evaluation that is
    # one key; in training, dropout on one weight would drop a head's whole scene.
    masks = {"resnet": length_mask(batch["num_words"], words.shape[1])}
    joined = [
      ImageAttention(self.config.model, self.dtype, name=name)(
        words,
        tokens,
        batch["has_image"],
        masks.get(name),
        deterministic=deterministic,
      )
      for name, tokens in image_tokens(images, width, self.dtype).items()
    ]  # [B, W, D] each
    return _join(joined, width, self.dtype)


class Concatenation(nn.Module):
  """H = Linear([words ; mean image token of each branch]), without attention.

  Every word gets the same vectors, 0 where there is no picture.
  """

  config: Config
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, words, images, batch, *, deterministic=True):
    """Arguments and result as in `Collaboration`; there is no dropout."""
    width = words.shape[-1]
    joined = [words]
    for tokens in image_tokens(images, width, self.dtype).values():
      mean = jnp.mean(tokens, axis=1, keepdims=True)  # [B, 1, C]
      mean = jnp.where(batch["has_image"][:, None, None], mean, 0)
      shape = (*words.shape[:2], mean.shape[-1])
      joined.append(jnp.broadcast_to(mean, shape))  # [B, W, C]
    return _join(joined, width, self.dtype)


def _join(parts, width, dtype):
  """Returns Fused of a Linear of the parts, [B, W, C] each."""
  x = jnp.concatenate(parts, axis=-1)
  return Fused(linear(width, x.shape[-1], dtype, "join")(x))

"""The Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929).

Two published styles differ in details that weights depend on:

  "clip"    `transformers.CLIPVisionModel`: patches without bias, a LayerNorm
            before the blocks, quick GELU; the last hidden state is taken
            BEFORE the final LayerNorm.
  "google"  `transformers.ViTModel`: patches with bias, exact GELU; a final
            LayerNorm is applied.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.config import VitConfig
from mner_jax.models.attention import Attention, layer_norm
from mner_jax.models.layers import run_layers

# (mean, std) of the RGB channels, in [0, 1], that each style was trained with.
PIXEL_STATISTICS = {
  "clip": (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
  ),
  "google": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def normalise(pixels, mean, std, dtype):
  """[B, S, S, 3] uint8 -> the same shape, (x / 255 - mean) / std."""
  mean, std = (jnp.reshape(jnp.array(c), (1, 1, 1, 3)) for c in (mean, std))
  return ((pixels.astype(jnp.float32) / 255.0 - mean) / std).astype(dtype)


class VitLayer(nn.Module):
  """Pre-norm block: self-attention, then feed-forward."""

  config: VitConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):  # [B, P, D]
    cfg = self.config
    norm = functools.partial(layer_norm, cfg.layer_norm_eps, self.dtype)
    y = norm("attention_norm")(x)
    attention = Attention(cfg.num_heads, dtype=self.dtype, name="attention")
    x += attention(y, y)
    y = norm("output_norm")(x)
    y = nn.Dense(cfg.intermediate_size, dtype=self.dtype, name="intermediate")(
      y
    )
    if cfg.style == "clip":
      y *= jax.nn.sigmoid(1.702 * y)  # quick GELU
    else:
      y = jax.nn.gelu(y, approximate=False)
    return x + nn.Dense(cfg.hidden_size, dtype=self.dtype, name="output")(y)


class Vit(nn.Module):
  """A picture to a class token and its patches."""

  config: VitConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, pixels):
    """[B, S, S, 3] uint8 -> last hidden state [B, P, D], class token first."""
    cfg = self.config
    clip = cfg.style == "clip"
    x = normalise(pixels, *PIXEL_STATISTICS[cfg.style], self.dtype)
    patch = (cfg.patch_size, cfg.patch_size)
    embed = nn.Conv(
      cfg.hidden_size,
      kernel_size=patch,
      strides=patch,
      padding="VALID",
      use_bias=not clip,
      dtype=self.dtype,
      name="patch_embedding",
    )
    x = embed(x).reshape(x.shape[0], -1, cfg.hidden_size)  # [B, P - 1, D]
    init = nn.initializers.normal(0.02)
    token = self.param("class_embedding", init, (cfg.hidden_size,))
    token = jnp.broadcast_to(token, (x.shape[0], 1, cfg.hidden_size))
    x = jnp.concatenate([token.astype(x.dtype), x], axis=1)  # [B, P, D]
    positions = self.param("position_embedding", init, x.shape[1:])
    x += positions[None].astype(x.dtype)
    if clip:
      x = layer_norm(cfg.layer_norm_eps, self.dtype, "pre_norm")(x)
    layer = VitLayer(cfg, self.dtype, name="layers")
    x = run_layers(layer, cfg.num_layers, x, unroll=cfg.unroll, remat=cfg.remat)
    if not clip:
      x = layer_norm(cfg.layer_norm_eps, self.dtype, "final_norm")(x)
    return x

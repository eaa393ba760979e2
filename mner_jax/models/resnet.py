"""ResNet with bottleneck blocks (He et al. 2016, arXiv:1512.03385), v1.5.

Reference implementation: torchvision's `resnet152` in eval mode. BatchNorm is
folded into the constants that it is at inference, scale and bias, so that the
scene encoder has parameters only; frozen, as 2M-NER uses it, they never
change.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.config import ResnetConfig
from mner_jax.models.layers import run_layers
from mner_jax.models.vit import normalise

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class FoldedBatchNorm(nn.Module):
  """x scale + bias, scale = gamma / sqrt(var + eps), per channel."""

  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x):  # [B, h, w, C]
    scale = self.param("scale", self.scale_init, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    scale, bias = (c.astype(x.dtype)[None, None, None] for c in (scale, bias))
    return x * scale + bias


def convolution(features, size, stride, name, dtype):
  """A square convolution without bias, padded by size // 2 on each side."""
  return nn.Conv(
    features,
    kernel_size=(size, size),
    strides=(stride, stride),
    padding=size // 2,
    use_bias=False,
    dtype=dtype,
    kernel_init=nn.initializers.he_normal(),
    name=name,
  )


class Bottleneck(nn.Module):
  """1x1, 3x3 (with the stride), 1x1 to 4 x width; residual."""

  width: int
  stride: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):  # [B, h, w, C] -> [B, h / stride, w / stride, 4 width]
    conv = functools.partial(convolution, dtype=self.dtype)
    y = conv(self.width, 1, 1, "conv1")(x)
    y = jax.nn.relu(FoldedBatchNorm(name="bn1")(y))
    y = conv(self.width, 3, self.stride, "conv2")(y)
    y = jax.nn.relu(FoldedBatchNorm(name="bn2")(y))
    y = conv(4 * self.width, 1, 1, "conv3")(y)
    # From scratch a block starts as the identity: nothing normalises here.
    y = FoldedBatchNorm(nn.initializers.zeros, name="bn3")(y)
    if x.shape != y.shape:
      x = conv(4 * self.width, 1, self.stride, "downsample_conv")(x)
      x = FoldedBatchNorm(name="downsample_bn")(x)
    return jax.nn.relu(x + y)


class ResNet(nn.Module):
  """A picture to its regions; their mean is the scene vector."""

  config: ResnetConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, pixels):
    """[B, S, S, 3] uint8 -> regions [B, G, C], row by row.

    Of four stages, as published: G = (S / 32)^2, C = 32 width = 2048.
    """
    cfg = self.config
    x = normalise(pixels, *IMAGENET_STATISTICS, self.dtype)
    x = convolution(cfg.width, 7, 2, "conv1", self.dtype)(x)
    x = jax.nn.relu(FoldedBatchNorm(name="bn1")(x))
    x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    for stage, blocks in enumerate(cfg.stages):
      block = functools.partial(Bottleneck, cfg.width * 2**stage)
      name, stride = f"stage{stage + 1}_block", 2 if stage else 1
      x = block(stride, self.dtype, name=f"{name}0")(x)
      equal = block(1, self.dtype, name=f"{name}s")
      x = run_layers(equal, blocks - 1, x, unroll=cfg.unroll)
    return x.reshape(x.shape[0], -1, x.shape[-1])

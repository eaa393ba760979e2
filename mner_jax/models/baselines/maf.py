"""MAF, matching and alignment, a baseline of the tables.

Xu, Huang, Sha, Wang (WSDM 2022): "MAF: A General Matching and Alignment
Framework for Multimodal Named Entity Recognition".

    A  = Layer(H <- V)                     words see the regions of the picture
    p  = sigmoid(w [mean H ; mean A])      does this picture belong to them?
    A' = p A
    H  = [H ; g A'],  g = sigmoid(W_t H + W_i A')

Layer is a whole layer of BERT; the means are over the words. (The authors'
classifier has a weight for each of 128 positions instead, and two outputs
whose softmax p is.) p is learnt from sentences that get the picture of
another one: a quarter of the batch (the authors' 16 of 64), tagged with it too.

B sentences, W words, G regions, D width.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mner_jax.config import Config
from mner_jax.models.attention import bert_dense
from mner_jax.models.bert import BertLayer
from mner_jax.models.fusion import Fused
from mner_jax.models.padding import length_mask, weighted_mean


class MAF(nn.Module):
  """A fusion of words with the ResNet's regions; without a picture A' = 0."""

  config: Config
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, words, images, batch, *, deterministic=True):
    """Returns Fused: words [B, W, 2 D] and the matching loss.

    Arguments as in `fusion.Collaboration`. `deterministic=False` gives some
    sentences another's picture, for the matching loss to tell apart.
    """

    def dense(name, x, width, dtype=self.dtype):
      return bert_dense(width, x.shape[-1], dtype, name)(x)

    cfg, width = self.config.model, words.shape[-1]
    has_image = batch["has_image"] & (batch["weight"] > 0)
    image_id, own = batch["image_id"], jnp.ones_like(has_image)
    regions = images["resnet"]  # [B, G, C]
    v = dense("regions", regions, width)  # [B, G, D]
    if not deterministic:
      partner = partners(self.make_rng("dropout"), has_image)
      v = v[partner]
      own = jnp.take(image_id, partner) == image_id
    sizes = dataclasses.replace(cfg.text, num_heads=cfg.fusion_heads)
    layer = BertLayer(sizes, self.dtype, bert_dense, name="see")
    a = layer(words, None, deterministic, v)
    both = jnp.concatenate([words, a], axis=-1)  # [B, W, 2 D]
    inside = length_mask(batch["num_words"], words.shape[1])[:, :, None]
    count = jnp.maximum(jnp.sum(inside, axis=1), 1)  # 0 in rows that only pad
    mean = jnp.sum(jnp.where(inside, both, 0), axis=1) / count
    logits = dense("match", mean, 1, jnp.float32)[:, 0]  # [B]
    self.sow("intermediates", "own", own)  # for tests; costs nothing else
    loss = weighted_mean(
      optax.sigmoid_binary_cross_entropy(logits, own),
      has_image.astype(jnp.float32),
    )
    p = jnp.where(has_image, jax.nn.sigmoid(logits), 0).astype(a.dtype)
    a *= p[:, None, None]
    gate = dense("gate_words", words, width) + dense("gate_seen", a, width)
    joined = jnp.concatenate([words, jax.nn.sigmoid(gate) * a], axis=-1)
    return Fused(joined, aligning={"match": loss})


def partners(key, has_image):
  """[B] int: whose picture each row gets; B // 8 pairs of rows swap theirs.

  Only rows with a picture swap; where these are too few, fewer pairs do.
  """
  rows = len(has_image)
  pairs = rows // 8
  chance = jax.random.uniform(key, (rows,))
  # Those with a picture first, in random order; neighbours are a pair.
  order = jnp.argsort(jnp.where(has_image, chance, 2))[: 2 * pairs]
  order = order.reshape(pairs, 2)
  own = jnp.arange(rows)
  partner = own.at[order].set(order[:, ::-1])
  return jnp.where(has_image & jnp.take(has_image, partner), partner, own)


MODULE = MAF  # `models.mner` finds it by this name

"""MAF, matching and alignment, as tables compare with it.

Xu, Huang, Sha, Wang (WSDM 2022): "MAF: A General Matching and Alignment
Framework for Multimodal Named Entity Recognition".

    A  = Layer(H <- V)                     words see the regions of the picture
    p  = sigmoid(w [mean H ; mean A])      does this picture belong to them?
    A' = p A
    H  = [H ; g A'],  g = sigmoid(W_t H + W_i A')

Layer is a whole layer of BERT; the means are over the words. (The authors'
classifier has a weight for each of 128 positions instead, and two outputs
whose softmax p is.) p is learnt from sentences with another's picture, a
quarter of the batch (the authors' 16 of 64), which are tagged with it too.

B sentences, W words, G regions, D width.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mner_jax.config import TextConfig
from mner_jax.models.bert import BertLayer
from mner_jax.models.contrastive import weighted_mean


class Match(NamedTuple):
  """Whether each picture belongs to its sentence."""

  logits: jax.Array  # [B], of p
  own: jax.Array  # [B] bool, the truth
  has_image: jax.Array  # [B] bool, whether the row counts


class MAF(nn.Module):
  """The words of a sentence and its picture; without one, A' = 0."""

  config: TextConfig  # of its layer
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, words, word_mask, regions, has_image, image_id, *, deterministic=True
  ):
    """Gives each word what it sees; in training swaps pictures.

    Args:
      words: [B, W, D].
      word_mask: [B, W] bool.
      regions: [B, G, C], of each sentence's picture.
      has_image: [B] bool.
      image_id: [B] int, equal for equal pictures.
      deterministic: False applies dropout and swaps pictures.

    Returns:
      [B, W, 2 D] and the Match.
    """

    def dense(width, name, dtype=self.dtype):
      return nn.Dense(width, dtype=dtype, name=name)

    width = words.shape[-1]
    own = jnp.ones_like(has_image)
    v = dense(width, "regions")(regions)  # [B, G, D]
    if not deterministic:
      partner = partners(self.make_rng("dropout"), has_image)
      v = v[partner]
      own = jnp.take(image_id, partner) == image_id
    a = BertLayer(self.config, self.dtype, name="see")(
      words, None, deterministic, v
    )
    both = jnp.concatenate([words, a], axis=-1)  # [B, W, 2 D]
    inside = word_mask[:, :, None]
    count = jnp.maximum(jnp.sum(inside, axis=1), 1)  # 0 in rows that only pad
    mean = jnp.sum(jnp.where(inside, both, 0), axis=1) / count
    logits = dense(1, "match", jnp.float32)(mean)[:, 0]  # [B]
    p = jnp.where(has_image, jax.nn.sigmoid(logits), 0).astype(a.dtype)
    a *= p[:, None, None]
    gate = dense(width, "gate_words")(words) + dense(width, "gate_seen")(a)
    joined = jnp.concatenate([words, jax.nn.sigmoid(gate) * a], axis=-1)
    return joined, Match(logits, own, has_image)


def partners(key, has_image):
  """[B] int: whose picture each row gets; B // 8 pairs of rows swap theirs.

  Only rows that have one do; where these are too few, fewer pairs swap.
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


def match_loss(match):
  """Mean over the pictures of the cross-entropy of p."""
  return weighted_mean(
    optax.sigmoid_binary_cross_entropy(match.logits, match.own),
    match.has_image.astype(jnp.float32),
  )

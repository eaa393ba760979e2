"""UMT, the Unified Multimodal Transformer, a baseline of the tables.

Yu, Jiang, Yang, Xia (ACL 2020): "Improving Multimodal Named Entity Recognition
via Entity Span Detection with Unified Multimodal Transformer".

    R = Layer(H), A = Layer(H)             words, for their tags and for spans
    P = Layer(R <- V)                      words see the regions of the picture
    T = Layer(R <- Layer(V <- R))          and what these regions see in words
    H = [T ; g P],  g = sigmoid(W [T ; P])

Each Layer is a whole BERT layer with weights of its own; Q <- KV are its
queries and keys. A second CRF finds spans (O, B, I) in A, and its emissions are
half of the tags'. B sentences, W words, G regions, D width, K tags.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.config import Config
from mner_jax.models import crf
from mner_jax.models.attention import bert_dense
from mner_jax.models.bert import BertLayer
from mner_jax.models.fusion import Fused
from mner_jax.models.padding import length_mask, weighted_mean


class UMT(nn.Module):
  """A fusion of the words with the ResNet's regions, and a span task.

  Without a picture (ours; the authors insert a fixed one) V and g P are 0.
  """

  config: Config
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, words, images, batch, *, deterministic=True):
    """Returns Fused: words [B, W, 2 D], emissions of the spans, their loss.

    Arguments as in `fusion.Collaboration`.
    """
    cfg = self.config.model
    sizes = dataclasses.replace(cfg.text, num_heads=cfg.fusion_heads)
    layer = functools.partial(BertLayer, sizes, self.dtype, bert_dense)
    width = words.shape[-1]
    word_mask = length_mask(batch["num_words"], words.shape[1])
    has_image = batch["has_image"][:, None, None]
    regions = images["resnet"]  # [B, G, C]
    v = bert_dense(width, regions.shape[-1], self.dtype, "regions")(regions)
    v = jnp.where(has_image, v, 0)  # [B, G, D]
    r = layer(name="words")(words, word_mask, deterministic)
    a = layer(name="spans")(words, word_mask, deterministic)
    p = layer(name="see")(r, None, deterministic, v)
    q = layer(name="ask")(v, word_mask, deterministic, r)  # [B, G, D]
    t = layer(name="hear")(r, None, deterministic, q)
    gate = bert_dense(width, 2 * width, self.dtype, "gate")
    gate = gate(jnp.concatenate([t, p], axis=-1))
    p = jnp.where(has_image, jax.nn.sigmoid(gate) * p, 0)

    spans = bert_dense(3, width, jnp.float32, "span_emissions")(a)
    params = crf.CRF(3, name="span_crf")()
    tags = batch["tags"]
    tags = jnp.where(tags > 0, 1 + (tags - 1) % 2, 0)  # O, B or I
    log_p = crf.log_likelihood(params, spans, tags, batch["num_words"])
    loss = 0.5 * weighted_mean(-log_p, batch["weight"])
    # The authors' .25 for each of four types.
    types = len(self.config.data.labels)
    o, b, i = jnp.split(spans, 3, axis=-1)  # [B, W, 1]
    # In the order of `Config.tags`: O, then B- and I- of each type.
    emissions = jnp.concatenate([o] + [b / types, i / types] * types, axis=-1)
    joined = jnp.concatenate([t, p], axis=-1)
    return Fused(joined, emissions, tagging={"spans": loss})


MODULE = UMT  # `models.mner` finds it by this name

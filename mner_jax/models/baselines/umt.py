"""UMT, the Unified Multimodal Transformer, as tables compare with it.

Yu, Jiang, Yang, Xia (ACL 2020): "Improving Multimodal Named Entity Recognition
via Entity Span Detection with Unified Multimodal Transformer".

    R = Layer(H), A = Layer(H)             words, for their tags and for spans
    P = Layer(R <- V)                      words see the regions of the picture
    T = Layer(R <- Layer(V <- R))          and what these regions see in words
    H = [T ; g P],  g = sigmoid(W [T ; P])

Each Layer is a whole layer of BERT of its own; Q <- KV are its queries and
keys. A second CRF finds spans (O, B, I) in A, and its emissions are half of
the tags'. B sentences, W words, G regions, D width, K tags.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.config import TextConfig
from mner_jax.models import crf
from mner_jax.models.bert import BertLayer
from mner_jax.models.contrastive import weighted_mean


class Spans(NamedTuple):
  """What the auxiliary task says."""

  emissions: jax.Array  # [B, W, 3], scores of O, B and I
  crf: crf.Scores


class UMT(nn.Module):
  """The words of a sentence and its picture.

  Without a picture (ours; the authors insert a fixed one) V and g P are 0.
  """

  config: TextConfig  # of its layers
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, words, word_mask, regions, has_image, *, deterministic=True
  ):
    """[B, W, D], [B, W] bool, [B, G, C], [B] bool -> [B, W, 2 D] and Spans."""
    layer = functools.partial(BertLayer, self.config, self.dtype)
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    seen = has_image[:, None, None]
    v = dense(words.shape[-1], name="regions")(regions)
    v = jnp.where(seen, v, 0)  # [B, G, D]
    r = layer(name="words")(words, word_mask, deterministic)
    a = layer(name="spans")(words, word_mask, deterministic)
    p = layer(name="see")(r, None, deterministic, v)
    q = layer(name="ask")(v, word_mask, deterministic, r)  # [B, G, D]
    t = layer(name="hear")(r, None, deterministic, q)
    gate = dense(words.shape[-1], name="gate")(jnp.concatenate([t, p], -1))
    p = jnp.where(seen, jax.nn.sigmoid(gate) * p, 0)
    spans = Spans(
      nn.Dense(3, dtype=jnp.float32, name="span_emissions")(a),
      crf.CRF(3, name="span_crf")(),
    )
    return jnp.concatenate([t, p], axis=-1), spans


def mix(emissions, spans):
  """Half of the tags' emissions [B, W, K], half of the spans'.

  B and I are shared out among the types: the authors' .25 each of four.
  """
  types = emissions.shape[-1] // 2
  o, b, i = jnp.split(spans.emissions, 3, axis=-1)  # [B, W, 1]
  # In the order of `Config.tags`: O, then B- and I- of each type.
  spread = jnp.concatenate([o] + [b / types, i / types] * types, axis=-1)
  return (emissions + spread) / 2


def span_loss(spans, batch):
  """Mean over sentences of the span CRF's negative log-likelihood."""
  tags = batch["tags"]
  tags = jnp.where(tags > 0, 1 + (tags - 1) % 2, 0)  # O, B or I
  nll = -crf.log_likelihood(
    spans.crf, spans.emissions, tags, batch["num_words"]
  )
  return weighted_mean(nll, batch["weight"])

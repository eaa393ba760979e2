"""2M-NER: text and image encoders, contrastive alignment, collaboration, CRF.

Wang, Feng, Liu, Wang (2024): "Contrastive Learning for Multilingual and
Multimodal NER with Language and Modal Fusion".

B sentences, T word pieces, W words, P image tokens, D width, K tags.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.config import Config
from mner_jax.models import contrastive, crf
from mner_jax.models.baselines import maf, umt
from mner_jax.models.baselines.bilstm import BiLSTM
from mner_jax.models.bert import Bert
from mner_jax.models.contrastive import ProjectionHead
from mner_jax.models.fusion import Collaboration, Concatenation
from mner_jax.models.resnet import ResNet
from mner_jax.models.vit import Vit


class Output(NamedTuple):
  """What the model says of a batch, before the losses."""

  emissions: jax.Array  # [B, W, K], scores of each word's tags
  crf: crf.Scores
  # t, compared with each of the images {"vit": v, "resnet": r}: [B, D] each,
  # or [B, W, D] and [B, P, D] where words are aligned.
  text: jax.Array | None
  images: dict[str, jax.Array]
  spans: umt.Spans | None
  match: maf.Match | None


class MultimodalNER(nn.Module):
  """2M-NER; without image branches, BERT-CRF.

  With `config.model.released` it computes what the authors' released code
  does: a word is the piece BEFORE its first piece, and the collaboration's
  queries go through the key projection.
  """

  config: Config

  @nn.compact
  def __call__(self, batch, *, deterministic=True):
    """`batch`: see `data.batches.Examples.rows`; False applies dropout."""
    cfg, dtype = self.config.model, jnp.dtype(self.config.dtype)
    width = cfg.text.hidden_size

    # Text: H = BERT(pieces); a word is its first piece.
    input_ids = batch["input_ids"]
    piece_mask = (
      jnp.arange(input_ids.shape[1])[None] < batch["num_pieces"][:, None]
    )
    Encoder = BiLSTM if cfg.text.encoder == "bilstm" else Bert
    pieces, pooled = Encoder(cfg.text, dtype, name="text")(
      input_ids, piece_mask, deterministic=deterministic
    )  # [B, T, D], [B, D]
    first_piece = batch["first_piece"] - (1 if cfg.released else 0)
    words = take_words(pieces, first_piece)  # [B, W, D]

    # Images: the ViT's tokens, and one vector for the scene.
    images, grid = {}, None
    if cfg.vit.enabled:
      images["vit"] = Vit(cfg.vit, dtype, name="vit")(batch["pixels"])
    if cfg.resnet.enabled:
      grid = ResNet(cfg.resnet, dtype, name="resnet")(batch["scene_pixels"])
      # [B, 1, 2048], global average pool
      images["resnet"] = jnp.mean(grid, axis=(1, 2))[:, None]

    # Alignment: t, v and r, which the contrastive loss compares.
    aligned, text = {}, None
    if images and self.config.loss.contrastive != "none":
      by_word = self.config.loss.alignment == "word"
      head = functools.partial(ProjectionHead, width, dtype)
      text = head(name="text_head")(words if by_word else pooled)
      for name, x in images.items():  # [B, P, D]; a sentence sees all at once
        x = x if by_word else x.reshape(x.shape[0], -1)
        aligned[name] = head(name=f"{name}_head")(x)

    # Fusion: the pictures reach the words.
    words, spans, match = _fuse(
      cfg, dtype, words, images, grid, batch, deterministic
    )
    words = nn.Dropout(cfg.dropout)(words, deterministic=deterministic)
    num_tags = len(self.config.tags)
    # fp32: the CRF adds these up over the whole sentence.
    emissions = nn.Dense(num_tags, dtype=jnp.float32, name="emissions")(words)
    if cfg.decoder == "softmax":
      scores = crf.softmax_scores(num_tags)
    else:
      scores = crf.CRF(num_tags, name="crf")()
    if spans is not None:
      emissions = umt.mix(emissions, spans)
    return Output(emissions, scores, text, aligned, spans, match)


def _fuse(cfg, dtype, words, images, grid, batch, deterministic):
  """Words that have seen their picture; UMT's spans and MAF's match, or None.

  2M-NER is the collaboration, H = Linear([H_v ; H_r]); the others are what it
  is compared with.
  """
  if not images or cfg.fusion == "none":
    return words, None, None
  has_image = batch["has_image"]
  if cfg.fusion in ("umt", "maf"):
    # Their layers are BERT's, with heads of their own number.
    layer = dataclasses.replace(cfg.text, num_heads=cfg.fusion_heads)
    regions = grid.reshape(grid.shape[0], -1, grid.shape[-1])  # [B, 49, 2048]
    word_mask = jnp.arange(words.shape[1])[None] < batch["num_words"][:, None]
    if cfg.fusion == "umt":
      words, spans = umt.UMT(layer, dtype, name="fusion")(
        words, word_mask, regions, has_image, deterministic=deterministic
      )
      return words, spans, None
    words, match = maf.MAF(layer, dtype, name="fusion")(
      words, word_mask, regions, has_image & (batch["weight"] > 0),
      batch["image_id"], deterministic=deterministic,
    )  # fmt: skip
    return words, None, match
  tokens = dict(images)
  if "resnet" in tokens:
    project = nn.Dense(words.shape[-1], dtype=dtype, name="scene_token")  # W_r
    tokens["resnet"] = project(images["resnet"])  # [B, 1, D]
  if cfg.fusion == "concatenation":
    words = Concatenation(dtype, name="fusion")(words, tokens, has_image)
  else:
    words = Collaboration(
      cfg.fusion_heads, cfg.dropout, cfg.released, dtype, name="fusion"
    )(words, tokens, has_image, deterministic=deterministic)
  return words, None, None


def take_words(pieces, first_piece):
  """Gathers [B, T, D] at [B, W] -> [B, W, D]."""
  return jnp.take_along_axis(pieces, first_piece[:, :, None], axis=1)


def losses(config, output, batch, replicate=lambda x: x):
  """L = 2 (alpha L_crf + (1 - alpha) L_cl), and its parts.

  L_crf is the mean over sentences (long ones: over their windows) of the
  CRF's negative log-likelihood, L_cl = L(t, v) + L(t, r). With nothing to
  align, L = L_crf. UMT adds half of its spans' loss to L_crf, MAF its
  matching loss to L_cl.

  Args:
    config: the Config.
    output: of the model.
    batch: the batch it was computed from.
    replicate: see `contrastive.nt_xent`.

  Returns:
    (L, parts), fp32 scalars; of "crf", "spans", "contrastive_vit",
    "contrastive_resnet" and "match" those that there are.
  """
  weight = batch["weight"]
  nll = -crf.log_likelihood(
    output.crf, output.emissions, batch["tags"], batch["num_words"]
  )  # [B]
  parts = {"crf": contrastive.weighted_mean(nll, weight)}
  l_crf = parts["crf"]
  if output.spans is not None:
    parts["spans"] = umt.span_loss(output.spans, batch)
    l_crf += 0.5 * parts["spans"]
  by_word = config.loss.alignment == "word"
  aligned = {}
  for name, image in output.images.items():
    aligned[f"contrastive_{name}"] = contrastive.LOSSES[
      config.loss.contrastive
    ](
      output.text,
      image,
      weight * batch["has_image"],
      temperature=config.loss.temperature,
      text_share=config.loss.text_share,
      num_words=batch["num_words"] if by_word else None,
      image_id=None if config.model.released else batch["image_id"],
      replicate=replicate,
    )
  if output.match is not None:
    aligned["match"] = maf.match_loss(output.match)
  if not aligned:
    return l_crf, parts
  alpha, l_cl = config.loss.alpha, sum(aligned.values())
  return 2 * (alpha * l_crf + (1 - alpha) * l_cl), parts | aligned

"""2M-NER: text and image encoders, contrastive alignment, collaboration, CRF.

Wang, Feng, Liu, Wang (2024): "Contrastive Learning for Multilingual and
Multimodal NER with Language and Modal Fusion".

B sentences, T word pieces, W words, P image tokens, D width, K tags.
"""

import functools
import pkgutil
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mner_jax.config import Config
from mner_jax.models import contrastive, crf
from mner_jax.models.attention import linear
from mner_jax.models.bert import Bert
from mner_jax.models.contrastive import ProjectionHead
from mner_jax.models.fusion import (
  Collaboration,
  Concatenation,
  Fused,
  with_scene,
)
from mner_jax.models.padding import length_mask, weighted_mean
from mner_jax.models.resnet import ResNet
from mner_jax.models.vit import Vit

_ENCODERS = {"bert": Bert}
_FUSIONS = {"collaboration": Collaboration, "concatenation": Concatenation}


class Output(NamedTuple):
  """What the model computes of a batch, before the losses."""

  emissions: jax.Array  # [B, W, K], scores of each word's tags
  crf: crf.CRFParams
  # t, compared with each of the images {"vit": v, "resnet": r}: [B, D] each,
  # or [B, W, D] and [B, P, D] where words are aligned.
  text: jax.Array | None
  images: dict[str, jax.Array]
  fused: Fused  # with the fusion's auxiliary losses


class MultimodalNER(nn.Module):
  """2M-NER; without image branches, BERT-CRF.

  With `config.model.released` it computes what the authors' released code
  does: a word is the piece BEFORE its first piece, the collaboration's queries
  go through the key projection, and sentences with the same picture are
  negatives of each other.
  """

  config: Config

  @nn.compact
  def __call__(self, batch, *, deterministic=True):
    """Returns the Output of a batch of `data.batches.Examples.rows`.

    `deterministic=False` applies dropout.
    """
    cfg, dtype = self.config.model, jnp.dtype(self.config.dtype)

    # Text: H = BERT(pieces); a word is its first piece.
    input_ids = batch["input_ids"]
    piece_mask = length_mask(batch["num_pieces"], input_ids.shape[1])
    encoder = _ENCODERS.get(cfg.text.encoder) or _baseline(cfg.text.encoder)
    pieces, pooled = encoder(cfg.text, dtype, name="text")(
      input_ids, piece_mask, deterministic=deterministic
    )  # [B, T, D], [B, D]
    words = take_words(pieces, batch["first_piece"] - int(cfg.released))
    # [B, W, D]

    # Images: the ViT's tokens [B, P, C], and the ResNet's regions [B, G, C],
    # whose mean is the scene's one vector.
    images = {}
    if cfg.vit.enabled:
      images["vit"] = Vit(cfg.vit, dtype, name="vit")(batch["pixels"])
    if cfg.resnet.enabled:
      resnet = ResNet(cfg.resnet, dtype, name="resnet")
      images["resnet"] = resnet(batch["scene_pixels"])

    # Alignment: t, v and r, which the contrastive loss compares.
    text, aligned = None, {}
    if images and self.config.loss.contrastive != "none":
      text, aligned = self._align(words, pooled, images, dtype)

    # Collaboration: the pictures reach the words.
    fused = Fused(words)
    if images and cfg.fusion != "none":
      fusion = _FUSIONS.get(cfg.fusion) or _baseline(cfg.fusion)
      fused = fusion(self.config, dtype, name="fusion")(
        words, images, batch, deterministic=deterministic
      )

    # CRF. fp32: it adds the emissions up over the whole sentence.
    drop = nn.Dropout(cfg.dropout, deterministic=deterministic)
    num_tags = len(self.config.tags)
    width = fused.words.shape[-1]
    classify = linear(num_tags, width, jnp.float32, "emissions")
    emissions = classify(drop(fused.words))  # [B, W, K]
    if fused.emissions is not None:
      emissions = (emissions + fused.emissions) / 2
    if cfg.decoder == "softmax":
      params = crf.softmax_params(num_tags)
    else:
      params = crf.CRF(num_tags, name="crf")()
    return Output(emissions, params, text, aligned, fused)

  def _align(self, words, pooled, images, dtype):
    """Projects text and images into one space: (t, {"vit": v, "resnet": r})."""
    head = functools.partial(ProjectionHead, words.shape[-1], dtype)
    text, tokens = words, with_scene(images)  # [B, W, D], [B, P, C] each
    if self.config.loss.alignment == "sentence":
      # A sentence is compared with all tokens of its picture at once, [B, P C].
      tokens = {k: x.reshape(x.shape[0], -1) for k, x in tokens.items()}
      text = pooled
    aligned = {k: head(name=f"{k}_head")(x) for k, x in tokens.items()}
    return head(name="text_head")(text), aligned


def _baseline(name):
  """Returns the module of what the tables compare 2M-NER with, by its name."""
  return pkgutil.resolve_name(f"mner_jax.models.baselines.{name}:MODULE")


def take_words(pieces, first_piece):
  """Gathers [B, T, D] at [B, W] -> [B, W, D]."""
  return jnp.take_along_axis(pieces, first_piece[:, :, None], axis=1)


def losses(config, output, batch, split=lambda loss: loss):
  """L = 2 (alpha L_crf + (1 - alpha) L_cl), and its parts.

  L_crf is the mean over sentences (long ones: over their windows) of the
  CRF's negative log-likelihood, L_cl = L(t, v) + L(t, r). With nothing to
  align L = L_crf and alpha is not used (the authors': 2 alpha L_crf, a factor
  that Adam divides out). A fusion may add auxiliary losses of its own to either.

  Args:
    config: the Config.
    output: of the model.
    batch: the batch it was computed from.
    split: see `sharding.over_rows`.

  Returns:
    (L, parts), fp32 scalars; of "crf", "contrastive_vit",
    "contrastive_resnet" and the fusion's losses those that there are.
  """
  weight = batch["weight"]
  log_p = crf.log_likelihood(
    output.crf, output.emissions, batch["tags"], batch["num_words"]
  )  # [B]
  tagging = {"crf": weighted_mean(-log_p, weight), **output.fused.tagging}
  by_word = config.loss.alignment == "word"
  aligning = dict(output.fused.aligning)
  for name, image in output.images.items():
    contrast = functools.partial(
      contrastive.LOSSES[config.loss.contrastive],
      temperature=config.loss.temperature,
      text_share=config.loss.text_share,
    )
    aligning[f"contrastive_{name}"] = split(contrast)(
      output.text,
      image,
      weight * batch["has_image"],
      None if config.model.released else batch["image_id"],
      batch["num_words"] if by_word else None,
    )
  l_crf, l_cl = sum(tagging.values()), sum(aligning.values())
  parts = tagging | aligning
  if not aligning:
    return l_crf, parts
  alpha = config.loss.alpha
  return 2 * (alpha * l_crf + (1 - alpha) * l_cl), parts

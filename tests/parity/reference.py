"""2M-NER in PyTorch: what our numbers and our speed are compared with.

Assembled from `transformers` (BERT, ViT, ResNet) and `pytorch-crf` after the
description of the model; the fusion and the losses are plain PyTorch. It takes
the batches that our model takes, as tensors.
"""

import collections
import json
import re

import jax
import numpy as np
import torch
import torchcrf
import transformers
from flax import traverse_util
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from mner_jax import pretrained
from mner_jax.data import hub
from mner_jax.models.resnet import IMAGENET_STATISTICS
from mner_jax.models.vit import PIXEL_STATISTICS


def encoders(config, attention="eager"):
  """The (text, vit, resnet) of a Config with random weights, None where off."""
  text, vit, resnet = config.model.text, config.model.vit, config.model.resnet

  def sizes(c):
    return {
      "hidden_size": c.hidden_size,
      "num_hidden_layers": c.num_layers,
      "num_attention_heads": c.num_heads,
      "intermediate_size": c.intermediate_size,
      "layer_norm_eps": c.layer_norm_eps,
      "attn_implementation": attention,
    }

  bert = transformers.BertModel(
    transformers.BertConfig(
      vocab_size=text.vocab_size,
      max_position_embeddings=text.max_positions,
      type_vocab_size=text.type_vocab_size,
      hidden_dropout_prob=text.dropout,
      attention_probs_dropout_prob=text.attention_dropout,
      **sizes(text),
    )
  )
  picture, scene = None, None
  if vit.enabled:
    picture = transformers.CLIPVisionModel(
      transformers.CLIPVisionConfig(
        image_size=vit.image_size, patch_size=vit.patch_size, **sizes(vit)
      )
    )
  if resnet.enabled:
    widths = [4 * resnet.width * 2**i for i in range(len(resnet.stages))]
    scene = transformers.ResNetModel(
      transformers.ResNetConfig(
        embedding_size=resnet.width,
        depths=list(resnet.stages),
        hidden_sizes=widths,
        layer_type="bottleneck",
        downsample_in_bottleneck=False,
      )
    )
  return bert, picture, scene


class ImageAttention(nn.Module):
  """LN(W_o MHA(words, image tokens) + words), one image branch."""

  def __init__(self, width, tokens, heads, dropout, released):
    super().__init__()
    inputs = {"query": width, "key": tokens, "value": tokens, "output": width}
    self.attention = nn.ModuleDict(
      {name: nn.Linear(x, width) for name, x in inputs.items()}
    )
    self.norm = nn.LayerNorm(width, eps=1e-12)
    self.dropout = nn.Dropout(dropout)
    self.heads, self.released = heads, released

  def forward(self, words, tokens, has_image):
    def split(x):
      return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    part = self.attention
    query = part["key" if self.released else "query"]
    q, k = split(query(words)), split(part["key"](tokens))
    v = split(part["value"](tokens))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    seen = (self.dropout(weights) @ v).transpose(1, 2).flatten(2)
    seen = self.dropout(part["output"](seen)) * has_image[:, None, None]
    return self.norm(seen + words)


def head(width_in, width):
  layers = {
    "hidden": nn.Linear(width_in, width),
    "relu": nn.ReLU(),
    "output": nn.Linear(width, width),
  }
  return nn.Sequential(collections.OrderedDict(layers))


class Reference(nn.Module):
  """The model and its losses; `forward` returns emissions and losses.

  Modules that are not of an encoder have the names that they have in ours.
  """

  def __init__(self, config, text, vit, resnet):
    super().__init__()
    model = config.model
    width, tags = model.text.hidden_size, len(config.tags)
    self.config = config
    self.text, self.vit, self.resnet = text, vit, resnet
    branches = {}  # name -> width of its image tokens
    self.fusion = nn.ModuleDict()
    if vit is not None:
      branches["vit"] = model.vit.hidden_size
      self.vit_head = head(model.vit.num_tokens * branches["vit"], width)
    if resnet is not None:
      branches["resnet"] = width
      scene = 4 * model.resnet.width * 2 ** (len(model.resnet.stages) - 1)
      self.resnet_head = head(scene, width)
      self.fusion["scene_token"] = nn.Linear(scene, width)
      resnet.requires_grad_(False)
    if branches:
      self.text_head = head(width, width)
      settings = (model.fusion_heads, model.dropout, model.released)
      for name, tokens in branches.items():
        self.fusion[name] = ImageAttention(width, tokens, *settings)
      self.fusion["join"] = nn.Linear(len(branches) * width, width)
    self.dropout = nn.Dropout(model.dropout)
    self.emissions = nn.Linear(width, tags)
    self.crf = torchcrf.CRF(tags, batch_first=True)

  def train(self, mode=True):
    super().train(mode)
    if self.resnet is not None:
      self.resnet.eval()  # frozen, its BatchNorm too
    return self

  def forward(self, batch):
    pieces = torch.arange(batch["input_ids"].shape[1], device=self.device)
    mask = pieces[None] < batch["num_pieces"][:, None]
    out = self.text(batch["input_ids"], attention_mask=mask.long())
    first = batch["first_piece"] - (1 if self.config.model.released else 0)
    index = first[:, :, None].expand(-1, -1, out.last_hidden_state.shape[-1])
    words = out.last_hidden_state.gather(1, index)
    tokens, images = {}, {}
    if self.vit is not None:
      pixels = pixel_values(batch["pixels"], PIXEL_STATISTICS["clip"])
      patches = self.vit(pixels)
      tokens["vit"] = patches.last_hidden_state
      images["vit"] = self.vit_head(tokens["vit"].flatten(1))
    if self.resnet is not None:
      with torch.no_grad():
        pixels = pixel_values(batch["scene_pixels"], IMAGENET_STATISTICS)
        scene = self.resnet(pixels).pooler_output.flatten(1)
      tokens["resnet"] = self.fusion["scene_token"](scene)[:, None]
      images["resnet"] = self.resnet_head(scene)
    if tokens:
      joined = [
        self.fusion[name](words, x, batch["has_image"])
        for name, x in tokens.items()
      ]
      words = self.fusion["join"](torch.cat(joined, dim=-1))
    emissions = self.emissions(self.dropout(words))
    text = self.text_head(out.pooler_output) if tokens else None
    return emissions, self.losses(emissions.float(), text, images, batch)

  def losses(self, emissions, text, images, batch):
    index = torch.arange(emissions.shape[1], device=self.device)
    mask = index[None] < batch["num_words"][:, None]
    nll = -self.crf(emissions, batch["tags"], mask=mask, reduction="none")
    weight = batch["weight"]
    losses = {"crf": (nll * weight).sum() / weight.sum()}
    losses["loss"] = losses["crf"]
    if images:
      rows = (weight * batch["has_image"]) > 0
      ids = None if self.config.model.released else batch["image_id"][rows]
      alpha, heat = self.config.loss.alpha, self.config.loss.temperature
      for name, image in images.items():
        pair = text[rows].float(), image[rows].float()
        losses[f"contrastive_{name}"] = nt_xent(*pair, heat, ids)
      contrastive = sum(losses[f"contrastive_{name}"] for name in images)
      losses["loss"] = 2 * (alpha * losses["crf"] + (1 - alpha) * contrastive)
    return losses

  @property
  def device(self):
    return self.emissions.weight.device


def pixel_values(pixels, statistics):
  mean, std = (
    torch.tensor(c, device=pixels.device).float() for c in statistics
  )
  return ((pixels / 255.0 - mean) / std).permute(0, 3, 1, 2)


def nt_xent(text, image, temperature, image_id=None):
  """SimCLR over the 2B vectors; pairs of one picture are no negatives."""
  n = len(text)
  z = F.normalize(torch.cat([text, image]), dim=-1)
  logits = z @ z.T / temperature
  own = torch.arange(2 * n, device=z.device)
  partner = own.roll(n)
  hidden = own[:, None] == own[None]
  if image_id is not None:
    ids = image_id.repeat(2)
    same = ids[:, None] == ids[None]
    hidden = hidden | (same & (partner[:, None] != own[None]))
  return F.cross_entropy(logits.masked_fill(hidden, -torch.inf), partner)


def tensors(batch, device="cpu"):
  """A batch of ours as tensors."""
  return {
    name: torch.tensor(
      x.astype(np.int64) if x.dtype == np.int32 else x, device=device
    )
    for name, x in batch.items()
  }


def to_params(named, abstract, folder):
  """Our parameters of {name in Reference: tensor}.

  What belongs to an encoder is written as a published folder and read by
  `pretrained.load_encoder`. Gradients take the same way.
  """
  flat, parts = {}, {}
  for name, x in named.items():
    x = x.detach().clone()  # arrays of the same memory would train along
    *modules, leaf = name.removesuffix("_transitions").split(".")
    if modules[0] in pretrained.ENCODERS:
      rest = name.removeprefix(f"{modules[0]}.")
      parts.setdefault(modules[0], {})[rest] = x.contiguous()
      continue
    x = x.numpy()
    if leaf == "weight":
      leaf, x = ("scale", x) if modules[-1] == "norm" else ("kernel", x.T)
    flat[*modules, leaf] = x
  params = traverse_util.unflatten_dict(flat)
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  if "resnet" in parts:
    state = parts["resnet"].items()
    parts["resnet"] = {torchvision_name(n): x for n, x in state}
  settings = {
    "text": {"model_type": "bert", "vocab_size": 0},
    "vit": {"model_type": "clip"},
    "resnet": {"architecture": "resnet50"},
  }
  for top, state in parts.items():
    place = folder / top
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps(settings[top]))
    save_file(state, place / "model.safetensors")
    want = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      abstract[top],
    )
    params[top] = pretrained.load_encoder(hub.folder(str(place)), want)
  return params


def torchvision_name(name):
  """The name in torchvision's ResNet of one in transformers'."""
  kinds = {"convolution": "conv", "normalization": "bn"}
  if match := re.fullmatch(r"embedder\.embedder\.(\w+)\.(.+)", name):
    return f"{kinds[match[1]]}1.{match[2]}"
  match = re.fullmatch(
    r"encoder\.stages\.(\d)\.layers\.(\d+)\.(shortcut|layer\.(\d))\.(\w+)\.(.+)",
    name,
  )
  stage, block, where, index, kind, leaf = match.groups()
  place = f"layer{int(stage) + 1}.{block}"
  if where == "shortcut":
    return f"{place}.downsample.{0 if kind == 'convolution' else 1}.{leaf}"
  return f"{place}.{kinds[kind]}{int(index) + 1}.{leaf}"

"""2M-NER in PyTorch: what our numbers and our speed are compared with.

Assembled from `transformers` (BERT, ViT, ResNet) and `pytorch-crf` after the
description of the model; the fusion and the losses are plain PyTorch. It takes
the batches that our model takes, as tensors.
"""

import collections
import json

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


def encoders(config, attention):
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

  bert = transformers.BertConfig(
    vocab_size=text.vocab_size,
    max_position_embeddings=text.max_positions,
    type_vocab_size=text.type_vocab_size,
    hidden_dropout_prob=text.dropout,
    attention_probs_dropout_prob=text.attention_dropout,
    **sizes(text),
  )
  clip = transformers.CLIPVisionConfig(
    image_size=vit.image_size, patch_size=vit.patch_size, **sizes(vit)
  )
  net = transformers.ResNetConfig(
    embedding_size=resnet.width,
    depths=list(resnet.stages),
    hidden_sizes=[4 * resnet.width * 2**i for i in range(len(resnet.stages))],
  )
  return (
    transformers.BertModel(bert),
    transformers.CLIPVisionModel(clip) if vit.enabled else None,
    transformers.ResNetModel(net) if resnet.enabled else None,
  )


def scene_width(config):
  """Width of the ResNet's regions."""
  resnet = config.model.resnet
  return 4 * resnet.width * 2 ** (len(resnet.stages) - 1)


class Attention(nn.ModuleDict):
  """W_o MHA(queries, keys); its parts have the names that they have in ours."""

  def __init__(self, width, tokens, heads, dropout=0.0, query="query"):
    inputs = {"query": width, "key": tokens, "value": tokens, "output": width}
    super().__init__({name: nn.Linear(x, width) for name, x in inputs.items()})
    self.heads, self.dropout, self.asks = heads, dropout, query

  def forward(self, queries, keys, mask=None):
    def split(x):  # [B, S, D] -> [B, N, S, H]
      return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    q, k = split(self[self.asks](queries)), split(self["key"](keys))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
      scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
    seen = weights @ split(self["value"](keys))
    return self["output"](seen.transpose(1, 2).flatten(2))


class ImageAttention(nn.Module):
  """LN(W_o MHA(words, image tokens) + words), one image branch."""

  def __init__(self, width, tokens, model):
    super().__init__()
    settings = model.fusion_heads, model.dropout
    query = "key" if model.released else "query"
    self.attention = Attention(width, tokens, *settings, query)
    self.norm = nn.LayerNorm(width, eps=1e-12)
    self.dropout = nn.Dropout(model.dropout)

  def forward(self, words, tokens, has_image):
    seen = self.dropout(self.attention(words, tokens))
    return self.norm(seen * has_image[:, None, None] + words)


class Collaboration(nn.ModuleDict):
  """One ImageAttention per branch, joined."""

  parts = 1  # widths of the words in what it returns

  def __init__(self, config):
    super().__init__()
    model, width = config.model, config.model.text.hidden_size
    branches = {}  # name -> width of its image tokens
    if model.vit.enabled:
      branches["vit"] = model.vit.hidden_size
    if model.resnet.enabled:
      branches["resnet"] = width
      self["scene_token"] = nn.Linear(scene_width(config), width)
    for name, tokens in branches.items():
      self[name] = ImageAttention(width, tokens, model)
    self["join"] = nn.Linear(len(branches) * width, width)

  def forward(self, words, images, batch):
    if "resnet" in images:
      scene = images["resnet"].mean(1, keepdim=True)
      images = images | {"resnet": self["scene_token"](scene)}
    seen = [self[n](words, x, batch["has_image"]) for n, x in images.items()]
    return self["join"](torch.cat(seen, dim=-1)), None, {}


def head(width_in, width):
  hidden, output = nn.Linear(width_in, width), nn.Linear(width, width)
  layers = {"hidden": hidden, "relu": nn.ReLU(), "output": output}
  return nn.Sequential(collections.OrderedDict(layers))


class Reference(nn.Module):
  """The model and its losses; `forward` returns emissions and losses.

  Modules that are not of an encoder have the names that they have in ours. A
  `fusion` maps (words, images, batch) to words, emissions to average with
  theirs or None, and losses of its own.
  """

  def __init__(self, config, *, fusion=Collaboration, attention="eager"):
    super().__init__()
    self.config, model = config, config.model
    width, parts = model.text.hidden_size, 1
    self.text, self.vit, self.resnet = encoders(config, attention)
    sizes = {}  # of what is aligned with the text
    if self.vit is not None:
      patches = (model.vit.image_size // model.vit.patch_size) ** 2
      sizes["vit"] = (1 + patches) * model.vit.hidden_size
    if self.resnet is not None:
      sizes["resnet"] = scene_width(config)
      self.resnet.requires_grad_(False)
    if sizes:
      self.fusion = fusion(config)
      parts = fusion.parts
    if sizes and config.loss.contrastive != "none":
      for name, size in {"text": width, **sizes}.items():
        self.add_module(f"{name}_head", head(size, width))
    self.dropout = nn.Dropout(model.dropout)
    self.emissions = nn.Linear(parts * width, len(config.tags))
    self.crf = torchcrf.CRF(len(config.tags), batch_first=True)

  def train(self, mode=True):
    super().train(mode)
    if self.resnet is not None:
      self.resnet.eval()  # frozen, its BatchNorm too
    return self

  def forward(self, batch):
    mask = inside(batch["input_ids"], batch["num_pieces"])
    out = self.text(batch["input_ids"], attention_mask=mask.long())
    first = batch["first_piece"] - (1 if self.config.model.released else 0)
    index = first[:, :, None].expand(-1, -1, out.last_hidden_state.shape[-1])
    words = out.last_hidden_state.gather(1, index)
    images, vectors = {}, {}  # [B, P, C], and what is aligned with the text
    if self.vit is not None:
      pixels = pixel_values(batch["pixels"], PIXEL_STATISTICS["clip"])
      images["vit"] = self.vit(pixels).last_hidden_state
      vectors["vit"] = images["vit"].flatten(1)
    if self.resnet is not None:
      with torch.no_grad():
        pixels = pixel_values(batch["scene_pixels"], IMAGENET_STATISTICS)
        grid = self.resnet(pixels).last_hidden_state  # [B, C, h, w]
      images["resnet"] = grid.flatten(2).transpose(1, 2)
      vectors["resnet"] = images["resnet"].mean(1)
    more, losses = None, {}
    if images:
      words, more, losses = self.fusion(words, images, batch)
    emissions = self.emissions(self.dropout(words))
    if more is not None:
      emissions = (emissions + more) / 2
    losses["crf"] = nll(self.crf, emissions, batch["tags"], batch)
    if images and self.config.loss.contrastive != "none":
      losses |= self.contrastive(out.pooler_output, vectors, batch)
    tagging = losses["crf"] + losses.get("spans", 0)
    aligning = [x for n, x in losses.items() if n not in ("crf", "spans")]
    losses["loss"] = tagging
    if aligning:
      alpha = self.config.loss.alpha
      losses["loss"] = 2 * (alpha * tagging + (1 - alpha) * sum(aligning))
    return emissions, losses

  def contrastive(self, pooled, vectors, batch):
    loss, released = self.config.loss, self.config.model.released
    rows = (batch["weight"] * batch["has_image"]) > 0
    text = self.text_head(pooled)[rows].float()
    ids = None if released else batch["image_id"][rows]
    kind, found = {"nt_xent": nt_xent, "clip": clip}[loss.contrastive], {}
    for name, x in vectors.items():
      pair = text, getattr(self, f"{name}_head")(x)[rows].float()
      more = {"text_share": loss.text_share} if kind is clip else {}
      found[f"contrastive_{name}"] = kind(*pair, loss.temperature, ids, **more)
    return found


def inside(x, counts):
  """[B, S] bool of rows whose first `counts` [B] items count."""
  return torch.arange(x.shape[1], device=x.device)[None] < counts[:, None]


def nll(crf, emissions, tags, batch):
  """The mean over the rows that count of a CRF's loss."""
  mask, weight = inside(tags, batch["num_words"]), batch["weight"]
  losses = -crf(emissions.float(), tags, mask=mask, reduction="none")
  return (losses * weight).sum() / weight.sum()


def pixel_values(pixels, statistics):
  mean, std = (torch.tensor(c, device=pixels.device) for c in statistics)
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


def clip(text, image, temperature, image_id, text_share):
  """CLIP's loss, and the exclusion of other sentences of one picture."""
  logits = F.normalize(text, dim=-1) @ F.normalize(image, dim=-1).T
  truth = torch.arange(len(text), device=text.device)
  same = image_id[:, None] == image_id[None]
  hidden = same & (truth[:, None] != truth[None])
  logits = (logits / temperature).masked_fill(hidden, -torch.inf)
  loss = text_share * F.cross_entropy(logits, truth)
  return loss + (1 - text_share) * F.cross_entropy(logits.T, truth)


def randomise(model):
  """Weights that a mistake shows in: biases and norms away from 0 and 1."""
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for p in model.parameters():
      noise = torch.randn(p.shape, generator=generator)
      p.add_(noise * (p.shape[-1] ** -0.5 if p.ndim == 2 else 0.1))
    for name, b in model.named_buffers():
      if name.endswith("running_mean"):
        b.add_(0.1 * torch.randn(b.shape, generator=generator))
      if name.endswith("running_var"):
        b.mul_(1 + torch.rand(b.shape, generator=generator))
  return model.eval()


def tensors(batch, device="cpu"):
  """A batch of ours as tensors, its integers as torch's own."""
  own = {np.dtype(np.int32): np.int64}
  return {
    name: torch.tensor(x.astype(own.get(x.dtype, x.dtype)), device=device)
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
    top, _, rest = name.partition(".")
    if top in pretrained.ENCODERS:
      rest = torchvision_name(rest) if top == "resnet" else rest
      parts.setdefault(top, {})[rest] = x.contiguous()
      continue
    *modules, leaf = name.removesuffix("_transitions").split(".")
    x = x.numpy()
    if leaf == "weight":
      norm = modules[-1].endswith("norm")
      leaf, x = ("scale", x) if norm else ("kernel", x.T)
    flat[*modules, leaf] = x
  params = traverse_util.unflatten_dict(flat)
  settings = {
    "text": {"model_type": "bert", "vocab_size": 0},
    "vit": {"model_type": "clip"},
    "resnet": {"architecture": "resnet50"},
  }
  for top, state in parts.items():
    write_folder(folder / top, settings[top], state)
    params[top] = load_encoder(folder / top, abstract[top])
  return params


def write_folder(folder, config, state):
  """Writes a folder of weights as published ones are."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text(json.dumps(config))
  save_file(state, folder / "model.safetensors")


def load_encoder(folder, shapes):
  """Our parameters, of these shapes, from a folder of weights."""
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  want = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
  )
  return pretrained.load_encoder(hub.folder(str(folder)), want)


def torchvision_name(name):
  """The name in torchvision's ResNet of one in transformers'."""
  *place, kind, leaf = name.split(".")
  short, number = {"convolution": ("conv", 0), "normalization": ("bn", 1)}[kind]
  if place[0] == "embedder":
    return f"{short}1.{leaf}"
  _, _, stage, _, block, *layer = place  # encoder.stages.0.layers.0. ...
  place = f"layer{int(stage) + 1}.{block}"
  if layer == ["shortcut"]:
    return f"{place}.downsample.{number}.{leaf}"
  return f"{place}.{short}{int(layer[1]) + 1}.{leaf}"

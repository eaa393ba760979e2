"""Published weights: a Hub name or a folder -> parameters of our modules.

One table per family says which of our modules a published one is; what a
module holds follows from its kind. Nothing is guessed: an array that is
missing on either side, or of another shape, is an error that lists both.
"""

import dataclasses
import math
import re

import jax
import numpy as np
from flax import traverse_util

from mner_jax.config import UserError, replace
from mner_jax.data import hub

# (regex of a published module, our module, kind), by family. The kinds:
#   dense      weight [out, in] -> kernel [in, out]; bias
#   conv       weight [O, I, h, w] -> kernel [h, w, I, O]; bias
#   norm       weight -> scale; bias (old files: gamma, beta)
#   embed      weight -> embedding
#   raw        the array itself, leading axes of 1 dropped
#   batchnorm  weight, bias and running statistics -> scale and bias
# `BLOCKS` is applied to the front of the name first.
BLOCKS = (
  (r"encoder\.layers?\.(\d+)\.", r"layer_\1/"),
  (r"layer(\d)\.(\d+)\.", r"stage\1_block\2/"),
)
BERT = (
  (r"embeddings\.(word|position)_embeddings", r"\1_embeddings", "embed"),
  (r"embeddings\.token_type_embeddings", "type_embeddings", "embed"),
  (r"embeddings\.LayerNorm", "embeddings_norm", "norm"),
  (r"(.+/)attention\.self\.(query|key|value)", r"\1attention/\2", "dense"),
  (r"(.+/)attention\.output\.dense", r"\1attention/output", "dense"),
  (r"(.+/)attention\.output\.LayerNorm", r"\1attention_norm", "norm"),
  (r"(.+/)(intermediate|output)\.dense", r"\1\2", "dense"),
  (r"(.+/)output\.LayerNorm", r"\1output_norm", "norm"),
  (r"pooler\.dense", "pooler", "dense"),
)
CLIP = (
  (r"embeddings\.class_embedding", "class_embedding", "raw"),
  (r"embeddings\.patch_embedding", "patch_embedding", "conv"),
  (r"embeddings\.position_embedding\.weight", "position_embedding", "raw"),
  (r"pre_layrnorm", "pre_norm", "norm"),  # sic
  (r"(.+/)self_attn\.q_proj", r"\1attention/query", "dense"),
  (r"(.+/)self_attn\.k_proj", r"\1attention/key", "dense"),
  (r"(.+/)self_attn\.v_proj", r"\1attention/value", "dense"),
  (r"(.+/)self_attn\.out_proj", r"\1attention/output", "dense"),
  (r"(.+/)layer_norm1", r"\1attention_norm", "norm"),
  (r"(.+/)layer_norm2", r"\1output_norm", "norm"),
  (r"(.+/)mlp\.fc1", r"\1intermediate", "dense"),
  (r"(.+/)mlp\.fc2", r"\1output", "dense"),
)
GOOGLE = (
  (r"embeddings\.cls_token", "class_embedding", "raw"),
  (r"embeddings\.patch_embeddings\.projection", "patch_embedding", "conv"),
  (r"embeddings\.position_embeddings", "position_embedding", "raw"),
  (r"(.+/)attention\.attention\.(query|key|value)", r"\1attention/\2", "dense"),
  (r"(.+/)attention\.output\.dense", r"\1attention/output", "dense"),
  (r"(.+/)layernorm_before", r"\1attention_norm", "norm"),
  (r"(.+/)layernorm_after", r"\1output_norm", "norm"),
  (r"(.+/)(intermediate|output)\.dense", r"\1\2", "dense"),
  (r"layernorm", "final_norm", "norm"),
)
RESNET = (
  (r"(.+/)?conv(\d)", r"\1conv\2", "conv"),
  (r"(.+/)?bn(\d)", r"\1bn\2", "batchnorm"),
  (r"(.+/)downsample\.0", r"\1downsample_conv", "conv"),
  (r"(.+/)downsample\.1", r"\1downsample_bn", "batchnorm"),
)
# model_type (of a ResNet: none) -> table, optional prefix of all names.
FAMILIES = {
  "bert": (BERT, "bert."),
  "roberta": (BERT, "roberta."),
  "xlm-roberta": (BERT, "roberta."),
  "clip": (CLIP, "vision_model."),
  "clip_vision_model": (CLIP, "vision_model."),
  "vit": (GOOGLE, "vit."),
  "resnet": (RESNET, ""),
}
_RESNETS = {
  "resnet50": (3, 4, 6, 3),
  "resnet101": (3, 4, 23, 3),
  "resnet152": (3, 8, 36, 3),
}
_BATCHNORM_EPS = 1e-5

# What published files hold beside the encoder: other heads, counters.
_IGNORED = re.compile(
  r"position_ids|num_batches_tracked|^(cls|lm_head|fc|classifier|pooler)\."
  r"|^(text_model|text_projection|visual_projection|logit_scale)"
  r"|^post_layernorm"
)


def resolve(config):
  """`config` with the sizes of the encoders whose weights are published."""
  model = config.model
  changes = {}
  for name, sizes in (
    ("text", _text_sizes), ("vit", _vit_sizes), ("resnet", _resnet_sizes)
  ):  # fmt: skip
    encoder = getattr(model, name)
    if encoder.weights and getattr(encoder, "enabled", True):
      path = hub.folder(encoder.weights)
      try:
        changes[name] = sizes(_read_config(path), encoder, path)
      except KeyError as error:
        raise UserError(f"{path}/config.json: no field {error}") from None
  vit = changes.get("vit", model.vit)
  changes["vit"] = dataclasses.replace(vit, image_size=vit.image_size or 224)
  if vit.enabled and changes["vit"].image_size % vit.patch_size:
    raise UserError(
      "config: model.vit.image_size must be a multiple of the weights'"
      f" patch size, {vit.patch_size}"
    )
  config = dataclasses.replace(
    config, model=dataclasses.replace(model, **changes)
  )
  return replace(config, {})  # checks what depends on these sizes


def _text_sizes(c, encoder, path):
  if FAMILIES[c["model_type"]][0] is not BERT:
    raise UserError(
      f"{path}: model_type {c['model_type']!r} is no text encoder of the BERT"
      " or RoBERTa family"
    )
  _check_activation(c, "gelu", path)
  return dataclasses.replace(
    encoder,
    vocab_size=c["vocab_size"],
    hidden_size=c["hidden_size"],
    num_layers=c["num_hidden_layers"],
    num_heads=c["num_attention_heads"],
    intermediate_size=c["intermediate_size"],
    max_positions=c["max_position_embeddings"] - _first_position(c),
    type_vocab_size=c["type_vocab_size"],
    layer_norm_eps=c["layer_norm_eps"],
  )


def _check_activation(c, expected, path):
  if c.get("hidden_act", expected) != expected:
    raise UserError(
      f"{path}: hidden_act is {c['hidden_act']!r}; only {expected!r} is built"
    )


def _first_position(c):
  """RoBERTa counts positions from the one behind its padding index."""
  return 0 if "roberta" not in c["model_type"] else c["pad_token_id"] + 1


def _vit_sizes(c, encoder, path):
  table, _ = FAMILIES[c["model_type"]]
  if table not in (CLIP, GOOGLE):
    raise UserError(f"{path}: model_type {c['model_type']!r} is no ViT")
  style = "clip" if table is CLIP else "google"
  c = c.get("vision_config", c)
  _check_activation(c, "quick_gelu" if style == "clip" else "gelu", path)

  def get(name, clip_default):
    # CLIP's files leave out what ViT-B/32 and their library agree on.
    return c.get(name, clip_default) if style == "clip" else c[name]

  return dataclasses.replace(
    encoder,
    style=style,
    image_size=encoder.image_size or get("image_size", 224),
    patch_size=get("patch_size", 32),
    hidden_size=get("hidden_size", 768),
    num_layers=get("num_hidden_layers", 12),
    num_heads=get("num_attention_heads", 12),
    intermediate_size=get("intermediate_size", 3072),
    layer_norm_eps=get("layer_norm_eps", 1e-5),
  )


def _resnet_sizes(c, encoder, path):
  if c["model_type"] != "resnet":
    raise UserError(f"{path}: model_type {c['model_type']!r} is no ResNet")
  return dataclasses.replace(
    encoder, stages=_RESNETS[c["architecture"]], width=64
  )


def _read_config(path):
  """The `config.json` of a folder, with a model_type of FAMILIES."""
  c = hub.read_json(path / "config.json")
  if c.get("architecture") in _RESNETS:  # timm's; HF's names are others
    return {**c, "model_type": "resnet"}
  if c.get("model_type") not in FAMILIES or c["model_type"] == "resnet":
    known = sorted({*FAMILIES} - {"resnet"})
    raise UserError(
      f"{path}/config.json: neither a model_type that can be read"
      f" ({', '.join(known)}) nor an architecture ({', '.join(_RESNETS)})"
    )
  return c


def load(config, params):
  """The parameters of the encoders whose weights are published.

  Args:
    config: the resolved Config.
    params: of the whole model, ShapeDtypeStructs with shardings.

  Returns:
    {"text" | "vit" | "resnet": parameters}, only those with weights.
  """
  return {
    name: load_encoder(
      hub.folder(getattr(config.model, name).weights), params[name]
    )
    for name in ("text", "vit", "resnet")
    if name in params and getattr(config.model, name).weights
  }


def load_encoder(path, params):
  """The parameters of one encoder, one array at a time.

  Where the model takes pictures of another size, the positions of a ViT are
  interpolated (`resize_positions`); rows that pad a vocabulary are 0.

  Args:
    path: folder with config.json and the arrays.
    params: the encoder's parameters, ShapeDtypeStructs with shardings.
  """
  c = _read_config(path)
  table, prefix = FAMILIES[c["model_type"]]
  want = traverse_util.flatten_dict(params, sep="/")
  arrays = hub.open_arrays(path)
  found, strange = {}, []
  for name in arrays:
    short = name.removeprefix(prefix)
    targets = _targets(short, table)
    for target, part in targets:
      found.setdefault(target, {})[part] = name
    if not any(target in want for target, _ in targets):
      strange += [] if _IGNORED.search(short) else [name]
  loaded, missing, wrong = {}, [], []
  # The largest first: it passes through the host while the least is there.
  for target, x in sorted(want.items(), key=lambda item: -item[1].size):
    parts = {part: arrays[n] for part, n in found.get(target, {}).items()}
    value = _convert(target, parts)
    if value is None:
      missing.append(target)
      continue
    if target == "position_embeddings/embedding":
      value = value[_first_position(c) :]
    elif target == "position_embedding":
      value = resize_positions(value, x.shape[0])
    elif target == "word_embeddings/embedding":
      value = _pad_rows(value, x.shape[0], c["vocab_size"])
    if value.shape != x.shape:
      wrong.append(f"{target} is {x.shape}, there {value.shape}")
    else:
      value = value.astype(np.float32, copy=False)
      loaded[target] = jax.make_array_from_callback(
        x.shape, x.sharding, lambda index, value=value: value[index]
      )
  problems = [
    f"{title}: {', '.join(sorted(names)[:8])}"
    + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    for title, names in (
      ("the model needs, the file lacks", missing),
      ("the file has, the model lacks", strange),
      ("other shapes", wrong),
    )
    if names
  ]
  if problems:
    raise UserError(
      f"{path}: other weights than expected; " + "; ".join(problems)
    )
  return traverse_util.unflatten_dict(loaded, sep="/")


def resize_positions(table, num_tokens):
  """Positions [1 + n n, D] of n x n patches -> [num_tokens, D], 1 + m m.

  The class token's stays; the grid goes through separable cubic convolution
  (a = -0.75, pixel centres, edges repeated, no antialiasing), as
  `interpolate_pos_encoding` of transformers does it.
  """
  n, m = math.isqrt(len(table) - 1), math.isqrt(num_tokens - 1)
  squares = (1 + n * n, 1 + m * m) == (len(table), num_tokens)
  if len(table) == num_tokens or not squares:
    return table
  a = -0.75
  weights = np.zeros((m, n))
  for row, x in enumerate((np.arange(m) + 0.5) * n / m - 0.5):
    for i in range(math.floor(x) - 1, math.floor(x) + 3):
      d = abs(x - i)
      if d <= 1:
        w = (a + 2) * d**3 - (a + 3) * d**2 + 1
      else:
        w = a * (d**3 - 5 * d**2 + 8 * d - 4)
      weights[row, min(max(i, 0), n - 1)] += w
  grid = table[1:].reshape(n, n, -1)
  grid = np.einsum("yi,xj,ijd->yxd", weights, weights, grid, optimize=True)
  return np.concatenate([table[:1], grid.reshape(m * m, -1)])


def _pad_rows(table, rows, vocab_size):
  """Rows of 0 below a published vocabulary, up to a multiple the user set."""
  if len(table) != vocab_size or rows <= len(table):
    return table
  return np.pad(table, ((0, rows - len(table)), (0, 0)))


_PARTS = {
  "dense": {"weight": "kernel", "bias": "bias"},
  "conv": {"weight": "kernel", "bias": "bias"},
  "norm": {
    "weight": "scale", "gamma": "scale", "bias": "bias", "beta": "bias"
  },
  "embed": {"weight": "embedding"},
}  # fmt: skip


def _targets(name, table):
  """[(path of our array, part of it)] that a published array goes to."""
  for regex, block in BLOCKS:
    name = re.sub(f"^{regex}", block, name)
  module, _, leaf = name.rpartition(".")
  for regex, target, kind in table:
    match = re.fullmatch(regex, name if kind == "raw" else module)
    if not match:
      continue
    target = match.expand(target)
    if kind == "raw":
      return [(target, kind)]
    if kind == "batchnorm":
      return [(f"{target}/{ours}", leaf) for ours in ("scale", "bias")]
    if leaf in _PARTS[kind]:
      return [(f"{target}/{_PARTS[kind][leaf]}", kind)]
  return []


def _convert(target, parts):
  """Our array of the published parts; None where one is missing."""
  if parts.keys() & {"running_mean", "running_var"}:
    if not {"weight", "bias", "running_mean", "running_var"} <= parts.keys():
      return None
    scale = parts["weight"] / np.sqrt(
      parts["running_var"].astype(np.float64) + _BATCHNORM_EPS
    )
    if target.endswith("scale"):
      return scale
    return parts["bias"] - parts["running_mean"] * scale
  if not parts:
    return None
  ((kind, x),) = parts.items()
  if kind == "raw":
    return x.reshape(x.shape[next(i for i, n in enumerate(x.shape) if n > 1) :])
  if target.endswith("kernel"):
    return x.T if kind == "dense" else x.transpose(2, 3, 1, 0)
  return x

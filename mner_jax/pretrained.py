"""Published weights: a Hub name or a folder -> parameters of our modules.

One table per family says which of our modules a published one is; what a
module holds follows from its kind. Nothing is guessed: an array that is
missing on either side, or of another shape, is an error that lists both.
"""

import contextlib
import dataclasses
import json
import re

import huggingface_hub
import jax
import numpy as np
import safetensors
from etils import epath
from flax import traverse_util

from mner_jax.config import UserError, validate

# (regex of a published module, our module, kind), by family. The kinds:
#   dense      weight [out, in] -> kernel [in, out]; bias
#   conv       weight [O, I, h, w] -> kernel [h, w, I, O]; bias
#   norm       weight -> scale; bias (old files: gamma, beta)
#   embed      weight -> embedding
#   raw        the array itself, leading axes of 1 dropped
#   batchnorm  weight, bias and running statistics -> scale and bias
BERT = (
  (r"embeddings\.(word|position)_embeddings", r"\1_embeddings", "embed"),
  (r"embeddings\.token_type_embeddings", "type_embeddings", "embed"),
  (r"embeddings\.LayerNorm", "embeddings_norm", "norm"),
  (
    r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)",
    r"layer_\1/attention/\2",
    "dense",
  ),
  (
    r"encoder\.layer\.(\d+)\.attention\.output\.dense",
    r"layer_\1/attention/output",
    "dense",
  ),
  (
    r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm",
    r"layer_\1/attention_norm",
    "norm",
  ),
  (
    r"encoder\.layer\.(\d+)\.(intermediate|output)\.dense",
    r"layer_\1/\2",
    "dense",
  ),
  (
    r"encoder\.layer\.(\d+)\.output\.LayerNorm",
    r"layer_\1/output_norm",
    "norm",
  ),
  (r"pooler\.dense", "pooler", "dense"),
)
CLIP = (
  (r"embeddings\.class_embedding", "class_embedding", "raw"),
  (r"embeddings\.patch_embedding", "patch_embedding", "conv"),
  (r"embeddings\.position_embedding\.weight", "position_embedding", "raw"),
  (r"pre_layrnorm", "pre_norm", "norm"),
  (
    r"encoder\.layers\.(\d+)\.self_attn\.(q|k|v|out)_proj",
    r"layer_\1/attention/\2",
    "dense",
  ),
  (r"encoder\.layers\.(\d+)\.layer_norm1", r"layer_\1/attention_norm", "norm"),
  (r"encoder\.layers\.(\d+)\.layer_norm2", r"layer_\1/output_norm", "norm"),
  (r"encoder\.layers\.(\d+)\.mlp\.fc1", r"layer_\1/intermediate", "dense"),
  (r"encoder\.layers\.(\d+)\.mlp\.fc2", r"layer_\1/output", "dense"),
)
GOOGLE = (
  (r"embeddings\.cls_token", "class_embedding", "raw"),
  (r"embeddings\.patch_embeddings\.projection", "patch_embedding", "conv"),
  (r"embeddings\.position_embeddings", "position_embedding", "raw"),
  (
    r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)",
    r"layer_\1/attention/\2",
    "dense",
  ),
  (
    r"encoder\.layer\.(\d+)\.attention\.output\.dense",
    r"layer_\1/attention/output",
    "dense",
  ),
  (
    r"encoder\.layer\.(\d+)\.layernorm_before",
    r"layer_\1/attention_norm",
    "norm",
  ),
  (r"encoder\.layer\.(\d+)\.layernorm_after", r"layer_\1/output_norm", "norm"),
  (
    r"encoder\.layer\.(\d+)\.(intermediate|output)\.dense",
    r"layer_\1/\2",
    "dense",
  ),
  (r"layernorm", "final_norm", "norm"),
)
RESNET = (
  (r"conv1", "conv1", "conv"),
  (r"bn1", "bn1", "batchnorm"),
  (r"layer(\d)\.(\d+)\.conv(\d)", r"stage\1_block\2/conv\3", "conv"),
  (r"layer(\d)\.(\d+)\.bn(\d)", r"stage\1_block\2/bn\3", "batchnorm"),
  (
    r"layer(\d)\.(\d+)\.downsample\.0",
    r"stage\1_block\2/downsample_conv",
    "conv",
  ),
  (
    r"layer(\d)\.(\d+)\.downsample\.1",
    r"stage\1_block\2/downsample_bn",
    "batchnorm",
  ),
)
_SHORT = {"q": "query", "k": "key", "v": "value", "out": "output"}
_BATCHNORM_EPS = 1e-5

# What published files hold beside the encoder: other heads, counters.
_IGNORED = re.compile(
  r"position_ids|num_batches_tracked|^(cls|lm_head|fc|classifier|pooler)\."
  r"|^(text_model|text_projection|visual_projection|logit_scale)"
  r"|^post_layernorm"
)
_PREFIX = re.compile(r"^(bert|roberta|vision_model|vit)\.")


def resolve(config):
  """`config` with the sizes of the encoders whose weights are published."""
  model = config.model
  changes = {}
  for name, sizes in (
    ("text", _text_sizes), ("vit", _vit_sizes), ("resnet", _resnet_sizes)
  ):  # fmt: skip
    encoder = getattr(model, name)
    if encoder.weights and getattr(encoder, "enabled", True):
      path = folder(encoder.weights) / "config.json"
      try:
        changes[name] = sizes(_read_json(path), encoder, path)
      except KeyError as error:
        raise UserError(f"{path}: no field {error}") from None
  config = dataclasses.replace(
    config, model=dataclasses.replace(model, **changes)
  )
  validate(config)
  return config


def _text_sizes(c, encoder, path):
  if c.get("model_type") not in ("bert", "roberta", "xlm-roberta"):
    raise UserError(
      f"{path}: model_type {c.get('model_type')!r} is no text encoder of the"
      " BERT or RoBERTa family"
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
  return 0 if c["model_type"] == "bert" else c["pad_token_id"] + 1


def _vit_sizes(c, encoder, path):
  c = c.get("vision_config", c)
  styles = {"clip": "clip", "clip_vision_model": "clip", "vit": "google"}
  if c.get("model_type") not in styles:
    raise UserError(f"{path}: model_type {c.get('model_type')!r} is no ViT")
  style = styles[c["model_type"]]
  _check_activation(c, "quick_gelu" if style == "clip" else "gelu", path)
  return dataclasses.replace(
    encoder,
    style=style,
    image_size=c["image_size"],
    patch_size=c["patch_size"],
    hidden_size=c["hidden_size"],
    num_layers=c["num_hidden_layers"],
    num_heads=c["num_attention_heads"],
    intermediate_size=c["intermediate_size"],
    layer_norm_eps=c["layer_norm_eps"],
  )


def _resnet_sizes(c, encoder, path):
  stages = {
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
  }
  name = c.get("architecture")
  if name not in stages:
    raise UserError(
      f"{path}: architecture {name!r} is none of {', '.join(stages)}"
    )
  return dataclasses.replace(encoder, stages=stages[name], width=64)


def folder(weights):
  """The local folder of published weights, from the Hub where it is a name."""
  path = epath.Path(weights).expanduser()
  if path.is_dir():
    return path
  if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", weights):
    raise UserError(f"weights: {weights} is neither a folder nor a Hub name")
  try:
    return epath.Path(
      huggingface_hub.snapshot_download(
        weights, allow_patterns=["*.json", "*.txt", "*.safetensors"]
      )
    )
  except Exception as error:  # of the network, the Hub or the cache
    reason = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(
      f"weights: {weights} is no folder, and the Hub did not give it"
      f" ({reason[0]})"
    ) from None


def _read_json(path):
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(f"{path}: not found") from None
  except ValueError as error:
    raise UserError(f"{path}: not valid JSON ({error})") from None


def load(config, params):
  """`params` in which the published encoders' arrays have their values.

  Args:
    config: the resolved Config.
    params: the model's parameters on their devices; what is loaded takes
      their shardings.
  """
  params = dict(params)
  model = config.model
  vit_table = CLIP if model.vit.style == "clip" else GOOGLE
  for name, table in (("text", BERT), ("vit", vit_table), ("resnet", RESNET)):
    encoder = getattr(model, name)
    if encoder.weights and name in params:
      params[name] = load_encoder(folder(encoder.weights), table, params[name])
  return params


def load_encoder(path, table, params):
  """The parameters of one encoder, one array at a time.

  Args:
    path: folder with config.json and *.safetensors.
    table: BERT, CLIP, GOOGLE or RESNET.
    params: the encoder's parameters, or ShapeDtypeStructs with shardings.
  """
  want = traverse_util.flatten_dict(params, sep="/")
  first_position = 0
  if table is BERT:
    first_position = _first_position(_read_json(path / "config.json"))
  with contextlib.ExitStack() as stack:
    arrays = _open(path, stack)
    found, strange = {}, []
    for name in arrays:
      targets = _targets(_PREFIX.sub("", name), table)
      for target, part in targets:
        found.setdefault(target, {})[part] = name
      if not any(target in want for target, _ in targets):
        strange += [] if _IGNORED.search(_PREFIX.sub("", name)) else [name]
    loaded, missing, wrong = {}, [], []
    for target, x in want.items():
      parts = {part: arrays[n] for part, n in found.get(target, {}).items()}
      value = _convert(target, parts)
      if value is None:
        missing.append(target)
        continue
      if target == "position_embeddings/embedding":
        value = value[first_position:]
      if value.shape != x.shape:
        wrong.append(f"{target} is {x.shape}, there {value.shape}")
      else:
        loaded[target] = jax.device_put(value.astype(np.float32), x.sharding)
  problems = [
    f"{title}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    for title, names in (
      ("the model needs, the file lacks", missing),
      ("the file has, the model lacks", sorted(strange)),
      ("other shapes", wrong),
    )
    if names
  ]
  if problems:
    raise UserError(
      f"{path}: other weights than expected; " + "; ".join(problems)
    )
  return traverse_util.unflatten_dict(loaded, sep="/")


class _Arrays(dict):
  """name -> the open safetensors file that holds it; reads on access."""

  def __getitem__(self, name):
    return super().__getitem__(name).get_tensor(name)


def _open(path, stack):
  files = sorted(path.glob("*.safetensors"))
  if not files:
    raise UserError(f"{path}: no *.safetensors file in it")
  arrays = _Arrays()
  for file in files:
    try:
      opened = stack.enter_context(safetensors.safe_open(file, "numpy"))
      arrays.update((name, opened) for name in opened.keys())
    except Exception as error:  # the library has an error type of its own
      raise UserError(f"{file}: cannot be read ({error})") from None
  return arrays


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
  module, _, leaf = name.rpartition(".")
  for regex, target, kind in table:
    match = re.fullmatch(regex, name if kind == "raw" else module)
    if not match:
      continue
    head, _, last = match.expand(target).rpartition("/")
    target = f"{head}/{_SHORT.get(last, last)}".lstrip("/")
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

"""Published weights: a Hub name or a folder -> parameters of our modules.

One table maps published modules to ours. Nothing is guessed: an array that is
missing on either side, or has another shape, is an error that lists both.
"""

import gc
import math
import re
import textwrap

import jax
import numpy as np
from flax import traverse_util

from mner_jax.config import UserError, VitConfig, replace
from mner_jax.data import files, hub

ENCODERS = ("text", "vit", "resnet")  # parts of the model with weights

# Published names are rewritten by these (regex, value) first, ...
RENAMED = (
  (r"^encoder\.layers?\.(\d+)\.", r"layer_\1/"),
  (r"^layer(\d)\.(\d+)\.", r"stage\1_block\2/"),
  (r"LayerNorm\.gamma$", "LayerNorm.weight"),  # in files of 2019
  (r"LayerNorm\.beta$", "LayerNorm.bias"),
)
# ... then what follows the / is looked up here: {our module: regex of theirs},
# also for arrays that belong to no module. The first match counts.
MODULES = {
  # Names of BERT, of Google's ViT and of CLIP's
  "class_embedding": r"embeddings\.(cls_token|class_embedding)",
  "patch_embedding": r"embeddings\.patch_embedding(s\.projection)?",
  "position_embedding": r"embeddings\.position_embedding(s$|\.weight)",
  "position_embeddings": r"embeddings\.position_embeddings",
  "word_embeddings": r"embeddings\.word_embeddings",
  "type_embeddings": r"embeddings\.token_type_embeddings",
  "embeddings_norm": r"embeddings\.LayerNorm",
  "pre_norm": "pre_layrnorm",  # sic
  "attention/query": r"attention\.(self|attention)\.query|self_attn\.q_proj",
  "attention/key": r"attention\.(self|attention)\.key|self_attn\.k_proj",
  "attention/value": r"attention\.(self|attention)\.value|self_attn\.v_proj",
  "attention/output": r"attention\.output\.dense|self_attn\.out_proj",
  "attention_norm": r"attention\.output\.LayerNorm|layer_?norm(_before|1)",
  "intermediate": r"intermediate\.dense|mlp\.fc1",
  "output": r"output\.dense|mlp\.fc2",
  "output_norm": r"output\.LayerNorm|layer_?norm(_after|2)",
  "final_norm": "layernorm",
  "pooler": r"pooler\.dense",
  # torchvision's ResNet: conv1, bn1, ... keep their names.
  r"\g<0>": r"(conv|bn)\d",
  "downsample_conv": r"downsample\.0",
  "downsample_bn": r"downsample\.1",
}
_BATCHNORM = ("weight", "bias", "running_mean", "running_var")
_BATCHNORM_EPS = 1e-5
# What published files contain beside the encoder: other heads, counters.
_IGNORED = re.compile(
  r".*(position_ids|num_batches_tracked)"
  r"|(\w+\.)?(cls|lm_head|fc|classifier|pooler|post_layernorm)\."
  r"|text_model|text_projection|visual_projection|logit_scale"
)

_RESNETS = {
  "resnet50": (3, 4, 6, 3),
  "resnet101": (3, 4, 23, 3),
  "resnet152": (3, 8, 36, 3),
}
# model_type, or timm's architecture -> (our encoder, prefix of all names).
FAMILIES = {
  "bert": ("text", "bert."),
  "roberta": ("text", "roberta."),
  "xlm-roberta": ("text", "roberta."),
  "clip": ("vit", "vision_model."),
  "clip_vision_model": ("vit", "vision_model."),
  "vit": ("vit", "vit."),
  **dict.fromkeys(_RESNETS, ("resnet", "")),
}
# Fields of ours that config.json settles: its names where they differ, and all.
_NAMES = {
  "num_layers": "num_hidden_layers",
  "num_heads": "num_attention_heads",
}
_SIZES = (*_NAMES, "hidden_size", "intermediate_size", "layer_norm_eps")
_SETTLED = {
  "text": (*_SIZES, "vocab_size", "type_vocab_size"),
  "vit": (*_SIZES, "image_size", "patch_size"),
}


def fill_sizes(config):
  """Returns `config` with the sizes of encoders whose weights are published."""
  changed = {}
  for name in ENCODERS:
    encoder = getattr(config.model, name)
    if encoder.weights and getattr(encoder, "enabled", True):
      path = hub.folder(encoder.weights)
      try:
        sizes = _sizes(name, path)
      except KeyError as error:
        raise UserError(f"{path}/config.json: no field {error}") from None
      changed |= {f"model.{name}.{field}": x for field, x in sizes.items()}
  size = "model.vit.image_size"
  changed[size] = config.model.vit.image_size or changed.get(size) or 224
  # Now that their sizes are known they are checked like those from scratch.
  replace(config, changed | {f"model.{name}.weights": "" for name in ENCODERS})
  return replace(config, changed)


def _sizes(name, path):
  """Returns the fields of an encoder that its config.json settles."""
  c = _read_config(path)
  model_type = c["model_type"]
  kind, _ = FAMILIES[model_type]
  if kind != name:
    raise UserError(
      f"model.{name}.weights: {path} is a {model_type!r}, for model.{kind}"
    )
  if name == "resnet":
    return {"stages": _RESNETS[model_type], "width": 64}
  clip = model_type.startswith("clip")
  if clip:  # its files leave out the values of ViT-B/32, which are our defaults
    defaults = vars(VitConfig())
    defaults = {_NAMES.get(field, field): x for field, x in defaults.items()}
    c = defaults | c.get("vision_config", c)
  gelu = "quick_gelu" if clip else "gelu"
  if c.get("hidden_act", gelu) != gelu:
    raise UserError(
      f"{path}: hidden_act is {c['hidden_act']!r}; only {gelu!r} is built"
    )
  sizes = {field: c[_NAMES.get(field, field)] for field in _SETTLED[name]}
  if name == "text":
    positions = c["max_position_embeddings"] - _first_position(c)
    sizes["max_positions"] = positions
  else:
    sizes["style"] = "clip" if clip else "google"
  return sizes


def _first_position(c):
  """The first used position: RoBERTa's is the one after its padding index."""
  _, prefix = FAMILIES[c["model_type"]]
  return c["pad_token_id"] + 1 if prefix == "roberta." else 0


def _read_config(path):
  """Reads the config.json of a folder; its model_type is one of FAMILIES."""
  c = files.read_json(path / "config.json")
  c = {name: value for name, value in c.items() if value is not None}
  if c.get("architecture") in _RESNETS:  # of timm: those of transformers differ
    c["model_type"] = c["architecture"]
  if c.get("model_type") not in FAMILIES:
    raise UserError(
      f"{path}/config.json: neither model_type nor architecture is one of"
      f" {', '.join(FAMILIES)}"
    )
  return c


def load(config, params):
  """Loads the parameters of the encoders whose weights are published.

  Args:
    config: the Config, with `fill_sizes`.
    params: of the whole model, ShapeDtypeStructs with shardings.

  Returns:
    {"text" | "vit" | "resnet": parameters}, only those with weights.
  """
  return {
    name: load_encoder(hub.folder(weights), params[name])
    for name in ENCODERS
    if name in params and (weights := getattr(config.model, name).weights)
  }


def load_encoder(path, params):
  """Loads the parameters of one encoder, one array at a time.

  Where the model takes pictures of another size, the positions of a ViT are
  interpolated (`resize_positions`); rows that pad a vocabulary are 0. A pooler
  is left out where the file has none, as RoBERTa's.

  Args:
    path: folder with config.json and the arrays.
    params: the encoder's parameters, ShapeDtypeStructs with shardings.
  """
  c = _read_config(path)
  _, prefix = FAMILIES[c["model_type"]]
  arrays = hub.open_arrays(path)
  names = {_translate(name.removeprefix(prefix)): name for name in arrays}
  want = traverse_util.flatten_dict(params, sep="/")
  if not {"pooler/weight", "pooler/bias"} & names.keys():
    want = {k: x for k, x in want.items() if not k.startswith("pooler/")}
  loaded, missing, wrong, used = {}, [], [], set()

  def read(name, shape):
    """Returns an array of ours, or None and notes why it cannot be had."""
    sources = [names.get(source) for source in _sources(name)]
    used.update(sources)
    if None in sources:
      missing.append(name)
      return None
    value = _convert(name, *(arrays[source]() for source in sources))
    if name == "position_embeddings/embedding":
      value = value[_first_position(c) :]
    elif name == "position_embedding":
      value = resize_positions(value, shape[0])
    elif name == "word_embeddings/embedding":
      if len(value) == c["vocab_size"] < shape[0]:
        value = np.pad(value, ((0, shape[0] - len(value)), (0, 0)))
    if value.shape != shape:
      wrong.append(f"{name} is {shape}, in the file {value.shape}")
      return None
    return value.astype(np.float32, copy=False)

  # The largest first, while the host holds the least.
  for target, x in sorted(want.items(), key=lambda item: -item[1].size):
    if rows := _rows(target, want):
      value = np.empty(x.shape, np.float32)
      for i, row in enumerate(rows):
        value[i] = read(row, x.shape[1:])  # None, refused below, is NaN
    else:
      value = read(target, x.shape)
    if not missing and not wrong:
      loaded[target] = jax.make_array_from_callback(
        x.shape, x.sharding, value.__getitem__
      ).block_until_ready()
      gc.collect(0)  # JAX frees the copy on the host only now
  unknown = [n for n in arrays.keys() - used if not _IGNORED.match(n)]
  problems = [
    f"{title}: {textwrap.shorten(', '.join(sorted(found)), 400)}"
    for title, found in (
      ("the model needs, the file lacks", missing),
      ("the file has, the model lacks", unknown),
      ("other shapes", wrong),
    )
    if found
  ]
  if problems:
    raise UserError(
      f"{path}: other weights than expected; {'; '.join(problems)}"
    )
  return traverse_util.unflatten_dict(loaded, sep="/")


def _translate(name):
  """Returns our module/weight (or bias, ...) of a published array, or None."""
  for regex, ours in RENAMED:
    name = re.sub(regex, ours, name)
  block, slash, name = name.rpartition("/")
  for ours, regex in MODULES.items():
    whole = rf"^({regex})(?=$|\.({'|'.join(_BATCHNORM)})$)"
    name, found = re.subn(whole, ours, name)
    if found:
      return block + slash + name.replace(".", "/")
  return None


def _rows(target, want):
  """Lists the arrays, one of each layer, that ours stacks; () if it does not.

  They are named as by `_translate`, but for the last part.
  """
  lower = len(want.get("lower_layers/output/bias", ()))
  for stack, layer, first in (
    (r"^lower_layers/", "layer_{}/", 0),
    (r"^layers/", "layer_{}/", lower),
    (r"^(stage\d_block)s/", r"\1{}/", 1),
  ):
    name, stacked = re.subn(stack, layer, target)
    if stacked:
      return [name.format(first + i) for i in range(want[target].shape[0])]
  return ()


def _sources(target):
  """Lists the published arrays that ours needs, named as by `_translate`."""
  module, _, leaf = target.rpartition("/")
  if re.search(r"bn\d?$", module):
    return [f"{module}/{published}" for published in _BATCHNORM]
  if leaf in ("kernel", "scale", "embedding"):
    return [f"{module}/weight"]
  return [target]


def _convert(target, x, bias=None, mean=None, var=None):
  """Makes our array of the published ones that `_sources` lists."""
  if var is not None:  # a batch norm, folded
    scale = x / np.sqrt(var.astype(np.float64) + _BATCHNORM_EPS)
    return scale if target.endswith("/scale") else bias - mean * scale
  if target.endswith("/kernel"):
    # Convolutions [O, I, h, w] -> [h, w, I, O]; Linear [out, in] -> [in, out].
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
  # Google's class token and positions begin with axes of 1.
  return x if "/" in target else x.squeeze()


def resize_positions(table, num_tokens):
  """Resizes positions [1 + n n, D] of n x n patches to [1 + m m, D].

  1 + m m is `num_tokens`. The class token's position is kept; the grid is
  resized by separable cubic convolution (a = -0.75, pixel centres, edges
  repeated, no antialiasing), like `interpolate_pos_encoding` of transformers.
  """
  n, m = math.isqrt(len(table) - 1), math.isqrt(num_tokens - 1)
  squares = (1 + n * n, 1 + m * m) == (len(table), num_tokens)
  if len(table) == num_tokens or not squares:
    return table
  centres = (np.arange(m) + 0.5) * n / m - 0.5
  near = np.floor(centres)[:, None].astype(int) + np.arange(-1, 3)  # [m, 4]
  d, a = np.abs(centres[:, None] - near), -0.75
  inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
  outer = a * (d**3 - 5 * d**2 + 8 * d - 4)
  kernel = np.where(d <= 1, inner, outer)
  edge = np.eye(n)[np.clip(near, 0, n - 1)]  # [m, 4, n]
  weights = np.einsum("mk,mkn->mn", kernel, edge)
  grid = table[1:].reshape(n, n, -1)
  grid = np.einsum("yi,xj,ijd->yxd", weights, weights, grid, optimize=True)
  return np.concatenate([table[:1], grid.reshape(m * m, -1)])

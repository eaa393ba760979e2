"""Settings of an experiment: frozen, typed, checked.

An experiment is a file in `mner_jax/configs/` whose `get_config()` returns a
`Config`; `--config.a.b=value` changes a field of it. Choices and bounds are in
the fields' types, checks of several fields in `_problems`. The defaults are
those of the paper's authors.
"""

import dataclasses
import difflib
import functools
import json
import math
import re
from typing import Annotated, Literal, get_args, get_origin, get_type_hints


class UserError(Exception):
  """Bad input: the message says what, where and what to do; exit code 2."""


_BOUNDS = {
  "above 0": lambda x: x > 0,
  "above 0, or -1": lambda x: x > 0 or x == -1,
  "0 or above": lambda x: x >= 0,
  "in [0, 1]": lambda x: 0 <= x <= 1,
  "in [0, 2^32)": lambda x: 0 <= x < 2**32,  # a random key has no more bits
}
Size = Annotated[int, "above 0"]
Count = Annotated[int, "0 or above"]
Axis = Annotated[int, "above 0, or -1"]
Positive = Annotated[float, "above 0"]
NotNegative = Annotated[float, "0 or above"]
Share = Annotated[float, "in [0, 1]"]
Fusion = Literal["collaboration", "concatenation", "umt", "maf", "none"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """What is read; sizes in word pieces."""

  # A folder; "synthetic", the embedded corpus; or, from TFDS' manual folder,
  # "mmnerd", "twitter2015" or "twitter2017".
  path: str = "synthetic"
  languages: tuple[str, ...] = ("en", "fr", "de", "es")
  eval_languages: tuple[str, ...] = ()  # () = languages
  images: str = "images"  # folder, relative to path; "" = no images
  labels: tuple[str, ...] = ()  # entity types; () = those in the files
  label_map: tuple[str, ...] = ()  # "OTHER=MISC" renames, "TIME=O" drops a type
  scheme: Literal["iob2", "iob1", "bioes"] = "iob2"  # of the files' tags
  tag_column: str = "-1"  # number from 1, name in the first line; -1 = last
  # In training, an I- without a tag before it begins an entity, or is an error.
  orphans: Literal["repair", "error"] = "repair"
  # Languages are drawn with p ~ n^(1/T), n their windows; 1 = as they come.
  language_temperature: Positive = 1.0
  cache_dir: str = ""  # built data sets; "" = the TFDS default
  buckets: tuple[int, ...] = (32, 64, 128)  # lengths a batch may have
  workers: Size = 4  # threads that decode images
  resize: Count = 0  # shortest side of stored images; 0 = as they are
  strict: bool = False  # whether a missing or broken image is an error
  fingerprint: str = ""  # of the sentences, filled in: a resume needs the same


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """The text encoder; defaults are bert-base-multilingual-cased.

  A BiLSTM has hidden_size / 2 units in each direction and num_layers layers;
  of the rest it uses the vocabulary and `dropout`.
  """

  encoder: Literal["bert", "bilstm"] = "bert"
  weights: str = ""  # Hub name or folder; "" = from scratch
  vocab_size: Size = 119547  # from scratch: at most so many are counted
  vocab_multiple: Size = 1  # rows of 0 fill the table up to a multiple of this
  hidden_size: Size = 768
  num_layers: Size = 12
  num_heads: Size = 12
  intermediate_size: Size = 3072
  max_positions: Size = 512
  type_vocab_size: Size = 2
  layer_norm_eps: float = 1e-12
  dropout: Share = 0.1
  attention_dropout: Share = 0.1
  frozen_layers: Count = 0  # the lowest, not trained; embeddings still are
  remat: bool = False  # keep the layers' inputs only: less memory, more work
  unroll: Count = 1  # layers in a round of the loop over them, 0 = all


@dataclasses.dataclass(frozen=True)
class VitConfig:
  """The fine-tuned image encoder; defaults are openai/clip-vit-base-patch32."""

  weights: str = ""
  enabled: bool = True
  style: Literal["clip", "google"] = "clip"  # see models/vit.py
  image_size: Count = 0  # 0 = that of the weights, 224 from scratch
  patch_size: Size = 32
  hidden_size: Size = 768
  num_layers: Size = 12
  num_heads: Size = 12
  intermediate_size: Size = 3072
  layer_norm_eps: float = 1e-5
  remat: bool = False  # as in TextConfig
  unroll: Count = 1  # as in TextConfig


@dataclasses.dataclass(frozen=True)
class ResnetConfig:
  """The scene encoder; defaults are ResNet-152."""

  weights: str = ""
  enabled: bool = True
  image_size: Size = 224
  stages: tuple[Size, ...] = (3, 8, 36, 3)  # bottleneck blocks per stage
  width: Size = 64
  unroll: Count = 1  # blocks of a stage, as in TextConfig


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """2M-NER; without image branches it is BERT-CRF."""

  text: TextConfig = TextConfig()
  vit: VitConfig = VitConfig()
  resnet: ResnetConfig = ResnetConfig()
  # How pictures reach the words; "none": only through the contrastive loss.
  fusion: Fusion = "collaboration"
  fusion_heads: Size = 12
  dropout: Share = 0.1
  decoder: Literal["crf", "softmax"] = "crf"
  # True: the forward pass of the authors' released code, faults included.
  released: bool = False

  @property
  def multimodal(self):
    """Whether the model has an image branch at all."""
    return self.vit.enabled or self.resnet.enabled


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """L = 2 (alpha L_crf + (1 - alpha) L_cl)."""

  alpha: Share = 0.8
  temperature: Positive = 0.5
  contrastive: Literal["nt_xent", "clip", "none"] = "nt_xent"
  text_share: Share = 0.5  # of the anchors of the text in the mean
  alignment: Literal["sentence", "word"] = "sentence"  # what pictures align to


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """Adam; linear warm-up, then linear decay to 0 at the last step."""

  learning_rate: Positive = 5e-5
  warmup_steps: Count = 0
  warmup_share: Share = 0.0  # in place of it: a share of all steps
  weight_decay: NotNegative = 0.0
  clip_norm: NotNegative = 0.0  # longest gradient of all that learns; 0 = any
  # Regexes over parameter paths: no gradient, no optimizer state.
  frozen: tuple[str, ...] = (r"^resnet/",)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The loop; intervals in steps, 0 = once an epoch."""

  batch_size: Size = 32  # over all devices and hosts
  accumulate: Size = 1  # parts of a batch that are computed one after the other
  epochs: Size = 8
  eval_every: Count = 0
  checkpoint_every: Count = 0
  score_test: bool = False  # at every evaluation, for the "best test epoch"
  log_every: Size = 10
  tensorboard: bool = False  # also write what is logged for it, by tensorboardX
  skip_nonfinite: Count = 0  # batches whose loss or gradient is not finite


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each axis; one of them may be -1 = all that are left."""

  data: Axis = -1
  fsdp: Axis = 1
  tensor: Axis = 1


@dataclasses.dataclass(frozen=True)
class Config:
  """One experiment."""

  seed: Annotated[int, "in [0, 2^32)"] = 19
  data: DataConfig = DataConfig()
  model: ModelConfig = ModelConfig()
  loss: LossConfig = LossConfig()
  optim: OptimConfig = OptimConfig()
  train: TrainConfig = TrainConfig()
  mesh: MeshConfig = MeshConfig()
  # Of activations and matmuls; parameters are fp32.
  dtype: Literal["float32", "bfloat16"] = "float32"
  init_from: str = ""  # workdir whose best parameters to start from

  @property
  def tags(self):
    """K tags in the order of the CRF: O, then B- and I- of each label."""
    return ("O", *(f"{x}-{t}" for t in self.data.labels for x in "BI"))


# What a resumed run may change without becoming another experiment.
RESUMABLE = """
  data.path data.images data.cache_dir data.workers data.strict dtype mesh.data
  mesh.fsdp mesh.tensor model.text.remat model.text.unroll model.vit.remat
  model.vit.unroll model.resnet.unroll train.log_every train.skip_nonfinite
  train.tensorboard
""".split()


def flatten(config, prefix=""):
  """Returns {"a.b.c": value} of every field of a Config."""
  found = {}
  for name, value in vars(config).items():
    if dataclasses.is_dataclass(value):
      found |= flatten(value, f"{prefix}{name}.")
    else:
      found[prefix + name] = value
  return found


def replace(config, fields):
  """Returns `config` with {"a.b": value} changed; a UserError if it is bad."""
  known = flatten(config)
  for name in fields:
    if name not in known:
      near = difflib.get_close_matches(name, known, 1, 0.5)
      guess = f"; did you mean {near[0]!r}?" if near else ""
      raise UserError(f"--config: there is no setting {name!r}{guess}")
  tree = dataclasses.asdict(config)
  for name, value in fields.items():
    *parents, last = name.split(".")
    functools.reduce(dict.get, parents, tree)[last] = value
  return from_dict(tree)


def from_dict(tree):
  """Returns the checked Config of nested dicts, as those of `config.json`."""
  config = _convert(Config, tree, "")
  for problem in _problems(config):
    raise UserError(f"config: {problem}")
  return config


def _convert(kind, value, path):
  """Returns `value` as a `kind`, or raises a UserError that names the field."""
  if dataclasses.is_dataclass(kind):
    if not isinstance(value, dict):
      raise UserError(f"config: {path or 'the whole'} must be an object")
    types = get_type_hints(kind, include_extras=True)
    prefix = f"{path}." if path else ""
    if unknown := sorted(set(value) - set(types)):
      raise UserError(f"config: there is no setting {prefix}{unknown[0]}")
    values = {k: _convert(types[k], v, prefix + k) for k, v in value.items()}
    return kind(**values)
  arguments = get_args(kind)
  if get_origin(kind) is Annotated:
    value = _convert(arguments[0], value, path)
    (words,) = kind.__metadata__
    good = _BOUNDS[words](value)
  elif get_origin(kind) is Literal:
    good, words = value in arguments, f"one of {', '.join(arguments)}"
  elif get_origin(kind) is tuple:
    good, words = isinstance(value, list | tuple), f"a tuple: ({value!r},)"
    if good:
      value = tuple(_convert(arguments[0], x, path) for x in value)
  else:
    if kind is float and type(value) is int:
      value = float(value)
    good, words = type(value) is kind, f"of type {kind.__name__}"
    if good and kind is float:
      good, words = math.isfinite(value), "finite"
  if good:
    return value
  raise UserError(f"config: {path} must be {words}, not {value!r}")


def to_json(config):
  """Returns the text of a workdir's `config.json`."""
  return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def differences(old, new):
  """Lists the fields a resumed run may not change, as `a.b: old -> new`."""
  old, new = flatten(old), flatten(new)
  return [
    f"{name}: {old[name]!r} -> {new[name]!r}"
    for name in old
    if old[name] != new[name] and name not in RESUMABLE
  ]


def _problems(config):
  """Yields what is wrong with fields that depend on each other."""
  data, model, text = config.data, config.model, config.model.text
  vit, buckets, bert = model.vit, data.buckets, text.encoder == "bert"
  if not data.languages:
    yield "data.languages is empty"
  if model.multimodal and (data.path, data.images) == ("synthetic", ""):
    yield "data.images: the synthetic corpus has its own; see synthetic_text.py"
  for name in ("languages", "eval_languages", "labels"):
    if len(set(values := getattr(data, name))) < len(values):
      yield f"data.{name} names one twice: {', '.join(values)}"
  if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 8:
    yield f"data.buckets must be increasing and at least 8, not {buckets}"
  elif buckets[-1] > text.max_positions:
    yield "data.buckets must end at most at model.text.max_positions"
  # Published weights bring sizes of their own: see pretrained.fill_sizes.
  if vit.enabled and not vit.weights and vit.image_size % vit.patch_size:
    yield f"model.vit.image_size must be a multiple of {vit.patch_size}"
  if not text.weights and text.frozen_layers > text.num_layers * bert:
    yield f"model.text.frozen_layers must be at most {text.num_layers * bert}"
  heads = {"model.vit": (vit.hidden_size, vit.num_heads)}
  if bert:
    heads["model.text"] = (text.hidden_size, text.num_heads)
  if model.multimodal and model.fusion not in ("concatenation", "none"):
    heads["model.fusion"] = (text.hidden_size, model.fusion_heads)
  for name, (width, count) in heads.items():
    if width % count:
      yield f"{name}: {count} heads do not divide {width}"
  if not bert and (text.weights or text.hidden_size % 2):
    yield "model.text: a bilstm has weights='' and an even hidden_size"
  regions = model.resnet.enabled and not vit.enabled
  if model.fusion in ("umt", "maf") and not regions:
    yield f"model.fusion={model.fusion!r} needs ResNet, model.vit.enabled=False"
  shared = model.released and vit.enabled and model.fusion == "collaboration"
  if shared and text.hidden_size != vit.hidden_size:
    yield "model.released needs hidden_size equal in model.text and model.vit"
  if model.multimodal and model.fusion == config.loss.contrastive == "none":
    yield (
      "model.fusion='none' and loss.contrastive='none' do not use pictures:"
      " set model.vit.enabled and model.resnet.enabled to False"
    )
  if config.train.batch_size % config.train.accumulate:
    yield "train.batch_size must be a multiple of train.accumulate"
  if config.optim.warmup_steps and config.optim.warmup_share:
    yield "optim.warmup_steps and optim.warmup_share exclude each other"
  for pattern in config.optim.frozen:
    try:
      re.compile(pattern)
    except re.error as error:
      yield f"optim.frozen: {pattern!r} is no regex ({error})"

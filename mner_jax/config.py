"""Settings of an experiment.

An experiment is a file in `mner_jax/configs/` whose `get_config()` returns a
`ConfigDict`; `--config.a.b=value` overrides a field. `from_config_dict` turns
it, once, into the frozen dataclasses below: everything after that is typed
and validated. The defaults are those of the paper's authors.
"""

import dataclasses
import json
import math
import typing

import ml_collections
from etils import epath

from mner_jax import validation


class UserError(Exception):
  """Bad input: the message says what, where and what to do; exit code 2."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """What is read; sizes in word pieces."""

  # A folder, "synthetic" for the embedded corpus, or "mmnerd", "twitter2015"
  # or "twitter2017" for what lies in TFDS' manual folder.
  path: str = "synthetic"
  languages: tuple[str, ...] = ("en", "fr", "de", "es")
  eval_languages: tuple[str, ...] = ()  # () = languages
  images: str = "images"  # folder, relative to path; "" = no images
  labels: tuple[str, ...] = ()  # entity types; () = those in the files
  label_map: tuple[str, ...] = ()  # "OTHER=MISC" renames, "TIME=O" drops a type
  scheme: str = "iob2"  # of the files' tags: "iob2", "iob1" or "bioes"
  # I- tags that follow no tag of their type, in training: "repair" (each
  # begins an entity) or "error". The gold that is scored is the file's.
  orphans: str = "repair"
  # Languages are drawn with p ~ n^(1/T), n their windows; 1 = as they come.
  language_temperature: float = 1.0
  cache_dir: str = ""  # built data sets; "" = the TFDS default
  buckets: tuple[int, ...] = (32, 64, 128)  # lengths a batch may have
  workers: int = 4  # threads that decode images
  resize: int = 0  # shortest side that images are stored with; 0 = as they are
  strict: bool = False  # whether a missing or broken image is an error
  # Hash of the sentences; filled in, so that a run does not go on with others.
  fingerprint: str = ""


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """The text encoder; defaults are bert-base-multilingual-cased.

  A BiLSTM has hidden_size / 2 units in each direction and num_layers layers;
  of the rest it uses the vocabulary and `dropout`.
  """

  encoder: str = "bert"  # "bert" or "bilstm"
  weights: str = ""  # Hub name or folder; "" = from scratch
  # From scratch, the largest size of the vocabulary that is counted.
  vocab_size: int = 119547
  vocab_multiple: int = 1  # rows of 0 fill the table up to a multiple of this
  hidden_size: int = 768
  num_layers: int = 12
  num_heads: int = 12
  intermediate_size: int = 3072
  max_positions: int = 512
  type_vocab_size: int = 2
  layer_norm_eps: float = 1e-12
  dropout: float = 0.1
  attention_dropout: float = 0.1
  remat: bool = False  # keep the layers' inputs only: less memory, more work


@dataclasses.dataclass(frozen=True)
class VitConfig:
  """The fine-tuned image encoder; defaults are openai/clip-vit-base-patch32."""

  weights: str = ""
  enabled: bool = True
  style: str = "clip"  # "clip" or "google": see models/vit.py
  # 0 = that of the weights, 224 from scratch. For another size than theirs
  # the positions are interpolated: see pretrained.resize_positions.
  image_size: int = 0
  patch_size: int = 32
  hidden_size: int = 768
  num_layers: int = 12
  num_heads: int = 12
  intermediate_size: int = 3072
  layer_norm_eps: float = 1e-5
  remat: bool = False  # as in TextConfig

  @property
  def num_tokens(self):
    """P: the class token and the patches."""
    return 1 + (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class ResnetConfig:
  """The scene encoder; defaults are ResNet-152."""

  weights: str = ""
  enabled: bool = True
  image_size: int = 224
  stages: tuple[int, ...] = (3, 8, 36, 3)  # bottleneck blocks per stage
  width: int = 64


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """2M-NER; without image branches it is BERT-CRF."""

  text: TextConfig = TextConfig()
  vit: VitConfig = VitConfig()
  resnet: ResnetConfig = ResnetConfig()
  # How pictures reach the words: "collaboration" (2M-NER), "concatenation",
  # "umt", "maf", or "none": only through the contrastive loss.
  fusion: str = "collaboration"
  fusion_heads: int = 12
  dropout: float = 0.1
  decoder: str = "crf"  # "crf", or "softmax": each word's tag by itself
  # True: the forward pass of the authors' released code, faults included.
  released: bool = False

  @property
  def multimodal(self):
    """Whether the model has an image branch at all."""
    return self.vit.enabled or self.resnet.enabled


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """L = 2 (alpha L_crf + (1 - alpha) L_cl)."""

  alpha: float = 0.8
  temperature: float = 0.5
  contrastive: str = "nt_xent"  # "nt_xent", "clip" or "none"
  text_share: float = 0.5  # of text -> image in the CLIP form
  # What is compared with a picture: the sentence's vector, or its words with
  # the picture's tokens ("word").
  alignment: str = "sentence"


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """Adam; linear warm-up, then linear decay to 0 at the last step."""

  learning_rate: float = 5e-5
  warmup_steps: int = 0
  warmup_share: float = 0.0  # in place of it: a share of all steps
  weight_decay: float = 0.0
  # Regexes over parameter paths: no gradient, no optimizer state.
  frozen: tuple[str, ...] = (r"^resnet/",)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The loop; intervals in steps, 0 = once an epoch."""

  batch_size: int = 32  # over all devices and hosts
  accumulate: int = 1  # parts of a batch that are computed one after the other
  epochs: int = 8
  eval_every: int = 0
  checkpoint_every: int = 0
  # Score test at every evaluation too, and report the best of these scores,
  # which the authors' code selects by, under its own name: best test epoch.
  score_test: bool = False
  log_every: int = 10
  # Batches of a run that may be left out because their loss or gradient is
  # not finite; one more stops it.
  skip_nonfinite: int = 0


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each axis; one of them may be -1 = all that are left."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
  """One experiment."""

  seed: int = 19
  data: DataConfig = DataConfig()
  model: ModelConfig = ModelConfig()
  loss: LossConfig = LossConfig()
  optim: OptimConfig = OptimConfig()
  train: TrainConfig = TrainConfig()
  mesh: MeshConfig = MeshConfig()
  dtype: str = "float32"  # of activations and matmuls; parameters are fp32
  init_from: str = ""  # workdir whose best parameters to start from

  @property
  def tags(self):
    """K tags in the order of the CRF: O, then B- and I- of each label."""
    pairs = ((f"B-{t}", f"I-{t}") for t in self.data.labels)
    return ("O", *(tag for pair in pairs for tag in pair))

  def resolve(self, labels, fingerprint, num_pieces):
    """This config with what the data and the tokenizer settle filled in.

    The sizes of published weights are in it already (`pretrained.resolve`).
    """
    text = self.model.text
    rows = text.vocab_size if text.weights else num_pieces
    if num_pieces > rows:
      raise UserError(
        f"model.text.weights: the tokenizer of {text.weights} has {num_pieces}"
        f" pieces, more than the {rows} of the weights"
      )
    rows += -rows % text.vocab_multiple
    text = dataclasses.replace(text, vocab_size=rows)
    return dataclasses.replace(
      self,
      data=dataclasses.replace(
        self.data, labels=tuple(labels), fingerprint=fingerprint
      ),
      model=dataclasses.replace(self.model, text=text),
    )


# What a resumed run may change without becoming another experiment.
RESUMABLE = (
  "data.path",
  "data.images",
  "data.cache_dir",
  "data.workers",
  "data.strict",
  "train.log_every",
  "model.text.remat",
  "model.vit.remat",
  # It changes nothing before the batch that a run stopped at.
  "train.skip_nonfinite",
  "mesh.data",
  "mesh.fsdp",
  "mesh.tensor",
  "dtype",
)


def defaults():
  """The authors' settings as a ConfigDict, for `configs/*.py` to change."""
  return ml_collections.ConfigDict(dataclasses.asdict(Config()))


def _convert(kind, value, path):
  """`value` as type `kind`, or a UserError that names the field."""
  if dataclasses.is_dataclass(kind):
    fields = {f.name: f.type for f in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - set(fields)):
      raise UserError(f"config: no field {path}{unknown[0]}")
    return kind(
      **{k: _convert(fields[k], v, f"{path}{k}.") for k, v in value.items()}
    )
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, list | tuple):
      raise UserError(
        f"config: {path[:-1]} must be a tuple such as ('en', 'de'),"
        f" not {value!r}"
      )
    return tuple(_convert(typing.get_args(kind)[0], v, path) for v in value)
  if kind is float and type(value) is int:
    value = float(value)
  if type(value) is not kind:
    raise UserError(
      f"config: {path[:-1]} must be {kind.__name__}, not {value!r}"
    )
  if kind is float and not math.isfinite(value):
    raise UserError(f"config: {path[:-1]} must be finite, not {value!r}")
  return value


def _check(problems):
  """Raises a UserError of the first problem, if there is one."""
  for problem in problems:
    raise UserError(f"config: {problem}")


def validate(config):
  """Raises a UserError for a setting that could only fail later."""
  _check(validation.problems(config))


def check_patches(vit):
  """Raises a UserError where a VitConfig's picture is not whole patches."""
  _check(validation.patches(vit))


def from_config_dict(config_dict):
  """The typed, validated `Config` of a ConfigDict or a dict."""
  if isinstance(config_dict, ml_collections.ConfigDict):
    config_dict = config_dict.to_dict()
  if not isinstance(config_dict, dict):
    raise UserError(
      f"config: {config_dict!r} is no config; get_config() returns a"
      " ConfigDict, see mner_jax/configs"
    )
  config = _convert(Config, config_dict, "")
  validate(config)
  return config


def to_json(config):
  """The text of a workdir's `config.json`."""
  return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def differences(old, new):
  """Fields in which two configs differ, as lines `a.b: old -> new`."""

  def flatten(tree, prefix=""):
    for name, value in tree.items():
      if isinstance(value, dict):
        yield from flatten(value, f"{prefix}{name}.")
      else:
        yield f"{prefix}{name}", value

  old, new = (dict(flatten(dataclasses.asdict(c))) for c in (old, new))
  return [
    f"{name}: {old[name]!r} -> {new[name]!r}"
    for name in old
    if old[name] != new[name] and name not in RESUMABLE
  ]


def read_workdir(workdir):
  """The `Config` that a workdir was trained with."""
  path = epath.Path(workdir) / "config.json"
  try:
    return from_config_dict(json.loads(path.read_text()))
  except FileNotFoundError:
    raise UserError(
      f"{path}: not found; is {workdir} the --workdir of a train.py run?"
    ) from None
  except ValueError as error:
    raise UserError(f"{path}: not valid JSON ({error})") from None

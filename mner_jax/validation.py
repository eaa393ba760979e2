"""What no experiment may say: settings that could only fail later.

`problems` only finds; `config.validate` makes a UserError of what it finds.
"""

import re

from mner_jax.models.contrastive import MIN_TEMPERATURE

CHOICES = {
  "model.text.encoder": ("bert", "bilstm"),
  "model.vit.style": ("clip", "google"),
  "model.fusion": ("collaboration", "concatenation", "umt", "maf", "none"),
  "model.decoder": ("crf", "softmax"),
  "loss.contrastive": ("nt_xent", "clip", "none"),
  "loss.alignment": ("sentence", "word"),
  "dtype": ("float32", "bfloat16"),
  "data.scheme": ("iob2", "iob1", "bioes"),
  "data.orphans": ("repair", "error"),
}
ABOVE_ZERO = (
  *(
    f"model.{encoder}.{field}"
    for encoder in ("text", "vit")
    for field in ("hidden_size", "num_layers", "num_heads", "intermediate_size")
  ),
  "model.text.vocab_multiple",
  "model.vit.patch_size",
  "model.resnet.image_size",
  "model.fusion_heads",
  "train.batch_size",
  "train.accumulate",
  "train.epochs",
  "train.log_every",
  "data.workers",
  "data.language_temperature",
  "optim.learning_rate",
)
NOT_NEGATIVE = (
  "model.vit.image_size",
  "data.resize",
  "train.eval_every",
  "train.checkpoint_every",
  "train.skip_nonfinite",
  "optim.warmup_steps",
  "optim.weight_decay",
)
SHARES = (
  "loss.alpha",
  "loss.text_share",
  "optim.warmup_share",
  "model.dropout",
  "model.text.dropout",
  "model.text.attention_dropout",
)


def problems(config):
  """What is wrong with a Config, one line each; the fields it names exist."""

  def get(path):
    value = config
    for name in path.split("."):
      value = getattr(value, name)
    return value

  for path, known in CHOICES.items():
    if get(path) not in known:
      yield f"{path} is {get(path)!r}, not one of {known}"
  for path in ABOVE_ZERO:
    if get(path) <= 0:
      yield f"{path} must be above 0, not {get(path)!r}"
  for path in NOT_NEGATIVE:
    if get(path) < 0:
      yield f"{path} must be 0 or above"
  for path in SHARES:
    if not 0 <= get(path) <= 1:
      yield f"{path} is {get(path)}, not in [0, 1]"
  if not 0 <= config.seed < 2**32:
    yield f"seed must be in [0, 2^32), not {config.seed}"  # a key has no more
  if config.loss.temperature < MIN_TEMPERATURE:
    yield (
      f"loss.temperature must be at least {MIN_TEMPERATURE}, not"
      f" {config.loss.temperature}"
    )
  yield from _data(config)
  yield from _model(config)
  yield from _training(config)


def _data(config):
  if not config.data.languages:
    yield "data.languages is empty"
  buckets = config.data.buckets
  if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 8:
    yield f"data.buckets must be increasing and at least 8, not {buckets}"
  elif buckets[-1] > config.model.text.max_positions:
    yield (
      f"data.buckets ends at {buckets[-1]}, above the text encoder's"
      f" {config.model.text.max_positions} positions"
    )


def _model(config):
  model = config.model
  # Published weights bring a patch size of their own: pretrained.resolve.
  if not model.vit.weights:
    yield from patches(model.vit)
  heads = {"model.vit": (model.vit.hidden_size, model.vit.num_heads)}
  if model.text.encoder == "bert":
    heads["model.text"] = (model.text.hidden_size, model.text.num_heads)
  if model.multimodal:
    heads["model.fusion"] = (model.text.hidden_size, model.fusion_heads)
  for name, (width, count) in heads.items():
    if width % count:
      yield f"{name}: {count} heads do not divide {width}"
  if model.text.encoder == "bilstm":
    if model.text.weights:
      yield "model.text.weights must be '' for model.text.encoder='bilstm'"
    if model.text.hidden_size % 2:
      yield "model.text.hidden_size must be even: half of it each direction"
  if model.fusion in ("umt", "maf") and (
    model.vit.enabled or not model.resnet.enabled
  ):
    yield (
      f"model.fusion={model.fusion!r} reads the ResNet's regions alone: set"
      " model.resnet.enabled=True and model.vit.enabled=False"
    )
  widths = {model.text.hidden_size, model.vit.hidden_size}
  collaborates = model.vit.enabled and model.fusion == "collaboration"
  if model.released and collaborates and len(widths) > 1:
    yield (
      "model.released sends words through the pictures' key projection:"
      f" model.text.hidden_size {model.text.hidden_size} and"
      f" model.vit.hidden_size {model.vit.hidden_size} must be equal"
    )
  unseen = model.fusion == "none" and config.loss.contrastive == "none"
  if model.multimodal and unseen:
    yield (
      "model.fusion='none' and loss.contrastive='none' leave nothing to the"
      " pictures: set model.vit.enabled and model.resnet.enabled to False"
    )


def patches(vit):
  """The problem of a VitConfig whose picture is not whole patches."""
  if vit.image_size % vit.patch_size:
    yield (
      f"model.vit: patches of {vit.patch_size} do not divide an image of"
      f" {vit.image_size}"
    )


def _training(config):
  train, optim = config.train, config.optim
  if train.batch_size % train.accumulate:
    yield (
      f"train.batch_size {train.batch_size} is not a multiple of"
      f" train.accumulate {train.accumulate}"
    )
  if optim.warmup_steps and optim.warmup_share:
    yield "optim.warmup_steps and optim.warmup_share exclude each other"
  for pattern in optim.frozen:
    try:
      re.compile(pattern)
    except re.error as error:
      yield f"optim.frozen: {pattern!r} is no regex ({error})"

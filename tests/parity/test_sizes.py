"""Parameter counts of every published encoder that can be loaded.

Only shapes are computed; no array is made on either side.
"""

import json
import math

import jax
import pytest

from mner_jax import pretrained
from mner_jax.config import Config, replace
from mner_jax.models.bert import Bert
from mner_jax.models.resnet import ResNet
from mner_jax.models.vit import Vit

torch = pytest.importorskip("torch", reason="needs the extra [parity]")
transformers = pytest.importorskip(
  "transformers", reason="needs the extra [parity]"
)

BASE = {
  "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
  "intermediate_size": 3072,
}  # fmt: skip
LARGE = {
  "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
  "intermediate_size": 4096,
}  # fmt: skip
BERT = {
  "model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12,
  "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0,
}  # fmt: skip
ROBERTA = {
  "hidden_act": "gelu", "layer_norm_eps": 1e-5,
  "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1,
}  # fmt: skip
CLIP = {
  "model_type": "clip_vision_model", "hidden_act": "quick_gelu",
  "layer_norm_eps": 1e-5, "image_size": 224,
}  # fmt: skip
GOOGLE = {
  "model_type": "vit", "hidden_act": "gelu", "layer_norm_eps": 1e-12,
  "image_size": 224, "patch_size": 16, "qkv_bias": True,
}  # fmt: skip

# What each config.json says, and how many parameters transformers' model has.
TEXT = {
  "bert-base-multilingual-cased": (
    BERT | BASE | {"vocab_size": 119_547}, 177_853_440,
  ),
  "bert-base-uncased": (BERT | BASE | {"vocab_size": 30_522}, 109_482_240),
  "all-MiniLM-L6-v2": (
    BERT | {
      "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
      "intermediate_size": 1536, "vocab_size": 30_522,
    },
    22_713_216,
  ),
  "roberta-base": (
    ROBERTA | BASE | {"model_type": "roberta", "vocab_size": 50_265},
    124_645_632,
  ),
  "xlm-roberta-base": (
    ROBERTA | BASE | {"model_type": "xlm-roberta", "vocab_size": 250_002},
    278_043_648,
  ),
  "xlm-roberta-large": (
    ROBERTA | LARGE | {"model_type": "xlm-roberta", "vocab_size": 250_002},
    559_890_432,
  ),
}  # fmt: skip
VISION = {
  "clip-vit-base-patch32": (CLIP | BASE | {"patch_size": 32}, 87_456_000),
  "clip-vit-base-patch16": (CLIP | BASE | {"patch_size": 16}, 85_799_424),
  "clip-vit-large-patch14": (CLIP | LARGE | {"patch_size": 14}, 303_179_776),
  # timm's vit_base_patch16_224 and vit_large_patch16_224 without their heads.
  "vit-base-patch16-224": (GOOGLE | BASE, 86_567_656 - 769_000),
  "vit-large-patch16-224": (GOOGLE | LARGE, 304_326_632 - 1_025_000),
}
# As torchvision lists them, with the head of 1,000 classes.
RESNET_HEAD = 2048 * 1000 + 1000
RESNET = {
  "resnet50": ([3, 4, 6, 3], 25_557_032),
  "resnet101": ([3, 4, 23, 3], 44_549_160),
  "resnet152": ([3, 8, 36, 3], 60_192_808),
}


def resolved(folder, encoder, values):
  """The encoder's part of a Config whose weights are in such a folder."""
  (folder / "config.json").write_text(json.dumps(values))
  fields = {
    f"model.{encoder}.weights": str(folder),
    "model.fusion_heads": 4,  # divides the width of every text encoder
  }
  config = pretrained.resolve(replace(Config(), fields))
  return getattr(config.model, encoder)


def count_ours(module, *inputs):
  params = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def count_theirs(build, config, **options):
  with torch.device("meta"):
    model = build(config, **options)
  return sum(p.numel() for p in model.parameters())


def pictures(size):
  return jax.ShapeDtypeStruct((1, size, size, 3), "uint8")


@pytest.mark.parametrize("name", TEXT)
def test_text_encoders(tmp_path, name):
  values, published = TEXT[name]
  build, config = {
    "bert": (transformers.BertModel, transformers.BertConfig),
    "roberta": (transformers.RobertaModel, transformers.RobertaConfig),
    "xlm-roberta": (
      transformers.XLMRobertaModel,
      transformers.XLMRobertaConfig,
    ),
  }[values["model_type"]]
  assert count_theirs(build, config(**values)) == published
  unused = 0
  if "roberta" in name:
    # The positions up to the padding's, which no piece has: ours start behind.
    unused = (values["pad_token_id"] + 1) * values["hidden_size"]
  sizes = resolved(tmp_path, "text", values)
  ids = jax.ShapeDtypeStruct((1, 8), "int32")
  mask = jax.ShapeDtypeStruct((1, 8), "bool")
  assert count_ours(Bert(sizes), ids, mask) == published - unused


@pytest.mark.parametrize("name", VISION)
def test_vision_transformers(tmp_path, name):
  values, published = VISION[name]
  unused = 0
  if values["model_type"] == "vit":
    theirs = count_theirs(
      transformers.ViTModel,
      transformers.ViTConfig(**values),
      add_pooling_layer=False,
    )
  else:
    theirs = count_theirs(
      transformers.CLIPVisionModel, transformers.CLIPVisionConfig(**values)
    )
    # post_layernorm stands behind the last hidden state, which is what we use.
    unused = 2 * values["hidden_size"]
  assert theirs == published
  sizes = resolved(tmp_path, "vit", values)
  assert count_ours(Vit(sizes), pictures(224)) == published - unused


@pytest.mark.parametrize("name", [n for n in VISION if n.startswith("clip")])
def test_vision_model_within_a_clip_that_leaves_out_defaults(tmp_path, name):
  values, published = VISION[name]
  defaults = transformers.CLIPVisionConfig().to_dict()
  sparse = {k: v for k, v in values.items() if v != defaults[k]}
  sizes = resolved(
    tmp_path, "vit", {"model_type": "clip", "vision_config": sparse}
  )
  ours = count_ours(Vit(sizes), pictures(224))
  assert ours == published - 2 * values["hidden_size"]


@pytest.mark.parametrize("name", RESNET)
def test_resnets(tmp_path, name):
  depths, published = RESNET[name]
  theirs = count_theirs(
    transformers.ResNetModel,
    transformers.ResNetConfig(depths=depths, layer_type="bottleneck"),
  )
  assert theirs == published - RESNET_HEAD
  sizes = resolved(tmp_path, "resnet", {"architecture": name})
  assert count_ours(ResNet(sizes), pictures(224)) == theirs

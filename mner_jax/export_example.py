"""Runs an exported tagger: python tag.py "words with spaces" [picture].

Of the folder that this file is in; mner_jax is not needed. A sentence of more
pieces than the largest length is refused: mner_jax.predict cuts it into
windows.
"""

import json
import pathlib
import sys

import jax.export
import numpy as np
import tokenizers
from PIL import Image, ImageOps
from safetensors.numpy import load_file

FOLDER = pathlib.Path(__file__).parent


def text_arrays(words, lengths):
  """The arrays of one sentence, and the length of their program."""
  tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
  tokenizer.encode_special_tokens = True
  ids = [tokenizer.token_to_id(x) for x in ("[CLS]", "[SEP]", "[UNK]")]
  if None in ids:  # RoBERTa's names
    ids = [tokenizer.token_to_id(x) for x in ("<s>", "</s>", "<unk>")]
  cls, sep, unk = ids
  encoding = tokenizer.encode(
    words, is_pretokenized=True, add_special_tokens=False
  )
  of_word = [[] for _ in words]
  for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
    of_word[word].append(piece)
  pieces, first = [cls], []
  for found in of_word:
    first.append(len(pieces))
    pieces += found or [unk]
  pieces.append(sep)
  fitting = [n for n in lengths if n >= len(pieces)]
  if not fitting:
    sys.exit(f"{len(pieces)} pieces, above {lengths[-1]}")
  length = fitting[0]
  arrays = {
    "input_ids": np.zeros((1, length), np.int32),
    "num_pieces": np.array([len(pieces)], np.int32),
    "first_piece": np.ones((1, length), np.int32),
    "num_words": np.array([len(words)], np.int32),
  }
  arrays["input_ids"][0, : len(pieces)] = pieces
  arrays["first_piece"][0, : len(words)] = first
  return arrays, length


def shortest(image, size, resample):
  """The shortest side becomes `size`, the other one is rounded down."""
  width, height = image.size
  other = max(size, int(size * max(image.size) / min(image.size)))
  return image.resize(
    (size, other) if width <= height else (other, size), resample
  )


def centre(image, size):
  """The middle `size` x `size` pixels."""
  left, top = (image.width - size) // 2, (image.height - size) // 2
  return np.asarray(image.crop((left, top, left + size, top + size)))[None]


def image_arrays(path, vit, scene):
  """The arrays of one picture, or of none where `path` is None."""
  arrays = {}
  image = None
  if path is not None:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
  if vit:
    size = vit["size"]
    arrays["pixels"] = np.zeros((1, size, size, 3), np.uint8)
    if image and vit["style"] == "google":
      resized = image.resize((size, size), Image.Resampling.BILINEAR)
      arrays["pixels"] = np.asarray(resized)[None]
    elif image:
      resized = shortest(image, size, Image.Resampling.BICUBIC)
      arrays["pixels"] = centre(resized, size)
  if scene:
    size = scene["size"]
    arrays["scene_pixels"] = np.zeros((1, size, size, 3), np.uint8)
    if image:
      side = scene["shortest_side"]
      resized = shortest(image, side, Image.Resampling.BILINEAR)
      arrays["scene_pixels"] = centre(resized, size)
  if arrays:
    arrays["has_image"] = np.array([image is not None])
  return arrays


def main(sentence, picture=None):
  """Prints word, tag, and the score at the last word of an entity."""
  about = json.loads((FOLDER / "tagger.json").read_text())
  words = sentence.split()
  arrays, length = text_arrays(words, about["lengths"])
  batch = {**arrays, **image_arrays(picture, about["vit"], about["scene"])}
  program = (FOLDER / f"tagger_{length}.stablehlo").read_bytes()
  params = load_file(FOLDER / "params.safetensors")
  call = jax.export.deserialize(bytearray(program)).call
  tags, scores = call(params, batch)
  for word, tag, score in zip(words, tags[0], scores[0], strict=False):
    print(word, about["tags"][tag], f"{score:.4f}" if score else "", sep="\t")


if __name__ == "__main__":
  main(*sys.argv[1:])

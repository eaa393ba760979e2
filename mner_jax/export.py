"""Writes a trained tagger as StableHLO, to be run without this package.

  python -m mner_jax.export --workdir=DIR --output=DIR2

DIR2 then holds, of the checkpoint that is best on dev:

  tagger_T.stablehlo   one program for each length T of word pieces, for CPU,
                       CUDA and TPU and any number of sentences (jax.export)
  params.safetensors   its parameters, by path
  tokenizer.json       of the `tokenizers` library
  tagger.json          tags, lengths, and how pictures are brought to size
  tag.py               a stand-alone example that runs it: jax, numpy,
                       safetensors, tokenizers and pillow are all it imports

A program maps (params, batch) to (tags [B, T], scores [B, T]): an index into
the tags of each word, and at an entity's last word the CRF's probability of
the entity. The batch is that of `data.batches.Examples.rows`, without `tags`,
`weight`, `window` and `image_id`. Before the command ends, the programs are
read back and compared with the model itself.
"""

import importlib.util
import json
import pathlib
import sys

import jax
import jax.export
import numpy as np
from absl import flags
from etils import epath
from flax import traverse_util
from safetensors import numpy as safetensors

import mner_jax
from mner_jax import checkpoint, files, sharding
from mner_jax import config as config_lib
from mner_jax.cli import launch
from mner_jax.config import MeshConfig, UserError
from mner_jax.data import batches, images
from mner_jax.evaluation import evaluate as evaluation
from mner_jax.models import crf
from mner_jax.models.mner import MultimodalNER

PLATFORMS = ("cpu", "cuda", "tpu")
_UNUSED = ("tags", "weight", "window", "image_id")
_EXAMPLE = pathlib.Path(mner_jax.__file__).parent / "export_example.py"


def inputs(config, size, length):
  """The arrays that a program takes, in which no word counts."""
  batch = batches.empty(config, size, length)
  return {name: x for name, x in batch.items() if name not in _UNUSED}


def make_tag(config):
  """The function (flat params, batch) -> (tags, scores), see the module."""
  model = MultimodalNER(config)

  def tag(flat, batch):
    params = traverse_util.unflatten_dict(flat, sep="/")
    # No row is padding, and what is compared with others is not computed.
    rows = batch["num_words"].shape
    whole = {"weight": np.ones(1, np.float32), "image_id": np.zeros(1, int)}
    whole = {k: jax.numpy.broadcast_to(x, rows) for k, x in whole.items()}
    output = model.apply({"params": params}, {**whole, **batch})
    tags, _ = crf.viterbi(output.crf, output.emissions, batch["num_words"])
    scores = crf.entity_marginals(
      output.crf, output.emissions, tags, batch["num_words"]
    )
    return tags, scores

  return tag


def _program(config, flat, length):
  """The exported program of one length, as bytes."""
  (rows,) = jax.export.symbolic_shape("b")
  batch = {
    name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)
    for name, x in inputs(config, 1, length).items()
  }
  params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), flat)
  exported = jax.export.export(jax.jit(make_tag(config)), platforms=PLATFORMS)
  return exported(params, batch).serialize()


def _verify(config, flat, path, length):
  """Raises a UserError where the file does not say what the model says."""
  rng = np.random.default_rng(0)
  batch = inputs(config, 3, length)
  batch["num_pieces"][:] = length
  batch["num_words"][:] = length - 2
  batch["first_piece"][:, : length - 2] = np.arange(1, length - 1)
  batch["input_ids"] = rng.integers(
    0, config.model.text.vocab_size, batch["input_ids"].shape, np.int32
  )
  for name in ("pixels", "scene_pixels"):
    if name in batch:
      batch[name] = rng.integers(256, size=batch[name].shape, dtype=np.uint8)
      batch["has_image"][:2] = True
  program = jax.export.deserialize(bytearray(path.read_bytes()))
  found = jax.device_get(program.call(flat, batch))
  want = jax.device_get(jax.jit(make_tag(config))(flat, batch))
  same = np.array_equal(found[0], want[0])
  if not (same and np.allclose(found[1], want[1], atol=1e-5)):
    raise UserError(f"{path}: does not compute what the model does")


def export(workdir, output):
  """Writes the folder; a UserError if it has files already."""
  if importlib.util.find_spec("flatbuffers") is None:
    raise UserError(
      "jax.export needs flatbuffers: pip install 'mner_jax[export]'"
    )
  output = epath.Path(output)
  if output.exists() and (not output.is_dir() or any(output.iterdir())):
    raise UserError(f"--output: {output} is not an empty folder")
  workdir = epath.Path(workdir)
  config = config_lib.read_workdir(workdir)
  mesh = sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
  step, params = checkpoint.restore_best(
    workdir, evaluation.abstract_params(config, mesh)
  )
  flat = traverse_util.flatten_dict(jax.device_get(params), sep="/")
  model = config.model
  side = images.scene_side(model.resnet.image_size)
  about = {
    "tags": config.tags,
    "lengths": config.data.buckets,
    "checkpoint_step": step,
    "vit": {"size": model.vit.image_size, "style": model.vit.style}
    if model.vit.enabled
    else None,
    "scene": {"size": model.resnet.image_size, "shortest_side": side}
    if model.resnet.enabled
    else None,
  }
  try:
    output.mkdir(parents=True, exist_ok=True)
    (output / "params.safetensors").write_bytes(safetensors.save(flat))
    for length in config.data.buckets:
      path = output / f"tagger_{length}.stablehlo"
      path.write_bytes(_program(config, flat, length))
      _verify(config, flat, path, length)
      print(f"{path}: verified", file=sys.stderr)
    tokenizer = (workdir / "tokenizer" / "tokenizer.json").read_text()
    files.write(output / "tokenizer.json", tokenizer)
    files.write(output / "tag.py", _EXAMPLE.read_text())
    # Last: a folder without it is not whole.
    files.write(output / "tagger.json", json.dumps(about, indent=2) + "\n")
  except OSError as error:
    raise UserError(
      f"--output: {output}: cannot be written ({error.strerror or error})"
    ) from None
  return output


def define_flags():
  """Those of the command; importing this module defines none."""
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string(
    "output", None, "Folder to write, new or empty.", required=True
  )


def main():
  """Exports the run."""
  output = export(flags.FLAGS.workdir, flags.FLAGS.output)
  print(f"{output}: try it with python {output / 'tag.py'} 'A sentence .'")


if __name__ == "__main__":
  define_flags()
  launch(main)

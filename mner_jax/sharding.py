"""The device mesh, and where every array of the train state is on it.

Mesh axes: 'data' splits batches; 'fsdp' splits batches and parameters;
'tensor' splits parameters within a layer. One ordered table says how a
parameter is laid out; optimizer moments carry the parameter's path in theirs
and follow it.
"""

import functools
import json
import math
import re

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mner_jax.config import UserError

AXES = ("data", "fsdp", "tensor")
P = PartitionSpec

# (regex searched in the path, spec); the first that matches holds. Kernels
# are [in, out], stacked layers' [L, in, out]: a spec counts axes from the last.
# 'tensor' splits the heads and the hidden units, so that a block needs one sum
# over 'tensor' at its end (Megatron-LM, arXiv:1909.08053).
RULES = (
  # The vocabulary (119,547 pieces in mBERT) is odd: the width is split.
  (r"embeddings/embedding$", P(None, ("tensor", "fsdp"))),
  (r"(query|key|value|intermediate|hidden)/kernel$", P("fsdp", "tensor")),
  (r"output/kernel$", P("tensor", "fsdp")),
  # A BiLSTM's; its recurrent kernel has no rule: every step needs it whole.
  (r"(forward|backward)_\d+/input/kernel$", P("fsdp", "tensor")),
  (r"(pooler|join|scene_token|regions|gate\w*)/kernel$", P("fsdp", "tensor")),
  (r"patch_embedding/kernel$", P(None, None, None, ("tensor", "fsdp"))),
  (r"resnet/.*conv\d?/kernel$", P(None, None, None, ("tensor", "fsdp"))),
  # Biases, norms, the ViT's positions, the CRF, the emissions: small, whole.
  (r"", P()),
)
_LARGE = 1 << 20  # numbers; above this a parameter must not lie everywhere


def make_mesh(config, devices=None):
  """Returns the mesh of a MeshConfig over `devices` (default: all of them)."""
  devices = jax.devices() if devices is None else devices
  shape = [config.data, config.fsdp, config.tensor]
  known = math.prod(n for n in shape if n != -1)
  shape = [len(devices) // known if n == -1 else n for n in shape]
  if math.prod(shape) != len(devices):
    raise UserError(
      f"config: mesh {shape} does not fill the {len(devices)} devices"
    )
  types = (AxisType.Auto,) * len(AXES)
  # Neighbours in the mesh are neighbours in a TPU's torus.
  devices = create_device_mesh(shape, devices, allow_split_physical_axes=True)
  return Mesh(devices, AXES, axis_types=types)


def path_name(path):
  """Returns 'opt_state/0/mu/text/pooler/kernel', of a jax key path."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def shardings(tree, mesh):
  """Returns the NamedSharding of every array of a tree, by RULES.

  Raises a UserError that lists what the mesh does not divide, and what is
  large and has no rule.
  """
  problems = {}  # as an ordered set
  split = mesh.shape["fsdp"] * mesh.shape["tensor"] > 1

  def place(path, x):
    name = path_name(path)
    spec = next(spec for regex, spec in RULES if re.search(regex, name))
    if any(spec):
      spec = P(*[None] * (x.ndim - len(spec)), *spec)
    if split and not any(spec) and x.size > _LARGE:
      problems[f"no rule of sharding.RULES splits {name} {x.shape}"] = None
    for size, axes in zip(x.shape, spec, strict=False):
      axes = (axes,) if isinstance(axes, str) else axes or ()
      parts = math.prod(mesh.shape[axis] for axis in axes)
      if size % parts:
        problems[f"{parts} devices do not divide {name} {x.shape}"] = None
    return NamedSharding(mesh, spec)

  placed = jax.tree_util.tree_map_with_path(place, tree)
  if problems:
    raise UserError(
      f"config: mesh.fsdp, mesh.tensor: {'; '.join(list(problems)[:5])}"
    )
  return placed


def replicated(mesh):
  """Returns the sharding of an array that every device holds whole."""
  return NamedSharding(mesh, P())


def over_rows(mesh):
  """Returns the function that has each device compute a loss of its rows.

  It takes a function loss(*arrays, axis), with the mesh axes that split the
  rows of the arrays, and returns loss(*arrays), to be called in jit. The result
  is the same on all devices.
  """
  if mesh is None:
    return lambda loss: loss
  axes = ("data", "fsdp")

  def split(loss):
    own = functools.partial(loss, axis=axes)
    return jax.shard_map(own, mesh=mesh, in_specs=P(axes), out_specs=P())

  return split


def gather_fsdp(params, mesh):
  """In jit: the parameters as the model uses them, split over 'tensor' only.

  They are gathered before the step and given back after it (ZeRO,
  arXiv:1910.02054), so that only rows of the batch are split over 'fsdp'.
  Otherwise XLA shards activations like the parameters and communicates more.
  """
  if mesh is None or mesh.shape["fsdp"] == 1:
    return params

  def place(x, placed):
    # An entry of a spec is None, an axis, or several axes.
    axes = ("tensor" if "tensor" in (a or ()) else None for a in placed.spec)
    spec = P(*axes)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

  return jax.tree.map(place, params, shardings(params, mesh))


def batch_sharding(mesh):
  """Returns the sharding of a batch: rows over 'data' and 'fsdp'."""
  return NamedSharding(mesh, P(("data", "fsdp")))


def check_batch_size(batch_size, mesh):
  """Raises a UserError where rows cannot be shared out evenly."""
  parts = mesh.shape["data"] * mesh.shape["fsdp"]
  if batch_size % parts:
    raise UserError(
      f"config: train.batch_size {batch_size} is not a multiple of the"
      f" {parts} devices that share a batch"
    )


def own_rows(batch_size, mesh):
  """Returns which rows of a batch this process's devices hold, in order.

  Devices that differ in 'tensor' alone hold the same rows, in one process or
  in several; those of one process need not follow each other.
  """
  held = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
  rows = np.arange(batch_size)
  return np.unique([rows[part] for part in held.values()])


def put_batch(batch, batch_size, mesh):
  """The arrays of `own_rows` -> global arrays [batch_size, ...].

  Raises a ValueError where there are more rows or fewer.
  """
  # Without the shapes jax infers them from whatever rows it is given.
  shapes = {name: (batch_size, *x.shape[1:]) for name, x in batch.items()}
  return jax.make_array_from_process_local_data(
    batch_sharding(mesh), batch, shapes
  )


def from_all_processes(value):
  """Returns the list of each process's `value`, which JSON can hold.

  Collective, and therefore a barrier too.
  """
  if jax.process_count() == 1:
    return [value]
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(text.size))
  # In whole KiB: each width is a program to compile.
  width = -(-max(sizes) // 1024) * 1024
  texts = multihost_utils.process_allgather(np.resize(text, width))
  return [
    json.loads(row[:size].tobytes())
    for row, size in zip(texts, sizes, strict=True)
  ]

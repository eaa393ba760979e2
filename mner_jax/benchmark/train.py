"""The whole train step, on random batches of fixed sizes."""

import functools
import gc
import time

import jax
import jax.numpy as jnp
import numpy as np

from mner_jax import sharding
from mner_jax.benchmark import timing
from mner_jax.config import MeshConfig, replace
from mner_jax.data import batches
from mner_jax.training import step as stepping

# Layers unrolled: XLA counts the work of a loop's body once.
UNROLLED = {f"model.{name}.unroll": 0 for name in ("text", "vit", "resnet")}


def trace_step(config, mesh, batch_size, length):
  """Traces the train step from shapes alone.

  Args:
    config: the experiment, with its labels and sizes filled in.
    mesh: of this machine's devices, or of a topology to compile for.
    batch_size: B, over all devices.
    length: T, word pieces in a row.

  Returns:
    (a `jax.stages.Traced`, to be lowered and compiled; the jitted function
    key data -> initial state on the mesh).
  """
  config = replace(config, {"train.batch_size": batch_size})  # checks it
  sharding.check_batch_size(batch_size // config.train.accumulate, mesh)
  tx = stepping.make_optimizer(config.optim, 1000)
  init = stepping.make_init(config, tx)
  state = jax.eval_shape(init, jax.random.key_data(jax.random.key(0)))
  state_sharding = sharding.shardings(state, mesh)
  batch = {
    name: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype)
    for name, x in batches.empty(config, 1, length).items()
  }
  step = stepping.jit_train_step(config, tx, mesh, state_sharding)
  return step.trace(state, batch), jax.jit(init, out_shardings=state_sharding)


def compile_step(config, mesh, batch_size, length):
  """Traces, lowers and compiles the train step, and measures each.

  Arguments as of `trace_step`.

  Returns:
    (compiled step, function that makes the initial state, {"trace_seconds",
    "lower_seconds", "compile_seconds", "stablehlo_lines"}). Tracing includes
    the shapes of the state.
  """
  times = [time.perf_counter()]
  traced, init = trace_step(config, mesh, batch_size, length)
  times.append(time.perf_counter())
  lowered = traced.lower()
  times.append(time.perf_counter())
  compiled = lowered.compile()
  times.append(time.perf_counter())
  names = "trace_seconds", "lower_seconds", "compile_seconds"
  row = dict(zip(names, np.diff(times).tolist(), strict=True))
  row["stablehlo_lines"] = lowered.as_text().count("\n")
  return compiled, init, row


def compile_rows(config, sizes):
  """Yields the rows of `--suite=compile`: those of `compile_step` per size."""
  mesh = sharding.make_mesh(config.mesh)
  for size, length in sizes:
    compiled, _, row = compile_step(config, mesh, size, length)
    memory = compiled.memory_analysis()
    row |= {"batch": size, "length": length}
    row["temporaries_gb"] = memory.temp_size_in_bytes / 1e9
    yield row


def random_batch(config, size, length):
  """A batch of random numbers in which every row counts and is full of words.

  Each piece but [CLS] and [SEP] begins a word.
  """
  rng, shape = np.random.default_rng(0), (size, length)
  values = {
    "input_ids": rng.integers(config.model.text.vocab_size, size=shape),
    "num_pieces": length,
    "first_piece": np.arange(length) % (length - 2) + 1,
    "tags": rng.integers(len(config.tags), size=shape),
    "num_words": length - 2,
    "weight": 1,
    "image_id": np.arange(size),
    "has_image": True,
  }
  batch = batches.empty(config, size, length)
  for name, x in batch.items():
    if name in values:
      x[:] = values[name]
    elif name.endswith("pixels"):
      x[:] = rng.integers(256, size=x.shape, dtype=np.uint8)
  return batch


def matmul_peak(dtype):
  """Measured FLOP/s of a large matrix product."""
  n = 2048 if jax.default_backend() == "cpu" else 8192
  # Products of it neither grow nor vanish.
  x = y = jax.random.normal(jax.random.key(0), (n, n), dtype) / n**0.5
  product = jax.jit(jnp.matmul)

  def multiply():
    nonlocal y
    y = product(x, y)
    return y[0, 0]

  times = timing.interleave({"matmul": multiply}, repeats=3)
  return 2 * n**3 / np.median(times["matmul"])


def run(config, sizes, *, repeats, pytorch=None):
  """Measures the step at every size.

  Args:
    config: the experiment, with its labels and sizes filled in.
    sizes: (sentences over all devices, word pieces) of each.
    repeats: rounds.
    pytorch: the module tests/parity/speed.py, to run its step in turns with
      ours.

  Yields:
    Rows {"variant", "batch", "length", "ms", "spread_ms",
    "examples_per_second", "tflops", "share_of_peak", "gigabytes",
    "start_seconds"}; `share_of_peak` is relative to `matmul_peak` of all
    devices in the row's precision, `start_seconds` are those of tracing, lowering and
    compiling. A variant that needs too much memory has "failed" instead. Beside
    PyTorch, one device is measured.
  """
  peaks = {dtype: matmul_peak(dtype) for dtype in ("float32", "bfloat16")}
  for size in sizes:
    batch = random_batch(config, *size)
    yield from _measure(config, batch, repeats, pytorch, peaks)
    gc.collect()  # the models of this size, before those of the next


def _measure(config, batch, repeats, pytorch, peaks):
  """Returns the rows of one size."""
  size, length = batch["input_ids"].shape
  # For other devices than CPUs, XLA does not count before it has compiled.
  cpu = sharding.make_mesh(MeshConfig(), jax.devices("cpu")[:1])
  mesh = sharding.make_mesh(config.mesh)
  if pytorch:  # whose step is of one device
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
  traced, _ = trace_step(replace(config, UNROLLED), cpu, size, length)
  flops = traced.lower().cost_analysis()["flops"]
  cost = {}

  def ours():
    start = time.perf_counter()
    step, init, _ = compile_step(config, mesh, size, length)
    cost["start_seconds"] = time.perf_counter() - start
    memory = step.memory_analysis()
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    cost["gigabytes"] = used / 1e9
    state = init(jax.random.key_data(jax.random.key(config.seed)))
    placed = sharding.put_batch(batch, size, mesh)

    def update():
      nonlocal state
      state, metrics = step(state, placed)
      return metrics["loss"]

    return update

  # (name, dtype, function that makes a step)
  variants = [(f"mner_jax {config.dtype}", config.dtype, ours)]
  if pytorch:
    make = functools.partial(pytorch.train_step, config, batch)
    eager, fast = (functools.partial(make, fast=x) for x in (False, True))
    variants.append(("torch eager fp32", "float32", eager))
    if jax.default_backend() == "gpu":
      variants.append(("torch compile bf16", "bfloat16", fast))
  steps, rows = {}, []
  for name, _, make_step in variants:
    row = {"variant": name, "batch": size, "length": length}
    rows.append(row)
    with timing.within_memory(row, failed="out of memory"):
      step = make_step()
      float(step())
      steps[name] = step
  times = timing.interleave(steps, repeats=repeats)
  for row, (name, dtype, _) in zip(rows, variants, strict=True):
    if name in times:
      row |= timing.milliseconds(times[name])
      seconds = row["ms"] / 1e3
      rate = flops / seconds
      row["examples_per_second"] = size / seconds
      row["tflops"] = rate / 1e12
      row["share_of_peak"] = rate / (peaks[dtype] * mesh.size)
  rows[0].update(cost)
  return rows

"""The whole train step, on random batches of fixed sizes."""

import dataclasses
import functools
import gc
import time

import jax
import jax.numpy as jnp
import numpy as np

from mner_jax import sharding
from mner_jax.benchmark import timing
from mner_jax.config import UserError
from mner_jax.data import batches
from mner_jax.training import step as stepping


def random_batch(config, size, length, seed=0):
  """A batch of random numbers in which every row and every piece counts."""
  rng = np.random.default_rng(seed)
  batch = batches.empty(config, size, length)
  words = length - 2
  batch["weight"][:] = 1
  batch["num_pieces"][:] = length
  batch["num_words"][:] = words
  batch["first_piece"][:, :words] = np.arange(1, words + 1)
  batch["input_ids"] = rng.integers(
    5, config.model.text.vocab_size, (size, length)
  ).astype(np.int32)
  batch["tags"] = rng.integers(len(config.tags), size=(size, length))
  batch["tags"] = batch["tags"].astype(np.int32)
  for name in ("pixels", "scene_pixels"):
    if name in batch:
      batch[name] = rng.integers(256, size=batch[name].shape, dtype=np.uint8)
  if config.model.multimodal:
    batch["has_image"][:] = True
    batch["image_id"] = np.arange(size, dtype=np.int32)
  return batch


def matmul_peak():
  """Measured FLOP/s of one large matrix product: (bf16 or None, fp32)."""
  accelerator = jax.default_backend() != "cpu"
  n, count = (8192, 10) if accelerator else (2048, 2)

  def measure(dtype):
    x = jax.random.normal(jax.random.key(0), (n, n), dtype)
    product = jax.jit(jnp.matmul)
    y = product(x, x).block_until_ready()

    def run():
      z = y
      for _ in range(count):
        z = product(x, z)
      z.block_until_ready()

    seconds, _ = timing.interleave({"matmul": run}, repeats=5, steps=count)[
      "matmul"
    ]
    return 2 * n**3 / seconds

  return (measure(jnp.bfloat16) if accelerator else None), measure(jnp.float32)


class Step:
  """A compiled train step with its state, as `training.train` runs it."""

  def __init__(self, config, batch):
    mesh = sharding.make_mesh(config.mesh)
    tx = stepping.make_optimizer(config.optim, 1000)
    init = stepping.make_init(config, tx)
    key = jax.random.key_data(jax.random.key(config.seed))
    placed = sharding.shardings(jax.eval_shape(init, key), mesh)
    self._state = jax.jit(init, out_shardings=placed)(key)
    self._batch = sharding.put_batch(batch, mesh)
    step = jax.jit(
      stepping.make_train_step(config, tx, mesh),
      in_shardings=(placed, sharding.batch_sharding(mesh)),
      out_shardings=(placed, sharding.replicated(mesh)),
      donate_argnums=0,
    )
    lowered = step.lower(self._state, self._batch)
    self.flops = lowered.cost_analysis()["flops"]
    start = time.perf_counter()
    self._step = lowered.compile()
    self.compile_seconds = time.perf_counter() - start
    memory = self._step.memory_analysis()
    self.bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes

  def run(self, steps):
    """Runs that many updates and waits for the last."""
    for _ in range(steps):
      self._state, metrics = self._step(self._state, self._batch)
    return float(metrics["loss"])


class TorchStep:
  """The same step of the PyTorch reference in `tests/parity`."""

  def __init__(self, config, batch, *, fast):
    try:
      import torch

      from tests.parity import reference
    except ImportError as error:
      raise UserError(
        f"--compare=torch: {error}; it needs the extra [parity], and a checkout"
        " as the working directory"
      ) from None
    self._torch = torch
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    parts = reference.encoders(config, attention="sdpa")
    model = reference.Reference(config, *parts).to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    self._optimizer = torch.optim.Adam(
      trained, lr=config.optim.learning_rate, fused=fast or None
    )
    self._model = torch.compile(model) if fast else model
    self._batch = reference.tensors(batch, device)
    self._cast = functools.partial(
      torch.autocast, device, torch.bfloat16, enabled=fast
    )

  def run(self, steps):
    """Runs that many updates and waits for the last."""
    for _ in range(steps):
      self._optimizer.zero_grad(set_to_none=True)
      with self._cast():
        _, losses = self._model(self._batch)
      losses["loss"].backward()
      self._optimizer.step()
    return losses["loss"].item()


def run(config, *, batch_sizes, lengths, compare, repeats):
  """Measures the step at every batch size and length.

  Returns:
    A list of rows {"variant", "batch", "length", "tags", "ms", "spread_ms",
    "examples_per_second", "tflops", "share_of_peak", "gigabytes",
    "compile_seconds"}; `share_of_peak` is of the largest matmul rate that was
    measured in the row's precision.
  """
  bf16_peak, fp32_peak = matmul_peak()
  peaks = {"bfloat16": bf16_peak or fp32_peak, "float32": fp32_peak}
  rows = []
  for size in batch_sizes:
    for length in lengths:
      batch = random_batch(config, size, length)
      rows += _measure(config, batch, compare, repeats, peaks)
      gc.collect()
  return rows


def _measure(config, batch, compare, repeats, peaks):
  size, length = batch["input_ids"].shape
  name = f"mner_jax {config.dtype}"
  makers = {name: functools.partial(Step, config, batch)}
  if compare == "torch":
    fp32 = dataclasses.replace(config, dtype="float32")
    makers["torch eager fp32"] = functools.partial(
      TorchStep, fp32, batch, fast=False
    )
    if jax.default_backend() == "gpu":
      makers["torch compile bf16"] = functools.partial(
        TorchStep, fp32, batch, fast=True
      )
  steps, failed = {}, {}
  for variant, make in makers.items():
    try:
      steps[variant] = make()
      steps[variant].run(2)
    except RuntimeError as error:  # XLA's and PyTorch's: out of memory
      if "memory" not in str(error).lower():
        raise
      steps.pop(variant, None)
      failed[variant] = "out of memory"
  # About half a second a round for the slowest.
  start = time.perf_counter()
  for step in steps.values():
    step.run(1)
  slowest = (time.perf_counter() - start) / max(1, len(steps))
  count = int(max(1, min(20, 0.5 / slowest)))
  times = timing.interleave(
    {v: functools.partial(s.run, count) for v, s in steps.items()},
    repeats=repeats, steps=count,
  )  # fmt: skip
  flops = steps[name].flops if name in steps else None
  rows = []
  for variant in makers:
    row = {"variant": variant, "batch": size, "length": length}
    row["tags"] = len(config.tags)
    if variant in failed:
      rows.append(row | {"failed": failed[variant]})
      continue
    seconds, spread = times[variant]
    row |= {
      "ms": 1e3 * seconds,
      "spread_ms": 1e3 * spread,
      "examples_per_second": size / seconds,
    }
    if flops:
      bf16 = "bf16" in variant or "bfloat16" in variant
      peak = peaks["bfloat16" if bf16 else "float32"]
      row["tflops"] = flops / seconds / 1e12
      row["share_of_peak"] = flops / seconds / peak
    if variant == name:
      row["gigabytes"] = steps[variant].bytes / 1e9
      row["compile_seconds"] = steps[variant].compile_seconds
    rows.append(row)
  return rows

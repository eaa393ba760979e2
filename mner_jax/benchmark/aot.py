"""The train step, compiled for a TPU slice on a machine without one.

Memory, arithmetic, bytes and collectives of one device are what the TPU's own
compiler reports. Times are an ESTIMATE by a roofline:

  max(flops / peak, accessed / HBM bandwidth) + sent / link bandwidth

`accessed` is the compiler's "bytes accessed", an upper bound. `sent` is what a
device in a ring of n sends: 2 (n - 1) / n of what is all-reduced, (n - 1) / n
of what is gathered or scattered. Nothing overlaps and nothing waits. XLA counts
the work of a loop's body once, so the estimate is made from the program with its
layers unrolled; memory is that of the config's own program. A step fits if its
arguments, temporaries and results take less than the HBM.
"""

import collections
import math
import re
from typing import NamedTuple

from jax.experimental import topologies

from mner_jax import sharding
from mner_jax.benchmark import timing, train
from mner_jax.config import UserError, replace


class Chip(NamedTuple):
  """Public figures of Cloud TPU's documentation, per chip and second."""

  flops: float  # in bf16
  hbm_rate: float  # bytes
  link_rate: float  # bytes
  hbm: float  # bytes


CHIPS = {
  "v5e": Chip(flops=197e12, hbm_rate=819e9, link_rate=200e9, hbm=16e9),
  "v5p": Chip(flops=459e12, hbm_rate=2765e9, link_rate=600e9, hbm=95e9),
}

_COLLECTIVE = re.compile(
  r"= (\(?[a-z][^=]*?) (all-reduce|all-gather|reduce-scatter|all-to-all"
  r"|collective-permute)(-start)?\("
)


def collectives(text):
  """[(kind, bytes that a device sends, line)] of a compiled program's text."""
  found, entry = {}, False
  for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
    if line.endswith("{"):  # a computation begins
      entry = line.startswith("ENTRY")
    if not (match := _COLLECTIVE.search(line)):
      continue
    shape, kind, start = match.groups()
    arrays = re.findall(r"(pred|[subf]\d+|bf16)\[([\d,]*)\]", shape)
    sizes = [_num_bytes(*array) for array in arrays]
    # An asynchronous start returns its operand and its result.
    is_pair = start and kind != "all-reduce"
    size = max(sizes) if is_pair else sum(sizes)
    n = _group_size(line)
    sent = {
      "all-reduce": 2 * (n - 1) / n * size,
      "reduce-scatter": (n - 1) * size,  # the result is one part of n
      "collective-permute": size,
    }.get(kind, (n - 1) / n * size)
    # The stages of an asynchronous collective, each in a computation of its
    # own, share its channel; all collectives of a `shard_map` have channel 1.
    channel = re.search(r"channel_id=\d+", line)
    key = line if entry or not channel else (channel[0], kind, shape)
    found.setdefault(key, (kind, sent, line))
  return list(found.values())


def _num_bytes(dtype, dims):
  width = max(8, int(re.sub(r"\D", "", dtype) or 8)) // 8
  return width * math.prod(int(n) for n in dims.split(",") if n)


def _group_size(line):
  """The number of devices that exchange, from any of XLA's three notations."""
  groups = line.partition("replica_groups=")[2]
  if mesh := re.match(r"mesh\[(.*?)\].*?\{(.*?)\}", groups):
    sizes = dict(re.findall(r"('\w+')=(\d+)", mesh[1]))
    return math.prod(int(sizes[axis]) for axis in mesh[2].split(","))
  if table := re.match(r"\[\d+,(\d+)\]", groups):
    return int(table[1])
  return len(re.match(r"(?:\{\{)?([\d,]*)", groups)[1].split(","))


def memory(compiled, chip):
  """Returns a row's fields: the memory that a step needs of one device."""
  sizes = compiled.memory_analysis()
  arguments = sizes.argument_size_in_bytes
  # Donated arguments and results share their memory.
  results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  total = arguments + sizes.temp_size_in_bytes + results
  return {
    "arguments_gb": arguments / 1e9,
    "total_gb": total / 1e9,
    "fits": total < chip.hbm,
  }


def work(compiled, chip, batch_size):
  """Returns a row's fields: the work of one device in a step without loops."""
  cost = compiled.cost_analysis()
  flops, accessed = cost["flops"], cost["bytes accessed"]
  kinds = collections.defaultdict(list)
  for kind, num_bytes, _ in collectives(compiled.as_text()):
    kinds[kind].append(num_bytes)
  sent = sum(map(sum, kinds.values()))
  summary = [
    f"{len(x)} {kind} {sum(x) / 1e6:,.1f} MB" for kind, x in kinds.items()
  ]
  compute = max(flops / chip.flops, accessed / chip.hbm_rate)
  seconds = compute + sent / chip.link_rate
  return {
    "tflop": flops / 1e12,
    "accessed_gb": accessed / 1e9,
    "sent_gb": sent / 1e9,
    "estimated_ms": 1e3 * seconds,
    "estimated_examples_per_second": batch_size / seconds,
    "collectives": ", ".join(summary),
  }


def run(config, topology, sizes):
  """Compiles the step for a slice at every size.

  Args:
    config: the experiment; its mesh is that of the slice.
    topology: of jax.experimental.topologies, such as "v5e:4x4".
    sizes: (sentences per device, word pieces) of each.

  Yields:
    A row per size: the work and memory of one device, and its collectives.
  """
  chip = CHIPS.get(topology.partition(":")[0])
  if not chip:
    raise UserError(
      f"--compile_for={topology}: the chip must be one of {', '.join(CHIPS)},"
      " as in v5e:4x4"
    )
  try:
    description = topologies.get_topology_desc(topology, "tpu")
  except Exception as error:  # from the TPU library, or where it is missing
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    needs = "it needs the extra [tpu]"
    raise UserError(f"--compile_for={topology}: {reason}; {needs}") from None
  print(__doc__, chip, sep="\n")
  mesh = sharding.make_mesh(config.mesh, description.devices)
  unrolled = replace(config, train.UNROLLED)
  for size, length in sizes:
    row = {"topology": topology, "chips": mesh.size, "batch": size}
    row["length"] = length
    batch_size = size * mesh.shape["data"] * mesh.shape["fsdp"]
    shape = mesh, batch_size, length
    with timing.within_memory(row, fits=False):
      compiled, _, cost = train.compile_step(config, *shape)
      row |= memory(compiled, chip) | cost
    # Unrolled, a step that fits may need too much memory.
    if row["fits"]:
      with timing.within_memory(row, estimated_ms="out of memory"):
        compiled, _, cost = train.compile_step(unrolled, *shape)
        row["unrolled_compile_seconds"] = cost["compile_seconds"]
        row |= work(compiled, chip, batch_size)
    yield row

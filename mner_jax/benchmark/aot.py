"""The train step, compiled for a TPU slice on a machine without one.

What the TPU's own compiler says of the program: memory, arithmetic, bytes and
collectives of one device. Times are an ESTIMATE by a roofline, see `FORMULA`.
"""

import collections
import math
import re
import sys
import time

import jax
from jax.experimental import topologies

from mner_jax import sharding
from mner_jax.config import UserError
from mner_jax.data import batches
from mner_jax.training import step as stepping

# Of one chip: bf16 FLOP/s, HBM bytes/s, HBM bytes, link bytes/s (public
# figures of Cloud TPU's documentation).
CHIPS = {
  "v5e": (197e12, 819e9, 16e9, 200e9),
  "v5p": (459e12, 2765e9, 95e9, 600e9),
}

FORMULA = """\
estimate = max(flops / {} TFLOP/s, bytes / {} GB/s) + sent / {} GB/s, with bytes
the compiler's "bytes accessed", an upper bound, and sent the bytes that a device of a ring of n sends: 2 (n - 1) / n of what is
all-reduced, (n - 1) / n of what is gathered or scattered; nothing overlaps and
nothing waits. It fits if arguments, temporaries and results take less than
{} GB."""

_COLLECTIVE = re.compile(
  r"= (?P<shape>\(?[a-z][^=]*?) (?P<kind>all-reduce|all-gather|reduce-scatter"
  r"|all-to-all|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"(pred|[subf]\d+|bf16)\[([\d,]*)\]")
# How many devices exchange, in the three ways that XLA writes it.
_GROUPS = (
  re.compile(r"replica_groups=mesh\[(?P<axes>[^]]*)\] \{(?P<used>[^}]*)\}"),
  re.compile(r"replica_groups=\[\d+,(?P<size>\d+)\]"),
  re.compile(r"replica_groups=\{\{(?P<list>[\d,]*)\}"),
)


def compile_step(config, mesh, batch_size, length):
  """The compiled train step of a global batch, from shapes alone."""
  tx = stepping.make_optimizer(config.optim, 1000)
  init = stepping.make_init(config, tx)
  key = jax.ShapeDtypeStruct((2,), "uint32")
  state = jax.eval_shape(init, key)
  placed = sharding.shardings(state, mesh)
  rows = sharding.batch_sharding(mesh)
  sharding.check_batch_size(batch_size, mesh)
  batch = {
    name: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype)
    for name, x in batches.empty(config, 1, length).items()
  }
  step = jax.jit(
    stepping.make_train_step(config, tx, mesh),
    in_shardings=(placed, rows),
    out_shardings=(placed, sharding.replicated(mesh)),
    donate_argnums=0,
  )
  return step.lower(state, batch).compile()


def collectives(text):
  """[(kind, bytes sent by a device, array types, op name)] of compiled HLO."""
  found, channels = [], set()
  for line in text.splitlines():
    line = re.sub(r"/\*.*?\*/", "", line)
    match = _COLLECTIVE.search(line)
    if not match:
      continue
    # One in the background stands in the text at each step of its way.
    if channel := re.search(r"channel_id=(\d+)", line):
      if channel[1] in channels:
        continue
      channels.add(channel[1])
    arrays = _ARRAY.findall(match["shape"])
    sizes = [
      math.prod(map(int, dims.split(","))) * _width(kind) if dims else
      _width(kind)
      for kind, dims in arrays
    ]  # fmt: skip
    # An asynchronous start names its operand and its result.
    is_start = f"{match['kind']}-start(" in line
    size = max(sizes) if is_start and match["kind"] != "all-reduce" else None
    size = sum(sizes) if size is None else size
    n = _group_size(line)
    factor = {
      "all-reduce": 2 * (n - 1) / n,
      "reduce-scatter": n - 1,  # of the result, a part of the whole
      "collective-permute": 1,
    }.get(match["kind"], (n - 1) / n)
    name = re.search(r'op_name="([^"]*)"', line)
    types = ",".join(f"{kind}[{dims}]" for kind, dims in arrays[:3])
    found.append((match["kind"], factor * size, types, name[1] if name else ""))
  return found


def _group_size(line):
  mesh, table, listed = (regex.search(line) for regex in _GROUPS)
  if mesh:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh["axes"]))
    return math.prod(
      int(sizes[n]) for n in re.findall(r"'(\w+)'", mesh["used"])
    )
  if table:
    return int(table["size"])
  if listed:
    return len(listed["list"].split(","))
  return 2  # a permutation: sends what it has


def _width(kind):
  return max(1, int(re.sub(r"\D", "", kind) or 8) // 8)


def run(config, topology, *, batch_sizes, lengths):
  """Compiles the step for a slice at every size; sizes are per device.

  Args:
    config: the experiment; its mesh says how the slice is used.
    topology: of jax.experimental.topologies, such as "v5e:4x4".
    batch_sizes: sentences per device.
    lengths: word pieces.

  Returns:
    Rows of what one device has to do, and a summary of its collectives.
  """
  chip = topology.partition(":")[0]
  if chip not in CHIPS:
    raise UserError(
      f"--compile_for: {topology!r}: known chips are {', '.join(CHIPS)}, for"
      " example v5e:4x4"
    )
  peak, hbm_rate, hbm, link = CHIPS[chip]
  try:
    description = topologies.get_topology_desc(
      platform="tpu", topology_name=topology
    )
  except Exception as error:  # of the TPU library, or where it is missing
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(
      f"--compile_for: {topology!r}: {reason}; it needs the extra [tpu]"
    ) from None
  units = peak / 1e12, hbm_rate / 1e9, link / 1e9, hbm / 1e9
  print(FORMULA.format(*(f"{x:,.0f}" for x in units)))
  mesh = sharding.make_mesh(config.mesh, description.devices)
  rows = []
  for size in batch_sizes:
    for length in lengths:
      start = time.perf_counter()
      row = {"topology": topology, "chips": mesh.size, "batch": size}
      row["length"] = length
      share = mesh.shape["data"] * mesh.shape["fsdp"]
      try:
        compiled = compile_step(config, mesh, size * share, length)
      except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
          raise
        rows.append(row | {"fits": False})
        continue
      memory = compiled.memory_analysis()
      cost = compiled.cost_analysis()
      text = compiled.as_text()
      sent = collectives(text)
      arguments = memory.argument_size_in_bytes
      # Donated arguments and results share their memory.
      total = (
        arguments
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
      )
      moved = cost["bytes accessed"]
      compute = max(cost["flops"] / peak, moved / hbm_rate)
      network = sum(size for _, size, _, _ in sent) / link
      kinds = collections.defaultdict(list)
      for kind, sent_bytes, _, _ in sent:
        kinds[kind].append(sent_bytes)
      row |= {
        "arguments_gb": arguments / 1e9,
        "temporaries_gb": memory.temp_size_in_bytes / 1e9,
        "total_gb": total / 1e9,
        "fits": total < hbm,
        "tflop": cost["flops"] / 1e12,
        "accessed_gb": moved / 1e9,
        "sent_gb": sum(size for _, size, _, _ in sent) / 1e9,
        "estimated_ms": 1e3 * (compute + network),
        "estimated_examples_per_second": size * share / (compute + network),
        "collectives": ", ".join(
          f"{len(x)} {kind} {sum(x) / 1e6:,.1f} MB" for kind, x in kinds.items()
        ),
        "compile_seconds": time.perf_counter() - start,
      }
      rows.append(row)
      said = f"{topology}, {size} x {length}: {row['compile_seconds']:.0f} s"
      print(said, file=sys.stderr, flush=True)
  return rows

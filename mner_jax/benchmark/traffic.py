"""The bytes that a compiled program moves, read from its HLO text.

A TPU keeps much of what it computes in VMEM, and the compiler brings the rest
there ahead of its use. XLA's own count, "bytes accessed", adds up operands and
results whatever memory they are in, and such a copy six times: the source, the
target and the source again, when it starts and when it ends. Here each operand
and each result counts once, with the padding of its tiles, where it is in HBM.
"""

import collections
import math
import re

_WIDTH = {
  "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2,
  "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_LINE = re.compile(r"\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][\w\-]*)\((.*)")
# They move nothing, or what was counted at their start.
_FREE = {
  "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while",
  "call", "after-all", "partition-id", "replica-id",
}  # fmt: skip
_EXCHANGES = {"all-gather", "all-reduce", "reduce-scatter", "all-to-all"}
_HANDED_ON = re.compile(r"\{(\d*)\}: \((\d+), \{\}")
# They read of their first operand what they return.
_SLICES = {"slice", "dynamic-slice"}


def _bytes(kind, dims, order, layout):
  """Of one array in HBM, with its padding; 0 where it is elsewhere."""
  space = re.search(r"S\((\d+)\)", layout)
  if kind not in _WIDTH or (space and space[1] != "0"):
    return 0
  shape = [int(n) for n in dims.split(",") if n]
  tile = re.search(r"T\(([\d,]+)\)", layout)
  if tile and shape:
    minor = [int(d) for d in order.split(",")]
    for d, n in zip(minor, reversed(tile[1].split(",")), strict=False):
      shape[d] = math.ceil(shape[d] / int(n)) * int(n)
  return _WIDTH[kind] * math.prod(shape)


def _arrays(text):
  return [_bytes(*match) for match in _ARRAY.findall(text)]


def hbm_bytes(text, trips):
  """Bytes to and from HBM of one run of a compiled module.

  Args:
    text: `compiled.as_text()`.
    trips: how often each loop goes round, as the text may not say it.

  Returns:
    {kind of operation: bytes}; of an array that is read in slices these, of an
    embedding table that is only looked up the whole, so that the sum errs on
    the high side.
  """
  computations, entry = _split(text)
  total = collections.Counter()

  def visit(name, times):
    sizes = {}
    for result, types, kind, rest in computations[name]:
      sizes[result] = sum(_arrays(types))
      for inner in re.findall(r"(?:body|to_apply)=%([^\s,)]+)", rest):
        if kind in ("while", "call"):
          visit(inner, times * (trips if kind == "while" else 1))
      if kind in _FREE or kind.endswith("-done"):
        continue
      if kind in ("copy-start", "slice-start"):
        total[kind] += times * _copied(kind, types)
        continue
      # What follows the operands refers to computations, not to arrays.
      operands = re.findall(r"%([^\s,()]+)", rest.partition("), ")[0])
      read = [sizes.get(name, 0) for name in operands]
      if kind in _SLICES:
        read[0] = min(read[0], sizes[result])
      if called := re.search(r"calls=%([^\s,)]+)", rest):
        parts = _sliced(computations, called[1])
        read = [min(x, parts.get(i, x)) for i, x in enumerate(read)]
        written = _arrays(types)
        if any(x[2] in _EXCHANGES for x in computations[called[1]]):
          # A step of an exchange in the background hands on its buffers.
          for target, source in _HANDED_ON.findall(rest):
            written[int(target or 0)] = read[int(source)] = 0
        total[kind] += times * (sum(written) + sum(read))
        continue
      total[kind] += times * (sizes[result] + sum(read))

  visit(entry, 1)
  return total


def _sliced(computations, name):
  """{number of a parameter: bytes} of those that are read in slices only."""
  parameters = {}
  used = collections.defaultdict(list)  # None: the whole
  for result, types, kind, rest in computations[name]:
    if kind == "parameter":
      parameters[result] = int(rest.partition(")")[0])
    inner = re.search(r"calls=%([^\s,)]+)", rest)
    inner = _sliced(computations, inner[1]) if inner else {}
    operands = re.findall(r"%([^\s,()]+)", rest.partition("), ")[0])
    for i, operand in enumerate(operands):
      part = inner.get(i)
      if kind in _SLICES and i == 0:
        part = sum(_arrays(types))
      used[operand].append(part)
  return {
    number: sum(used[name])
    for name, number in parameters.items()
    if used[name] and None not in used[name]
  }


def _copied(kind, types):
  """Read and written by a copy: (target, source, ...) or ((source), part)."""
  found = _ARRAY.findall(types)
  target, source = found[:2] if kind == "copy-start" else found[1::-1]
  # Of the source as much as there is in the target.
  part = _bytes(*target[:2], *source[2:])
  return _bytes(*target) + part


def _split(text):
  """({name: [(result, types, kind, rest)]}, name of the entry)."""
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    line = re.sub(r"/\*.*?\*/", "", line)
    if header := re.match(r"(ENTRY )?%(\S+) \(.*\{$", line):
      current = computations[header[2]] = []
      entry = header[2] if header[1] else entry
    elif current is not None and (match := _LINE.match(line)):
      current.append(match.groups())
  return computations, entry

"""The benchmark's suites at toy sizes, and what it reads of a program."""

import json
import runpy
import sys

import pytest

from mner_jax.benchmark import aot, crf, input
from tests.conftest import LONG


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
  """Returns a function (*arguments) -> rows of `python -m mner_jax.benchmark`."""
  monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
  output = tmp_path / "rows.json"

  def run(*arguments):
    monkeypatch.setattr(sys, "argv", ["", *arguments, f"--output={output}"])
    runpy.run_module("mner_jax.benchmark", run_name="__main__")
    return json.loads(output.read_text())["rows"]

  return run


SMALL = (
  "--config=mner_jax/configs/synthetic_text.py",
  "--config.model.text.hidden_size=16",
  "--batch_sizes=8",
)


@pytest.mark.parametrize("lengths", [[16], LONG([16, 24])])
def test_train_writes_a_row_for_each_size(benchmark, capsys, lengths):
  layers = "--config.model.text.num_layers=1"
  flag = "--lengths=" + ",".join(map(str, lengths))
  rows = benchmark(*SMALL, layers, "--repeats=1", flag)
  assert [row["length"] for row in rows] == lengths
  for row in rows:
    for name in ("ms", "examples_per_second", "share_of_peak", "gigabytes"):
      assert row[name] > 0, name
  header, *lines = capsys.readouterr().out.splitlines()[1:]
  assert header.split() == list(rows[0]) and len(lines) == len(rows)


def test_compile_writes_what_a_start_costs(benchmark, tmp_path):
  """Of layers in one loop; unrolled, there is a program for each."""
  layers = "--config.model.text.num_layers=3"
  flags = *SMALL, "--suite=compile", layers, "--lengths=16"
  (row,) = benchmark(*flags, "--config.model.text.unroll=1")
  found = json.loads((tmp_path / "rows.json").read_text())
  for name in ("trace_seconds", "lower_seconds", "compile_seconds"):
    assert row[name] > 0 and found[name] == row[name]
  (unrolled,) = benchmark(*flags, "--config.model.text.unroll=0")
  assert unrolled["stablehlo_lines"] > row["stablehlo_lines"] > 1000


def test_rows_of_the_crf_and_of_the_input_pipeline():
  rows = crf.run([(4, 8, 5)], repeats=1)
  assert [row["what"] for row in rows] == ["loss and gradient", "viterbi"]
  (row,) = input.run([((64, 48), 20, 8)], workers=(2,), repeats=1)
  assert row["examples_per_second"] == pytest.approx(20e3 / row["ms"])


# HLO -> bytes that a device sends, in XLA's notations of who takes part.
COLLECTIVES = {
  "f32[16] all-reduce(%x), replica_groups=mesh['a'=4,'b'=2] {'a'}": 96,
  "f32[16] all-gather(%x), replica_groups=mesh['a'=2,'b'=4],"
  " device_ids=([4,2]T(1,0)) {'b'}, dimensions={0}": 48,
  "f32[16] all-to-all(%x), replica_groups=mesh['a'=2,'b'=4] {'a','b'}": 56,
  "(bf16[4], bf16[16]) all-gather-start(%x), replica_groups=[2,4]<=[8]": 24,
  "(f32[], /*index=1*/pred[8]) all-reduce(%x), replica_groups={{0,1}}": 12,
  "f32[4] reduce-scatter(%x), replica_groups={{0,1,2},{3,4,5}}": 32,
  "(f32[8], f32[8], u32[], u32[]) collective-permute-start(%x),"
  " source_target_pairs={{0,1},{1,0}}": 32,
}


def test_bytes_of_collectives():
  for line, want in COLLECTIVES.items():
    # A second stage of the same collective must not count.
    twice = f"  %name.1 = {line}, channel_id=7\n" * 2
    ((_, sent, _),) = aot.collectives(twice)
    assert sent == pytest.approx(want), line

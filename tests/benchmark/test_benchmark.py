"""The benchmark's suites at toy sizes, and what it reads of a program."""

import argparse
import json

import jax
import pytest

from mner_jax.benchmark import __main__ as program
from mner_jax.benchmark import aot, crf, input, train
from mner_jax.sharding import make_mesh
from tests.conftest import LONG
from tests.training.test_loop import command


def benchmark(path, *arguments):
  """Runs it with --output: (what is in the file, what was printed)."""
  file = "mner_jax/benchmark/__main__.py"
  ended = command(file, *arguments, f"--output={path}", check=True)
  return json.loads(path.read_text()), ended.stdout


SMALL = (
  "--config=mner_jax/configs/synthetic_text.py",
  "--config.model.text.hidden_size=16",
  "--batch_sizes=8",
)


@pytest.mark.parametrize("lengths", [[16], LONG([16, 24])])
def test_train_writes_a_row_for_each_size(tmp_path, lengths):
  flags = "--config.model.text.num_layers=1", "--repeats=1"
  flag = "--lengths=" + ",".join(map(str, lengths))
  found, out = benchmark(tmp_path / "rows.json", *SMALL, *flags, flag)
  rows = found["rows"]
  assert [row["length"] for row in rows] == lengths
  for row in rows:
    for name in ("ms", "examples_per_second", "share_of_peak", "gigabytes"):
      assert row[name] > 0, name
  header, *lines = out.splitlines()[1:]
  assert header.split() == list(rows[0]) and len(lines) == len(rows)


def test_compile_writes_what_a_start_costs(tmp_path):
  """Of layers in one loop; unrolled, there is a program for each."""
  layers = "--config.model.text.num_layers=3"
  flags = *SMALL, "--suite=compile", layers, "--lengths=16"
  lines = []
  for unroll in (1, 0):
    flag = f"--config.model.text.unroll={unroll}"
    found, _ = benchmark(tmp_path / "rows.json", *flags, flag)
    (row,) = found["rows"]
    for name in ("trace_seconds", "lower_seconds", "compile_seconds"):
      assert row[name] > 0 and found[name] == row[name]
    lines.append(row["stablehlo_lines"])
  assert lines[1] > lines[0] > 1000


def test_weights_in_a_folder_bring_their_sizes(tmp_path):
  """Their values stay random."""
  (tmp_path / "config.json").write_text('{"architecture": "resnet50"}')
  fields = {"model.resnet.weights": str(tmp_path)}
  args = argparse.Namespace(config=None, overrides=fields)
  resnet = program._load(args).model.resnet
  assert (resnet.stages, resnet.weights) == ((3, 4, 6, 3), "")


def test_a_step_takes_the_random_keys_that_jax_is_set_to(tiny):
  """JAX_DEFAULT_PRNG_IMPL=rbg has keys of another size."""
  with jax.default_prng_impl("rbg"):
    traced, _ = train.trace_step(tiny, make_mesh(tiny.mesh), 8, 16)
  assert traced.out_info[0].rng.shape == (4,)


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

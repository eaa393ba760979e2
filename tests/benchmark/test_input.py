import numpy as np

from mner_jax.benchmark import input as input_benchmark


def test_rows_of_the_input_benchmark():
  rows = input_benchmark.run({(64, 48): (20, 8)}, workers=(1, 2), repeats=2)
  assert [(row["image"], row["workers"]) for row in rows] == [
    ("64x48", 1), ("64x48", 2)
  ]  # fmt: skip
  for row in rows:
    low, high = row["examples_per_second_range"]
    assert 0 < low <= row["examples_per_second"] <= high


def test_torch_reads_the_same_pictures(tmp_path):
  examples = input_benchmark._examples(tmp_path, (300, 260), 9, 3)
  theirs = input_benchmark._TorchExamples(examples, tmp_path)
  assert len(theirs) == len(examples.windows) == 9
  ours = examples.rows(32, np.arange(9))
  for i in range(9):
    row = theirs[i]
    np.testing.assert_array_equal(row["pixels"], ours["pixels"][i])
    np.testing.assert_array_equal(row["input_ids"], ours["input_ids"][i])
    assert row["scene_pixels"].shape == ours["scene_pixels"][i].shape

"""The PyTorch sides of the benchmark do the work that ours do."""

import numpy as np

from mner_jax.benchmark import crf, input, train
from tests.parity import speed


def test_the_loader_makes_the_same_batches(tmp_path):
  examples = input.make_examples(tmp_path, (300, 260), 9, 9)
  loader = speed.loader(examples, tmp_path, 1)
  assert sum(len(batch["weight"]) for batch in loader) == 9
  theirs = loader.collate_fn(loader.dataset)  # not shuffled
  ours = examples.rows(32, np.arange(9))
  for name in ("input_ids", "pixels"):
    np.testing.assert_array_equal(theirs[name], ours[name])
  assert theirs["scene_pixels"].shape == ours["scene_pixels"].shape


def test_the_train_step_learns_the_same_batch(tiny):
  step = speed.train_step(tiny, train.random_batch(tiny, 8, 16), fast=False)
  losses = [float(step()) for _ in range(10)]
  assert losses[-1] < losses[0]


def test_the_crf_has_a_row_beside_ours():
  for row in crf.run([(4, 8, 5)], repeats=1, pytorch=speed):
    assert row["times_faster"] == row["torch_ms"] / row["ms"] > 0

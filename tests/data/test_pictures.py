"""Tests of the pictures of the synthetic corpus."""

import numpy as np
import pytest

from mner_jax.data.synthetic.pictures import SCENES, draw


@pytest.mark.parametrize("scene", sorted(SCENES))
def test_same_rng_state_same_bytes(scene):
  first, again = (draw(scene, np.random.default_rng(7)) for _ in range(2))
  assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("scene", sorted(SCENES))
def test_pictures_differ(scene):
  rng = np.random.default_rng(7)
  assert len({draw(scene, rng).tobytes() for _ in range(20)}) == 20


@pytest.mark.parametrize("size", [17, 32, 64, 224])
def test_mode_and_size(size):
  for scene in SCENES:
    picture = draw(scene, np.random.default_rng(0), size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_mean_colour_does_not_tell_the_type():
  rng = np.random.default_rng(0)
  kinds = np.arange(800) % 4
  names = sorted(SCENES)
  means = np.array(
    [np.asarray(draw(names[kind], rng, 32)).mean((0, 1)) for kind in kinds]
  )
  inputs = np.c_[means / 255, np.ones(len(means))]
  weights = np.linalg.lstsq(inputs[:400], np.eye(4)[kinds[:400]])[0]
  guesses = (inputs[400:] @ weights).argmax(1)
  assert (guesses == kinds[400:]).mean() < 0.45


def test_unknown_scene():
  with pytest.raises(ValueError, match="unknown scene 'DATE'"):
    draw("DATE", np.random.default_rng(0))

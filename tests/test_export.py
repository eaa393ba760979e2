"""Exported taggers, in processes that do not know this package."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mner_jax import export as export_lib
from mner_jax import predict
from mner_jax.config import UserError
from tests.training.test_loop import environment

# As tag.py is started, but that mner_jax cannot be imported.
ALONE = """
import runpy, sys
sys.modules["mner_jax"] = None
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def tag(folder, *arguments):
  """[[word, tag, score or ""]] of the example beside an export."""
  argv = [str(folder / "tag.py"), *map(str, arguments)]
  result = subprocess.run(
    [sys.executable, "-c", ALONE.format(argv=argv)],
    capture_output=True, text=True, env=environment(), cwd=folder, timeout=300,
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  return [line.split("\t") for line in result.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["images", "text"])
def test_an_export_tags_as_the_model_does(trained, tmp_path, kind):
  workdir, evaluated = trained(kind)
  folder = export_lib.export(workdir, tmp_path / "export")
  split = evaluated.examples.split
  tagger = predict.Tagger.load(workdir)
  short = [i for i, s in enumerate(split.sentences) if len(s.words) < 10]
  with_picture = [i for i in short if split.image_status[i] == "ok"]
  if kind == "text":
    assert not with_picture
  for i in (short[0], *with_picture[:1]):
    words = list(split.sentences[i].words)
    picture = []
    if i in with_picture:
      (tmp_path / "picture").write_bytes(split.image(i))
      picture = [tmp_path / "picture"]
    (want,) = tagger([words], picture or None)
    found = tag(folder, " ".join(words), *picture)
    assert [row[:2] for row in found] == [
      list(x) for x in zip(want["tokens"], want["tags"], strict=True)
    ]
    scores = {i: float(row[2]) for i, row in enumerate(found) if row[2]}
    assert scores == pytest.approx(
      {e["word_end"] - 1: e["score"] for e in want["entities"]}, abs=2e-4
    )
    assert scores


def test_an_export_is_of_any_size_and_platform(trained, tmp_path):
  from jax import export
  from safetensors.numpy import load_file

  workdir, evaluated = trained("text")
  folder = export_lib.export(workdir, tmp_path / "export")
  program = export.deserialize(
    bytearray((folder / "tagger_16.stablehlo").read_bytes())
  )
  assert program.platforms == ("cpu", "cuda", "tpu")
  params = load_file(folder / "params.safetensors")
  for size in (1, 5):
    batch = export_lib.inputs(evaluated.examples.config, size, 16)
    tags, scores = program.call(params, batch)
    assert tags.shape == scores.shape == (size, 16)
    np.testing.assert_array_equal(tags[:, 1:], 0)
  about = json.loads((folder / "tagger.json").read_text())
  assert about["lengths"] == [16, 24] and about["vit"] is None
  with pytest.raises(UserError, match="not an empty folder"):
    export_lib.export(workdir, folder)


def test_a_program_that_says_something_else_is_refused(
  trained, tmp_path, monkeypatch
):
  workdir, _ = trained("text")
  right = export_lib.make_tag

  def wrong(config):
    return lambda flat, batch: (
      right(config)(flat, batch)[0] + 1, right(config)(flat, batch)[1]
    )  # fmt: skip

  makers = iter([wrong, right])
  monkeypatch.setattr(export_lib, "make_tag", lambda c: next(makers)(c))
  with pytest.raises(UserError, match=r"tagger_16.*does not compute"):
    export_lib.export(workdir, tmp_path / "export")
  assert not (tmp_path / "export" / "tagger.json").exists()

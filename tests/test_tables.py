"""Tables from end to end, with real runs of a few updates."""

import subprocess
import sys

import pytest

from tests.test_training import ROOT, environment, write_corpus

TEXT = "text only (BERT-CRF)"
# The mini scale of `ablation`, on a corpus of a few sentences.
SIZES = {
  "data.languages": ("en", "de"),
  "data.buckets": (16, 24),
  "model.text.vocab_size": 200,
  "model.text.hidden_size": 16,
  "model.text.num_layers": 1,
  "model.text.max_positions": 24,
  "model.vit.image_size": 24,
  "model.vit.num_layers": 1,
  "model.resnet.image_size": 24,
  "model.resnet.stages": (1,),
  "optim.warmup_steps": 1,
  "train.batch_size": 8,
  "train.epochs": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tables")
  write_corpus(folder / "data")
  return folder


def arguments(folder, **overrides):
  fields = SIZES | {
    "data.path": str(folder / "data"),
    "data.cache_dir": str(folder / "cache"),
  }
  fields |= {k.replace("__", "."): v for k, v in overrides.items()}
  return [
    sys.executable, "-m", "mner_jax.tables", "ablation", "--seeds=1",
    f"--rows={TEXT},ViT only", f"--workdir={folder / 'work'}",
    *(f"--override={k}={v}" for k, v in fields.items()),
  ]  # fmt: skip


def command(arguments):
  return subprocess.run(
    arguments, cwd=ROOT, capture_output=True, text=True, env=environment(),
    timeout=300,
  )  # fmt: skip

"""Whole runs of train.py and eval.py, as a user starts them."""

import collections
import contextlib
import io
import json
import os
import pathlib
import platform
import runpy
import shutil
import subprocess
import sys

import jax
import pytest
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax import checkpoint
from mner_jax.cli import read_workdir
from mner_jax.config import replace
from mner_jax.data import formats
from mner_jax.evaluation import evaluate
from tests.conftest import TINY, abstract_state, named, read_jsonl

ROOT = pathlib.Path(__file__).parents[2]


def experiment(folder, fields=()):
  """The fields of a small run on `folder`/data, those given last."""
  return TINY | {
    "data.path": str(folder / "data"),
    "data.cache_dir": str(folder / "cache"),
    "data.languages": ("en", "de"),
    "train.epochs": 5,
    "train.log_every": 1,
    "train.eval_every": 8,
    **dict(fields),
  }


def write_config(path, fields):
  """Writes a config file with these fields."""
  path.write_text(
    "from mner_jax.config import Config, replace\n\n"
    f"def get_config():\n  return replace(Config(), {fields!r})\n"
  )
  return path


def write_corpus(folder):
  """Twelve sentences a split in two languages; long, orphan and missing."""
  (folder / "images").mkdir(parents=True)
  for i in range(4):
    image = Image.new("RGB", (20 + i, 30), (60 * i, 0, 255 - 60 * i))
    image.save(folder / "images" / f"pic{i}.png")
  for language, who in (("en", "Anna Smith"), ("de", "Jürgen Groß")):
    blocks = []
    for i in range(8):
      image = f"pic{i}" if i < 5 else ""  # pic4 is not there
      words = [*who.split(), "visits", f"Town{i}"] + ["today"] * (2 + i)
      tags = ["B-PER", "I-PER", "O", "B-LOC"] + ["O"] * (2 + i)
      if i == 2:
        tags[3] = "I-LOC"  # an orphan
      if i == 3:
        words, tags = words + ["again"] * 30, tags + ["O"] * 30
      lines = [f"IMGID:{image}"] * bool(image)
      lines += [f"{w}\t{t}" for w, t in zip(words, tags, strict=True)]
      blocks.append("\n".join(lines) + "\n")
    (folder / language).mkdir()
    for split in ("train", "valid", "test"):
      (folder / language / f"{split}.txt").write_text("\n".join(blocks))


def spawn(*words, stdout=subprocess.PIPE, **variables):
  """A process of Python with these arguments and environment variables."""
  pipes = {"stdout": stdout, "stderr": subprocess.PIPE, "text": True}
  own = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  words, env = [sys.executable, *words], {**os.environ, **own, **variables}
  return subprocess.Popen(words, env=env, cwd=ROOT, **pipes)


Ended = collections.namedtuple("Ended", "returncode stdout stderr")


def command(program, *arguments, check=False):
  """Runs a command in this process, without the seconds of its imports.

  `check`: whether its exit code must be 0.
  """
  out, err, code = io.StringIO(), io.StringIO(), 0
  with (
    pytest.MonkeyPatch.context() as patch,
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
  ):
    for name in ("XLA_PYTHON_CLIENT_PREALLOCATE", "TPU_SKIP_MDS_QUERY"):
      patch.setenv(name, "1")  # the benchmark sets them
    patch.setattr(sys, "argv", [program, *map(str, arguments)])
    try:
      runpy.run_path(str(ROOT / program), run_name="__main__")
    except SystemExit as left:
      code = left.code
  assert not check or code == 0, err.getvalue()
  return Ended(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def corpus(shared_run):
  return shared_run("images") / "tiny.py"


@pytest.fixture(scope="module")
def workdir(corpus):
  """A copy of a run to its end, in one go."""
  return shutil.copytree(corpus.parent / "run", corpus.parent / "copy")


def test_a_run_leaves_what_it_promises(workdir):
  assert {p.name for p in workdir.iterdir()} == {
    "config.json", "tokenizer", "metrics.jsonl", "timing.jsonl",
    "checkpoints", "test_metrics.json", "lock", "run.json",
    "test_predictions.jsonl",
  }  # fmt: skip
  scores = json.loads((workdir / "test_metrics.json").read_text())
  assert set(scores["per_language"]) == {"de", "en"}
  assert set(scores["per_type"]) == {"LOC", "PER"}
  read, data = formats.read_conll, workdir.parent / "data"
  sentences = [s for x in ("en", "de") for s in read(data / x / "test.txt")]
  entities = len(get_entities([list(s.tags) for s in sentences]))
  # Every entity of the file counts, those of long sentences and orphans too.
  assert scores["counts"] == {
    "sentences": 16, "entities": entities, "missing_images": 2,
    "broken_images": 0, "windowed_sentences": 2, "unk_words": 0,
    "orphan_tags": 2,
  }  # fmt: skip
  rows = scores["per_language"].values()
  assert sum(row["support"] for row in rows) == entities
  assert f"{100 * scores['f1']:.2f}" in (workdir.parent / "out.txt").read_text()
  said = (workdir.parent / "err.txt").read_text()
  assert "resnet: frozen at random numbers" in said
  assert "WARNING" not in said  # of TFDS or Orbax
  # It has learnt something: the two names are easy.
  assert scores["per_type"]["PER"]["f1"] > 0.8
  lines = read_jsonl(workdir / "metrics.jsonl")
  losses = [line["loss"] for line in lines if "loss" in line]
  assert losses[-1] < losses[0]


def files(folder):
  return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def arrays(workdir):
  """{path: array} of a run's last checkpoint."""
  shapes = abstract_state(read_workdir(workdir))
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(lambda x: x.update(sharding=one), shapes)
  step = checkpoint.latest_step(workdir)
  return named(jax.device_get(checkpoint.restore(workdir, step, abstract)))


def scores_of(workdir, output, *overrides):
  """The scores that eval.py writes, with settings changed."""
  places = f"--workdir={workdir}", f"--output={output}"
  command("eval.py", *places, *overrides, check=True)
  return json.loads(output.read_text())


def test_eval_of_other_data_writes_no_file_of_the_run(workdir, tmp_path):
  """A type that only this data has is missed."""
  write_corpus(tmp_path / "other")
  path = tmp_path / "other" / "en" / "test.txt"
  path.write_text(path.read_text().replace("visits\tO", "visits\tB-MISC"))
  before, output = files(workdir), tmp_path / "scores.json"
  other = f"--config.data.path={tmp_path}/other"
  scores = scores_of(workdir, output, other, "--config.data.languages=('en',)")
  assert list(scores["per_language"]) == ["en"]
  assert scores["per_type"]["MISC"]["recall"] == 0
  assert scores["per_type"]["MISC"]["support"] == 8
  assert files(workdir) == before


def test_eval_of_another_language_beside_a_cut_log(workdir, tmp_path):
  workdir = shutil.copytree(workdir, tmp_path / "run")
  log = workdir / "metrics.jsonl"
  tested = b'{"step": 1, "test_f1": 0.5}\n'
  log.write_bytes(tested + log.read_bytes()[:-9])  # as a kill leaves it
  override = "--config.data.eval_languages=('de',)"
  scores = scores_of(workdir, tmp_path / "scores.json", override)
  assert list(scores["per_language"]) == ["de"]
  assert "best_test_epoch" not in scores  # it is of the run's own data


def test_languages_that_are_tested_are_not_those_of_dev(workdir):
  config = replace(read_workdir(workdir), {"data.eval_languages": ("de",)})
  scores = evaluate.evaluate(config, workdir, "valid").scores
  assert sorted(scores["per_language"]) == sorted(config.data.languages)
  flags = f"--workdir={workdir}", "--config.data.eval_languages=('de',)"
  code, _, err = command("eval.py", *flags, "--split=valid")
  assert code == 2 and "give --config.data.languages" in err


def test_scores_in_another_dtype_are_not_those_of_the_run(workdir, tmp_path):
  workdir = shutil.copytree(workdir, tmp_path / "run")
  path = workdir / "test_metrics.json"
  path.unlink()
  for flag, written in (("dtype=bfloat16", False), ("data.workers=2", True)):
    command("eval.py", f"--workdir={workdir}", f"--config.{flag}", check=True)
    assert path.exists() == written


def test_init_from_starts_where_another_run_was_best(corpus, workdir):
  other = corpus.parent / "further"
  places = f"--workdir={other}", f"--config.init_from={workdir}"
  # Of the second step: tracing the first would fill the profile.
  places += ("--config.model.text.dropout=0.3",)  # only training reads it
  flags = f"--config={corpus}", *places, "--stop_at=2", "--profile=2:2"
  err = command("train.py", *flags, check=True).stderr
  assert "frozen at random numbers" not in err
  logs = (x / "metrics.jsonl" for x in (other, workdir))
  further, scratch = (read_jsonl(log)[0]["crf"] for log in logs)
  assert further < scratch / 4
  assert list(other.glob("plugins/profile/*/*.xplane.pb"))


def test_other_sentences_in_a_workdir_are_refused(corpus, workdir, tmp_path):
  other = tmp_path / "other"
  write_corpus(other)
  path = other / "en" / "train.txt"
  path.write_text(path.read_text().replace("visits", "leaves"))
  places = f"--workdir={workdir}", f"--config.data.path={other}"
  arguments = "train.py", f"--config={corpus}", *places
  code, _, err = command(*arguments)
  assert code == 2 and "data.fingerprint" in err
  # The same sentences elsewhere are the same data.
  path.write_text(path.read_text().replace("leaves", "visits"))
  command(*arguments, check=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_a_step_on_a_cpu_has_the_memory_of_the_one_before():
  """No step waits for the system to clear 64 MiB of pages, 16,384 faults."""
  code = """
import resource
from mner_jax.training import compiling
compiling.reuse_memory()
import jax
x = jax.block_until_ready(jax.numpy.ones((2, 1 << 23)))
step = jax.jit(lambda x: jax.numpy.sort(x + 1, axis=0)[0, 0])
for _ in range(9):
  step(x).block_until_ready()
  print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  *_, before, _, _, last = map(int, done.stdout.split())
  assert last - before < 1000

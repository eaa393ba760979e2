"""Bad input of every command: one line, exit code 2, and nothing is left."""

import contextlib
import functools
import logging
import os
import pathlib
import shutil
import sys
import tempfile
from unittest import mock

import jax
import numpy as np
import pytest
from etils import epath

from mner_jax import cli
from tests.conftest import LONG, RUNS
from tests.training import test_loop as commands

PROGRAMS = {
  "train": "train.py --config={in}/text.py --workdir={new}",
  "train_images": "train.py --config={in}/images.py --workdir={new}",
  "resume": "train.py --config={in}/text.py --workdir={run}",
  "eval": "eval.py --workdir={run} --config.data.path={in}/data"
  " --config.data.cache_dir={in}/cache",
  "predict": "mner_jax/predict.py --workdir={run} --output={in}/out.jsonl",
  "save": "mner_jax/predict.py --workdir={run}",
  "verify": "mner_jax/checkpoint.py verify",
  "tables": "mner_jax/tables/__main__.py",
  "bench": "mner_jax/benchmark/__main__.py",
  "describe": "mner_jax/data/describe.py",
}
# A command: what its line says.
BAD = {
  # Flags and settings.
  "train --wrkdir=x": "wrkdir",
  "train --config=nothing.py": "nothing.py",
  "train --config={in}/broken.py": "broken.py:1: SyntaxError",
  "train --config={in}/old.py": "cannot import name 'defaults'",
  "train --config={in}/number.py": "get_config() returns 3",
  "train --stop_at=0": "--stop_at",
  "train --profile=3:2": "--profile",
  "train --profile=3:2000": "this start makes the updates 1 to",
  "train --config.model.text.layers=3": (
    "no setting 'model.text.layers'; did you mean 'model.text.num_layers'?"
  ),
  "train --config.train.epochs=many": "many",
  "train --config.optim.weight_decay=nan": "weight_decay",
  "train --config.model.text.dropout=1.5": "must be in [0, 1], not 1.5",
  "train --config.loss.contrastive=simclr": "simclr",
  "train --config.loss.temperature=0": "temperature must be above 0",
  "train --config.model.resnet.stages=(1,0)": "stages must be above 0, not 0",
  "train --config.mesh.data=0": "mesh.data must be above 0, or -1",
  "train --config.mesh.tensor=3": "mesh",
  "train --config.model.fusion=umt": "model.vit.enabled=False",
  "train --config.optim.frozen=('*text',)": "optim.frozen",
  "train --config.optim.frozen=('.*',)": "nothing is left to train",
  "train --config.optim.warmup_steps=999": "at least optim.warmup_steps=999",
  "train --config.train.epochs=99999999999": "and below 2^31",
  "train_images --config.data.path=synthetic --config.data.images=": (
    "the synthetic corpus has its own"
  ),
  "train --config.data.images --workdir=b": "--config.data.images has no value",
  "train --config.train.epochs={{[]:1}}": "train.epochs must be of type int",
  "train --config.data.labels=('PER','PER')": "names one twice: PER, PER",
  # Data and weights.
  "train --config.data.path={in}/empty": "no train split for 'en'",
  "train --config.data.path={in}/columns": "train.txt:2",
  "train --config.data.path={in}/untagged": "no entity is left in train",
  "train --config.data.path=/etc/passwd": "/etc/passwd is not a folder",
  "train --config.data.label_map=('PER=O','LOC=O')": "no entity is left",
  "train --config.model.text.weights=/no/where": "/no/where",
  # Workdirs.
  "train --workdir=": "--workdir is empty",
  "train --workdir=/proc/nowhere/run": "/proc/nowhere",
  "train --workdir={in}/no_config": "config.json: not found",
  "train_images --config.init_from={run}": "holds another model: model.vit",
  "train --config.init_from={run} --config.model.fusion_heads=2": (
    "model.fusion_heads: 4 -> 2"
  ),
  "train --config.init_from={in}": "tokenizer.json: No such file",
  "resume --config.optim.learning_rate=1e-5": (
    "optim.learning_rate: 0.005 -> 1e-05"
  ),
  "eval --workdir=/etc/passwd": "/etc/passwd/config.json: Not a directory",
  "eval --workdir={in}": "is {in} the --workdir of a train.py run?",
  "eval --config.model.fusion_heads=2": "model.fusion_heads: 4 -> 2",
  "eval --config.data.languages=('de',) --report": "the run's own",
  "eval --config.data.labels=('PER','LOC')": "data.labels: ",
  "eval --shuffle_images": "sees no pictures",
  "eval --output=/nowhere/x.json": "/nowhere/x.json is not a file one can",
  "eval --config.train.batch_size=4000000000": "out of memory",
  "verify ": "--workdir is empty",
  "verify {in}/no_config": "config.json: not found",
  "tables text --config.seed=1": "--config.seed: every run of the table has",
  # Tagging.
  "predict": "--text --input",
  "predict --text=a --input=b": "--input",
  "predict --text=\n": "no word",
  "predict --text=a --image=no.png": "no.png: No such file",
  "predict --text=a --image={in}/bad.jsonl": "not a picture",
  "predict --input=a.jsonl --image=b": "--images",
  "predict --input=/no/where.jsonl": "No such file",
  "predict --input=a.csv": "suffix",
  "predict --text=a --images={in}": "belong to --input",
  "predict --input={in}/bad.jsonl --images=/no": "/no: No such file",
  "predict --input={in}/bad.jsonl": ":2: not JSON",
  "predict --input={in}/other.jsonl": "neither 'text'",
  "predict --text=a --output=/no/where": "/no/where is not a file one can",
  "predict --text=a --html={in}/data/../out.jsonl": "--output are one file",
  "predict --input={in}/bad.jsonl --html={in}/link.jsonl": "is the --input",
  "predict --save={in}/empty/x": "leave out --html and --output",
  "save --save={in}": "{in} is not a new or empty local folder",
  "save --save={in}/pipe": "pipe is not a new or empty",
  "save --save=gs://b/x": "gs://b/x is not a new or empty local folder",
  "save --save={new} --workdir={in}/bert": "not a whole model of",
  "save --save={new} --workdir=no/where": "no/where is not a folder, and the Hub",
  # Never a device such as /dev/null itself: a failure would replace it.
  "predict --text=a --output={in}/pipe": "pipe is not a file one can",
  "predict --input={in}/bad.jsonl --output={in}/link.jsonl": "is the --input",
  "predict --input={in}/x.jsonl.tmp --input_format=jsonl --output={in}/x.jsonl": (
    "is the --input"
  ),
  # Tables and the benchmark.
  "tables ablation --workdir={new} --rows=BERT": "no row 'BERT'",
  "tables retrieval --workdir={new} --scale=paper": "no scale 'paper'",
  "tables main --workdir={new} --kept --seeds=1": "--kept takes no --seeds",
  "tables languages --workdir={new}": "wikineural is not a folder",
  "tables text --workdir={new}": "copy train_valid_test_en/ in github",
  "tables ablation --workdir={new} --config.model.depth=2": "model.depth",
  "tables text --data={in}/data --workdir={new} --config.data.languages=('en',)"
  " --config.model.text.weights=/nonexistent": "/nonexistent is not a folder",
  "bench --batch_sizes=8,0": "--batch_sizes",
  "bench --compile_for=v1:2x2": "--compile_for",
  "bench --config.train.accumulate=32 --batch_sizes=8": "train.accumulate",
  "bench --lengths=32,513": "--lengths: must be 3 to 512",
  "bench --config.model.text.weights=e5": "weights: e5 is not a folder",
  "bench --suite=crf --lengths=8": "--lengths does nothing in crf",
  "bench --config.train.batch_size=8": "give --batch_sizes",
  "bench --compile_for=v5e:2x2 --compare=torch": "--compare does nothing",
}


@pytest.fixture(scope="module")
def run(shared_run):
  return shared_run("text") / "run"


def fill(folder, run, name):
  """Makes data, a copy of a run, and configs of a text and a whole model."""
  commands.write_corpus(folder / "data")
  shutil.copytree(run, folder / name)
  for config, fields in (("text.py", RUNS["text"]), ("images.py", ())):
    fields = commands.experiment(folder, fields)
    commands.write_config(folder / config, fields)


@pytest.fixture(scope="module")
def given(run, tmp_path_factory):
  """A folder of what the commands are given."""
  folder = tmp_path_factory.mktemp("given")
  fill(folder, run, "no_config")
  for name in ("columns", "untagged"):
    commands.write_corpus(folder / name)
  for path in folder.glob("untagged/*/train.txt"):
    words = (line.split("\t")[0] for line in path.read_text().splitlines())
    path.write_text("".join(f"{w}\tO\n" if w else "\n" for w in words))
  wrong = folder / "columns" / "en" / "train.txt"
  wrong.write_text("Anna\tB-PER\nsings\tO\tO\n")
  (folder / "empty").mkdir()
  (folder / "bert").mkdir()
  (folder / "no_config" / "config.json").unlink()
  texts = {
    "broken.py": "def get_config(:\n",
    "number.py": "def get_config(): return 3\n",
    "old.py": "from mner_jax.config import defaults\n",
    "bert/config.json": '{"model_type": "bert"}',
    "bert/model.safetensors": "",
    "bad.jsonl": '{"text": "Anna sings"}\n{',
    "other.jsonl": '{"words": "a"}',
    "x.jsonl.tmp": '{"text": "Anna sings"}\n',
    "out.jsonl": "of an earlier call",
  }
  for name, text in texts.items():
    (folder / name).write_text(text)
  (folder / "link.jsonl").symlink_to(folder / "bad.jsonl")
  os.mkfifo(folder / "pipe")
  return folder


def contents(folder):
  """What is in a folder and when it was written, but for the built data."""
  files = (p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
  found = {p: p.lstat() for p in files if "cache" not in p.parts}
  return {p: (x.st_size, x.st_mtime_ns) for p, x in found.items()}


def words(line, **places):
  """The words of a command."""
  program, space, arguments = line.partition(" ")
  return (PROGRAMS[program] + space + arguments).format(**places).split(" ")


def one_line(code, out, err):
  """What a command says as it ends with one line and exit code 2."""
  assert code == 2, (err, out)
  said = [x for x in err.splitlines() if "building" not in x]
  assert len(said) == 1, said
  return said[0]


def refused(line, **places):
  return one_line(*commands.command(*words(line, **places)))


@pytest.mark.parametrize("line", BAD)
def test_bad_input(given, run, tmp_path, monkeypatch, line):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
  places = {"in": given, "run": run, "new": tmp_path / "new"}
  before = contents(given), contents(run)
  assert BAD[line].format(**places) in refused(line, **places)
  assert (contents(given), contents(run)) == before
  # The corrected command must not find a workdir of another config.
  left = {path.name for path in contents(tmp_path)}
  assert not left & {"config.json", "tokenizer.json", "run.json"}, left


@contextlib.contextmanager
def unprivileged():
  """Takes from root, as which CI runs, what no permission keeps it from."""
  user = os.geteuid()
  if not user:
    os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(user)


# {what may not be read: commands that need it}.
CLOSED = {
  "data/en/train.txt": ("train", "describe {in}/data"),
  "data/images": ("train_images", "describe {in}/data"),
  "data": ("train", "describe {in}/data"),
  "run/config.json": ("resume", "eval", "verify {run}"),
  "run/tokenizer": ("resume", "eval", "predict --text=a"),
  "run/checkpoints": ("resume", "eval", "verify {run}"),
  "run": ("resume", "eval", "predict --text=a", "verify {run}"),
}


def test_what_may_not_be_read_is_one_line(run):
  """In a folder of its own: that of pytest is closed to others."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    fill(folder, run, "run")
    for path in (folder, *folder.rglob("*")):
      path.chmod(0o777)
    places = {"in": folder, "run": folder / "run", "new": folder / "new"}
    for closed, lines in CLOSED.items():
      (folder / closed).chmod(0)
      for line in lines:
        with unprivileged():
          said = refused(line, **places)
        assert str(folder) in said and "Permission denied" in said, said
      (folder / closed).chmod(0o777)
    folder.chmod(0o555)
    with unprivileged():
      said = refused("train --workdir={in}/other", **places)
      assert "Permission denied" in said


FULL = ["describe {in}/data", LONG("eval"), LONG("predict --text=a --output=-")]


@pytest.mark.parametrize("line", FULL)
def test_a_full_standard_output_is_one_line(given, run, line):
  argv = words(line, **{"in": given, "run": run})
  with open("/dev/full", "w") as full:  # buffered, unless this is set
    process = commands.spawn(*argv, stdout=full, PYTHONUNBUFFERED="")
    said = process.communicate()
  line = one_line(process.returncode, *said)
  assert line.endswith("error: standard output: No space left on device")


def launched(monkeypatch, main):
  """The exit code of a command that is this function."""
  monkeypatch.setattr(sys, "argv", ["command"])
  with pytest.raises(SystemExit) as left:
    cli.launch(lambda args: main(), lambda parser: None, "")
  return left.value.code


def test_out_of_memory_is_one_line(monkeypatch, capsys):
  stop = mock.Mock(side_effect=cli.Stopped)
  bug = mock.Mock(side_effect=RuntimeError("of ours"))
  for library in (jax.numpy, np):
    main = functools.partial(library.zeros, 1 << 50)
    assert launched(monkeypatch, main) == 2
    assert "out of memory: set model.text.remat" in capsys.readouterr().err
  assert launched(monkeypatch, stop) == cli.EXIT_STOPPED == 75
  with pytest.raises(RuntimeError, match="of ours"):
    launched(monkeypatch, bug)


def test_a_missing_library_is_one_line(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  assert launched(monkeypatch, epath.Path("gs://b/a").exists) == 2
  assert "gcsfs" in capsys.readouterr().err


def test_a_librarys_warnings_are_seen_once(monkeypatch, caplog):
  """Not what it logs before it raises, nor what TFDS says of every build."""
  absl = logging.getLogger("absl")
  monkeypatch.setattr(cli, "_warned", cli._warned.copy())
  monkeypatch.setattr(absl, "propagate", True)

  def warn():
    for _ in range(2):
      absl.warning("%s is slow", "gs://a")
      absl.warning("Variant folder %s has no %s", "a", "b")
      absl.error("cannot read")
    raise cli.Stopped

  launched(monkeypatch, warn)
  assert caplog.messages == ["gs://a is slow"]

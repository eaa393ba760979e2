"""What the tests of disturbed runs share: a small run, and disturbances."""

import functools
import json

import pytest

from tests.conftest import TEXT_ONLY
from tests.training.test_loop import (
  arrays,
  command,
  experiment,
  write_config,
  write_corpus,
)

# One program to compile, and a save at every fourth step.
SMALL = TEXT_ONLY | {
  "data.buckets": (24,),
  "train.batch_size": 8,
  "train.epochs": 8,
  "train.checkpoint_every": 4,
}
TOTAL = 24  # steps, three an epoch


@pytest.fixture(scope="module")
def small_config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("small")
  write_corpus(folder / "data")
  return write_config(folder / "small.py", experiment(folder, SMALL))


@pytest.fixture(scope="module")
def train(small_config):
  """Returns a function (workdir, *arguments) -> (exit code, out, err)."""

  def train(workdir, *arguments):
    given = (f"--config={small_config}", f"--workdir={workdir}", *arguments)
    result = command("train.py", *given)
    return result.returncode, result.stdout, result.stderr

  return train


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory):
  """Returns a function (epochs) -> the workdir of a whole run."""

  @functools.cache
  def run(epochs=8):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    code, _, err = train(workdir, f"--config.train.epochs={epochs}")
    assert code == 0, err
    return workdir

  return run


def steps(workdir):
  names = [p.name for p in (workdir / "checkpoints").glob("*")]
  return sorted(int(name) for name in names if name.isdecimal())


def lines(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def assert_same(workdir, wanted):
  for name in ("config.json", "metrics.jsonl", "test_metrics.json"):
    assert (workdir / name).read_bytes() == (wanted / name).read_bytes(), name
  for got, want in zip(arrays(workdir), arrays(wanted), strict=True):
    assert got.tobytes() == want.tobytes()
  assert not list((workdir / "checkpoints").glob("*tmp*"))
  assert not (workdir / "checkpoints" / "saving.json").exists()


def signalled(patch, path, call, number):
  """Sends this process a signal at the given call of a function."""
  import os
  import pkgutil

  owner, _, name = path.rpartition(".")
  owner = pkgutil.resolve_name(f"mner_jax.{owner}")
  function, calls = getattr(owner, name), []

  def wrapped(*args, **kwargs):
    calls.append(1)
    if len(calls) == call:
      os.kill(os.getpid(), number)
    return function(*args, **kwargs)

  patch.setattr(owner, name, wrapped)


def bucket(patch, root):
  """Makes gs:// a local folder, without what a bucket store has not: append."""
  import importlib

  import fsspec
  from fsspec.implementations.dirfs import DirFileSystem
  from orbax.checkpoint._src.path import gcs_utils

  class Bucket(DirFileSystem):
    protocol = ("gs", "gcs")

    def __init__(self, **_):
      local = fsspec.filesystem("file", auto_mkdir=True)
      super().__init__(root, local, skip_instance_cache=True)

    @classmethod
    def _strip_protocol(cls, path):
      return str(path).removeprefix("gs://").rstrip("/")

    def _join(self, path):
      if isinstance(path, str):
        path = self._strip_protocol(path)
      return super()._join(path)

    def open(self, path, mode="rb", **options):
      if "a" in mode:
        raise NotImplementedError("append")
      return super().open(path, mode=mode, **options)

    def listdir(self, path, detail=True, **options):
      return self.ls(path, detail=detail)

  def store(path):
    path = path.removeprefix("gs://")
    return {"driver": "file", "path": f"{root}/{path}"}

  registry = importlib.import_module("fsspec.registry")
  for name in Bucket.protocol:
    patch.setitem(registry._registry, name, Bucket)
  # The arrays are written by tensorstore, not by fsspec.
  patch.setattr(gcs_utils, "get_kvstore_for_gcs", store)

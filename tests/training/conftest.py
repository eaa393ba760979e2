"""What the tests of disturbed runs share: a small run, and disturbances."""

import functools
import socket

import pytest

from tests.conftest import read_jsonl
from tests.training.test_loop import arrays, command, spawn

TOTAL = 24  # steps of the shared run "text", three an epoch
AND_TRAIN = """
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def small_config(shared_run):
  return shared_run("text") / "tiny.py"


@pytest.fixture(scope="module")
def train(small_config):
  """Returns a function (workdir, *arguments) -> (exit code, out, err)."""

  def train(workdir, *arguments, **options):
    places = f"--config={small_config}", f"--workdir={workdir}"
    return command("train.py", *places, *arguments, **options)

  return train


@pytest.fixture(scope="module")
def undisturbed(shared_run, train, tmp_path_factory):
  """Returns a function (epochs) -> the workdir of a whole run."""

  @functools.cache
  def run(epochs=8):
    if epochs == 8:
      return shared_run("text") / "run"
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(workdir, f"--config.train.epochs={epochs}", check=True)
    return workdir

  return run


def start(config, workdir, *arguments, before="", **variables):
  """A process of train.py; `before`: Python that it executes first."""
  words = before + AND_TRAIN, f"--config={config}", f"--workdir={workdir}"
  return spawn("-c", *words, *arguments, **variables)


def pod(config, workdir, *arguments, devices, before):
  """The ends of a run's processes: [(exit code, out, err)].

  `devices`: how many each has; `before`: for each, as of `start`.
  """
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
  common = [address, f"--num_processes={len(before)}", *arguments]
  variables = {"JAX_NUM_CPU_DEVICES": str(devices)}
  processes = []
  for i, code in enumerate(before):
    own = *common, f"--process_id={i}"
    processes.append(start(config, workdir, *own, before=code, **variables))
  try:
    said = [process.communicate(timeout=600) for process in processes]
  finally:  # one that failed leaves the others waiting
    for process in processes:
      process.kill()
  return [(p.returncode, *x) for p, x in zip(processes, said, strict=True)]


def steps(workdir):
  names = [p.name for p in (workdir / "checkpoints").glob("*")]
  return sorted(int(name) for name in names if name.isdecimal())


def lines(workdir):
  return read_jsonl(workdir / "metrics.jsonl")


def losses(workdir):
  """{step: loss}."""
  return {x["step"]: x["loss"] for x in lines(workdir) if "loss" in x}


def array_bytes(workdir):
  return {name: x.tobytes() for name, x in arrays(workdir).items()}


def assert_same(workdir, wanted):
  for name in ("config.json", "metrics.jsonl", "test_metrics.json"):
    assert (workdir / name).read_bytes() == (wanted / name).read_bytes(), name
  assert array_bytes(workdir) == array_bytes(wanted)
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
  import fsspec
  from etils.epath import backend
  from fsspec.implementations.dirfs import DirFileSystem
  from orbax.checkpoint._src.path import gcs_utils

  class Bucket(DirFileSystem):
    protocol = ("gs", "gcs")
    mkdir = makedirs = lambda *_, **__: None  # it has no folders

    def __init__(self, use_listings_cache=True, **_):
      assert not use_listings_cache  # gcsfs' outlives the writes of others
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

  def filesystem(*_):  # without the cache of the method, which would outlive us
    return Bucket()

  patch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", filesystem)
  # The arrays are written by tensorstore, not by fsspec.
  patch.setattr(gcs_utils, "get_kvstore_for_gcs", store)

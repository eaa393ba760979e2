"""The runs of a table: one child process each, cached, resumed, survived.

A run's folder is `HASH-SEED`: the hash is of its config and of its data's
sentences. A folder with `test_metrics.json` is finished and not repeated; any
other goes on where it stood. Tables share their runs.
"""

import collections
import dataclasses
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
from etils import epath

from mner_jax import config as config_lib
from mner_jax import files
from mner_jax.config import UserError
from mner_jax.data import builders, dataset, folders
from mner_jax.training.stopping import EXIT_STOPPED

# What a resumed run may change but a number depends on.
_COUNTED = {"dtype"}


@dataclasses.dataclass(frozen=True)
class Run:
  """One training of a row: `folder` holds all that is left of it."""

  row: str
  seed: int
  config: config_lib.Config
  hash: str
  folder: epath.Path

  @property
  def finished(self):
    """Whether its scores are there."""
    return (self.folder / "test_metrics.json").exists()

  def read(self, name):
    """A JSON file of the finished run; None where there is none."""
    path = self.folder / name
    return json.loads(path.read_text()) if path.exists() else None


def split_override(text):
  """Splits "a.b=value" into ("a.b", "value")."""
  name, equals, value = text.partition("=")
  if not equals:
    raise UserError(f"--override: {text!r} is not a.b=value")
  return name, value


def make_config(name, overrides):
  """The Config of a file in configs/ with {field: value} changed."""
  config = importlib.import_module(f"mner_jax.configs.{name}").get_config()
  return config_lib.replace(config, overrides)


def plan(rows, config_name, overrides, seeds, workdir):
  """The Runs of a table, all rows of a seed before the next seed.

  Args:
    rows: {name: {field: value}}.
    config_name: file in configs/ that all rows share.
    overrides: {field: value} of all rows, under those of the row.
    seeds: numbers.
    workdir: folder of all tables.
  """
  data_hash = _DataHash()
  runs = []
  configs = {
    name: make_config(config_name, overrides | row)
    for name, row in rows.items()
  }
  for seed, (name, config) in itertools.product(seeds, configs.items()):
    config = dataclasses.replace(config, seed=seed)
    hash_ = _hash(config, data_hash(config.data))
    folder = epath.Path(workdir) / "runs" / f"{hash_}-{seed}"
    runs.append(Run(name, seed, config, hash_, folder))
  return runs


class _DataHash:
  """Hash of the sentences of all splits, once per DataConfig."""

  def __init__(self):
    self._known = {}

  def __call__(self, data):
    if data not in self._known:
      splits = builders.load(data, ("train", "valid"), data.languages)
      test_languages = data.eval_languages or data.languages
      splits |= builders.load(data, ("test",), test_languages)
      self._known[data] = dataset.fingerprint(splits.values())
    return self._known[data]


def _hash(config, data_hash):
  """Ten letters for all that a number depends on but the seed."""
  config = dataclasses.replace(
    config,
    seed=0,
    data=dataclasses.replace(config.data, fingerprint=data_hash),
  )
  tree = dataclasses.asdict(config)
  for name in set(config_lib.RESUMABLE) - _COUNTED:
    *parents, field = name.split(".")
    node = tree
    for parent in parents:
      node = node[parent]
    del node[field]
  return folders.hash_of([json.dumps(tree, sort_keys=True)])[:10]


class _Stop:
  """SIGTERM and Ctrl-C are handed to the child; it saves and leaves."""

  def __init__(self):
    self.asked, self.child = False, None

  def __enter__(self):
    numbers = (signal.SIGTERM, signal.SIGINT)
    self._before = {n: signal.signal(n, self._handle) for n in numbers}
    return self

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _handle(self, number, frame):
    # A second signal ends the child at once, as train.py has it.
    self.asked = True
    if self.child:
      self.child.terminate()


def execute(runs):
  """Runs what is not finished; a run that fails does not stop the others.

  Args:
    runs: of `plan`.

  Returns:
    {folder: why it failed, one line}.
  """
  # The same config may stand in a table under two names.
  todo = {run.folder: run for run in runs if not run.finished}
  say(f"{len(runs)} runs, {len(runs) - len(todo)} of them finished before")
  failures = {}
  progress = _Progress(runs, list(todo.values()))
  with _Stop() as stop:
    for run in todo.values():
      progress.begins(run)
      start = time.monotonic()
      stop.child = _start(run)
      if stop.asked:  # the signal came while it started
        stop.child.terminate()
      code = stop.child.wait()
      if code or not run.finished:
        failures[run.folder] = _reason(run, code)
      progress.ends(run, time.monotonic() - start, failures.get(run.folder))
      if stop.asked:
        say("stopped; the same command goes on")
        sys.exit(EXIT_STOPPED)
  return failures


def _start(run):
  run.folder.mkdir(parents=True, exist_ok=True)
  config = run.folder / "experiment.json"
  files.write(config, config_lib.to_json(run.config))
  # The seeds of a row are one program.
  compiled = str(run.folder.parent.parent / "compiled")
  with open(run.folder / "log.txt", "a") as log:
    return subprocess.Popen(
      [sys.executable, "-m", "mner_jax.training.run", config, run.folder],
      env={
        "JAX_COMPILATION_CACHE_DIR": compiled,
        # The last line of a traceback is then the error, not a hint of JAX.
        "JAX_TRACEBACK_FILTERING": "off",
        **os.environ,
      },
      stdout=log,
      stderr=subprocess.STDOUT,
      # Ctrl-C of a terminal goes to its whole group: once is enough.
      start_new_session=True,
    )


def _reason(run, code):
  lines = (run.folder / "log.txt").read_bytes().decode(errors="replace")
  lines = lines.splitlines()
  last = next((x for x in reversed(lines) if x.strip()), "")
  how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
  return f"{how}: {last}"


class _Progress:
  """One line when a run begins or ends, with the time that is left."""

  def __init__(self, runs, todo):
    self._todo = list(todo)
    self._count = len(todo)
    self._start = time.monotonic()
    self._seconds = collections.defaultdict(list)
    for run in runs:
      if run.finished and (record := run.read("run.json")):
        self._seconds[run.row].append(record["seconds"])

  def begins(self, run):
    """Says that a run starts."""
    number = self._count - len(self._todo) + 1
    say(
      f"run {number} of {self._count}: {run.row}, seed {run.seed}; log in"
      f" {run.folder / 'log.txt'}"
    )
    self._todo.remove(run)

  def ends(self, run, seconds, failure):
    """Says how a run ended and when the last one may."""
    if failure:
      outcome = f"FAILED ({failure}); the others go on"
    else:
      self._seconds[run.row].append(seconds)
      outcome = f"F1 {run.read('test_metrics.json')['f1']:.4f}"
    elapsed = (time.monotonic() - self._start) / 60
    say(
      f"  {run.row}, seed {run.seed}: {outcome} in {seconds:.0f} s; elapsed"
      f" {elapsed:.1f} min{self._left()}"
    )

  def _left(self):
    known = {row: np.mean(x) for row, x in self._seconds.items() if x}
    if not known or not self._todo:
      return ""
    # A row that has not run yet counts as the mean of those that have.
    mean = np.mean(list(known.values()))
    left = sum(known.get(run.row, mean) for run in self._todo)
    return f", about {left / 60:.0f} min left"


def say(text):
  """A line of progress; standard output is for the table."""
  print(text, file=sys.stderr, flush=True)

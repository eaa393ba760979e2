"""The runs of a table: a child process each, cached and resumable.

A run's folder is `HASH-SEED`; the hash covers its config and its data's
sentences. A folder with `test_metrics.json` is finished and not repeated; any
other run resumes where it stopped. Tables share their runs. What tables need of
a finished run is small (`output.keep`): in results/runs/ it counts as finished,
so that a long table is made in pieces, on any machine.
"""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from etils import epath

from mner_jax import cli
from mner_jax import config as config_lib
from mner_jax.cli import Stopped
from mner_jax.config import UserError
from mner_jax.data import builders, dataset, files
from mner_jax.training import stopping

# A resume may change these fields, and no score depends on them.
_IRRELEVANT = {"seed", *config_lib.RESUMABLE} - {"dtype"}
# Raised whenever the same config computes another result.
_RESULTS = 2
RESULTS = pathlib.Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Run:
  """One training of a row; everything that it writes is in `folder`."""

  row: str
  seed: int
  config: config_lib.Config
  hash: str
  folder: epath.Path

  @property
  def finished(self):
    """Whether its scores are there, and what intervals are made of."""
    names = ("test_predictions.jsonl", "counts.json")
    scored = (self.folder / "test_metrics.json").exists()
    return scored and any((self.folder / name).exists() for name in names)

  def read(self, name):
    """The content of one of its JSON files, or None if there is none."""
    path = self.folder / name
    return json.loads(path.read_text()) if path.exists() else None


def plan(base, rows, seeds, workdir):
  """The Runs of a table, all rows of a seed before the next seed.

  Args:
    base: the Config that all rows share.
    rows: {name: {field: value}}, what each changes in it.
    seeds: numbers.
    workdir: the folder of all tables.
  """
  runs = []
  for seed, name in itertools.product(seeds, rows):
    config = config_lib.replace(base, rows[name] | {"seed": seed})
    hash_ = _hash(config)
    places = [epath.Path(x) / "runs" for x in (RESULTS, workdir)]
    kept, folder = (
      Run(name, seed, config, hash_, place / f"{hash_}-{seed}")
      for place in places
    )
    runs.append(kept if kept.finished else folder)
  return runs


def kept(name):
  """The Runs of a table as they were kept; needs neither data nor weights.

  Args:
    name: of the table and its scale, such as "languages-mini".
  """
  path = RESULTS / f"{name}.json"
  if not path.exists():
    raise UserError(f"--kept: the runs of {name} are not in {RESULTS}")
  runs = []
  for row, found in json.loads(path.read_text()).items():
    for seed in found["seeds"]:
      folder = epath.Path(RESULTS) / "runs" / f"{found['hash']}-{seed}"
      config = cli.read_workdir(folder)
      runs.append(Run(row, seed, config, found["hash"], folder))
  return runs


def _hash(config):
  """Ten characters for what a score depends on, except the seed.

  That is the settings and the sentences. Pictures count by their names, weights
  by the last part of theirs: other ones of the same name are not noticed.
  """
  fields = config_lib.flatten(config)
  fields["data.fingerprint"] = _fingerprint(builders.inputs(config))
  for name in fields:
    if name.endswith(".weights"):  # wherever their folder is
      fields[name] = fields[name].rstrip("/").rpartition("/")[2]
  if not fields["optim.clip_norm"]:
    del fields["optim.clip_norm"]  # which is younger than kept runs
  counted = {k: v for k, v in fields.items() if k not in _IRRELEVANT}
  return files.hash_of([_RESULTS, json.dumps(counted, sort_keys=True)])[:10]


@functools.cache
def _fingerprint(data):
  """Hash of the sentences of all splits of a DataConfig."""
  return dataset.fingerprint(builders.load(data).values())


def execute(runs):
  """Runs those that are not finished; a failure does not stop the others.

  SIGTERM and Ctrl-C are passed on to the running child, which saves and
  exits; a second signal ends it immediately. Then `Stopped` is raised.

  Args:
    runs: the Runs of `plan`.

  Returns:
    {folder: why it failed, one line}.
  """
  # A config may be in a table under two names.
  todo = list({run.folder: run for run in runs if not run.finished}.values())
  say(f"{len(runs)} runs, {len(runs) - len(todo)} of them finished before")
  child, stopped, failures = None, False, {}

  def stop(number, frame):
    nonlocal stopped
    stopped = True
    if child:
      child.terminate()

  with stopping.handled_by(stop):
    for i, run in enumerate(todo, 1):
      name = f"{run.row}, seed {run.seed}"
      say(f"run {i} of {len(todo)}: {name}; log in {run.folder}/log.txt")
      start = time.monotonic()
      child = _start(run)
      if stopped:  # the signal came while the child started
        child.terminate()
      code = child.wait()
      if stopped:
        say("stopped; the same command goes on")
        raise Stopped
      if code or not run.finished:
        failures[run.folder] = _reason(run, code)
        outcome = f"FAILED ({failures[run.folder]}); the others go on"
      else:
        outcome = f"F1 {run.read('test_metrics.json')['f1']:.4f}"
      say(f"  {name}: {outcome} in {time.monotonic() - start:.0f} s")
  return failures


def _start(run):
  run.folder.mkdir(parents=True, exist_ok=True)
  config = run.folder / "experiment.json"
  files.write(config, config_lib.to_json(run.config))
  environment = {
    # The seeds of a row are one program.
    "JAX_COMPILATION_CACHE_DIR": str(run.folder.parent.parent / "compiled"),
    # The last line of a traceback is then the error, not a hint of JAX.
    "JAX_TRACEBACK_FILTERING": "off",
    **os.environ,
  }
  with open(run.folder / "log.txt", "a") as log:
    return subprocess.Popen(
      [sys.executable, "-m", "mner_jax.training.run", config, run.folder],
      env=environment,
      stdout=log,
      stderr=subprocess.STDOUT,
      # A terminal sends Ctrl-C to the whole group: the child must get it once.
      start_new_session=True,
    )


def _reason(run, code):
  log = (run.folder / "log.txt").read_bytes().decode(errors="replace")
  lines = [line for line in log.splitlines() if line.strip()]
  how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
  return f"{how}: {lines[-1] if lines else ''}"


def say(text):
  """Prints a line of progress; standard output is for the table."""
  print(text, file=sys.stderr, flush=True)

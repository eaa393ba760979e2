"""Checkpoints of a run: saved in the background, verified, restored.

  python -m mner_jax.checkpoint verify DIR

Checkpoint k is the state after k updates, in `checkpoints/k`. Two kinds are
kept: the latest two, from which a run goes on, and the best on dev, which is
scored and used. Orbax writes the arrays; `manifest` decides whether a step may
be used. A damaged one is moved to `checkpoints_damaged/k`.
"""

import concurrent.futures
import contextlib
import json
import re
import sys

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from mner_jax import cli
from mner_jax import config as config_lib
from mner_jax.config import UserError
from mner_jax.data import files, manifest
from mner_jax.sharding import from_all_processes, path_name

_KEPT = 2  # latest steps: if one is damaged, there is another
_BUSY = "saving.json"  # lists the steps that are being written or removed
_WAS_BEST = "; it was the best on dev, now the best of the others is"
_FAILED = (
  "cannot be saved (%s); what was saved before is untouched, the same command"
  " goes on from there"
)


class Saver:
  """Saves the checkpoints of a run in the background, one at a time.

  All processes call the same methods in the same order. A step counts once it
  is sealed: if killed before, the run goes on from the step before.
  """

  def __init__(self, workdir):
    """Reads, in process 0, config.json and tokenizer.json of the run."""
    self._folder = _folder(workdir)
    self._origin = manifest.origin(workdir) if not jax.process_index() else {}
    self._pool = concurrent.futures.ThreadPoolExecutor(1)
    self._pending = None

  def save(self, step, state, f1=None):
    """Starts to save a TrainState, with its dev F1 if that was measured.

    The state's buffers may be donated as soon as this returns. Raises a
    UserError if the save before has failed or this one cannot start.
    """
    self.seal()
    path = self._folder / str(step)
    dropped = []
    if jax.process_index() == 0:
      dropped = _dropped(self._folder, step, f1)
      # If killed after this point, these steps may be incomplete: see _clear.
      files.write(self._folder / _BUSY, json.dumps([step, *dropped]))
    with _explained(path, _FAILED):
      saved = ocp.save_checkpointables_async(path, _parts(state))

    def hashes():
      saved.result()
      list(self._folder.iterdir())  # NFS may remember that it was not there
      return manifest.hashes(path, _share())

    entry = {"step": step, "f1": f1, **self._origin}
    self._pending = path, entry, dropped, self._pool.submit(hashes)

  def seal(self, wait=True):
    """Completes the pending save, if there is one, and removes old steps.

    With `wait` False only if all processes have written their share of it.
    Raises a UserError if the save has failed.
    """
    if self._pending is None:
      return
    path, entry, dropped, hashes = self._pending
    if not wait and not all(from_all_processes(hashes.done())):
      return
    self._pending = None
    with _explained(path, _FAILED):
      shares = from_all_processes(hashes.result())
      if jax.process_index() == 0:
        hashed = {name: x for share in shares for name, x in share.items()}
        manifest.save(path, {**entry, "files": hashed})
        for step in dropped:
          # The manifest first: half a step must not pass for a damaged one.
          (self._folder / str(step) / manifest.NAME).unlink(missing_ok=True)
          (self._folder / str(step)).rmtree()
        (self._folder / _BUSY).unlink()

  def close(self):
    """Seals a save that is pending because the run failed after it began."""
    # If only one of several processes failed, the others would not join in.
    if jax.process_count() == 1:
      self.seal()


def latest_step(workdir):
  """Returns the newest step that may be used, or None at a run's start.

  For the run itself: it removes what a killed save left, and moves each step
  that must not be used to `checkpoints_damaged`, in one line that names the
  file. If it was the best on dev, the best of the others takes its place, and
  the line says so. If none may be used, none is moved, since what has changed
  may be a file of the workdir: that is a UserError, not a new start.
  """
  folder = _folder(workdir)
  if jax.process_index() == 0:
    _clear(folder)
  steps = from_all_processes(_steps(folder))[0]
  if not steps:
    return None
  problems = _problems(workdir, steps)
  if all(problems.values()):
    raise UserError(
      f"{folder}: no whole checkpoint is left ({steps[-1]}:"
      f" {problems[steps[-1]]}); restore from a copy what has changed, or start"
      " again in another --workdir"
    )
  if jax.process_index() == 0:
    best = _best(_scores(folder))
    for step in filter(problems.get, steps):
      note = _WAS_BEST if step == best else ""
      _move(folder / str(step), problems[step] + note)
  return max(step for step in steps if not problems[step])


def restore(workdir, step, abstract_state):
  """Returns the TrainState of `step`, placed like `abstract_state`."""
  loaded = _load(_folder(workdir) / str(step), _parts(abstract_state))
  return type(abstract_state)(params=loaded["params"], **loaded["rest"])


def restore_best(workdir, abstract_params):
  """Returns (step, parameters) of a run's checkpoint that is best on dev.

  Raises a UserError if it is damaged: another one would give another result.
  """
  folder = _folder(workdir)
  busy = set(_busy(folder))  # first: a training run may finish one of them now
  scores = _scores(folder)
  # A step without a readable score may have been the best.
  unread = set(_steps(folder)) - set(scores) - busy
  step = from_all_processes(max(unread, default=_best(scores)))[0]
  if step is None:
    raise UserError(
      f"{folder}: no checkpoint was evaluated on dev yet; run train.py to its"
      " first evaluation"
    )
  if problem := _problems(workdir, [step])[step]:
    raise UserError(
      f"{folder / str(step)}: damaged: {problem}; restore it from a copy, or"
      " let the same train.py command go on without it"
    )
  params = {"params": abstract_params}
  return step, _load(folder / str(step), params)["params"]


def initial_params(config, abstract_params):
  """Returns the best parameters of `config.init_from`; dropout may differ."""
  other = cli.read_workdir(config.init_from)
  lines = config_lib.differences(other, config)
  same = re.compile(r"data\.labels|model\.(?!.*dropout: )")
  changed = [x for x in lines if same.match(x)]
  if changed:
    raise UserError(
      f"init_from: {config.init_from} holds another model: {'; '.join(changed)}"
    )
  return restore_best(config.init_from, abstract_params)[1]


def score(workdir, step):
  """Returns the dev F1 of a checkpoint, or None."""
  return _scores(_folder(workdir))[step]


def add_score(workdir, step, f1):
  """Adds the dev F1 of a checkpoint that was saved before it was measured."""
  if jax.process_index() == 0:
    path = _folder(workdir) / str(step)
    manifest.save(path, {**manifest.load(path)[0], "f1": f1})


def arguments(parser):
  """Defines the command's flags."""
  parser.add_argument("action", choices=("verify",))
  parser.add_argument("workdir", metavar="DIR", help="folder of a run")


def main(args):
  """Prints a line per step; raises a UserError if one must not be used."""
  folder = _folder(args.workdir)
  problems = _problems(args.workdir, _steps(folder))
  for step, problem in problems.items():
    f1 = _scores(folder).get(step)
    score = f", dev F1 {f1:.4f}" if f1 is not None else ""
    print(f"{step}: damaged: {problem}" if problem else f"{step}: ok{score}")
  if not problems:
    raise UserError(f"{folder}: no checkpoints")
  if damaged := sum(map(bool, problems.values())):
    raise UserError(f"{folder}: {damaged} damaged")


def check_workdir(workdir, config):
  """Raises a UserError if the workdir is that of a run of another config."""
  path = epath.Path(workdir) / "config.json"
  if path.exists():
    changed = config_lib.differences(cli.read_workdir(workdir), config)
    if changed:
      raise UserError(
        f"{path}: this workdir is of another config ({'; '.join(changed)});"
        " choose another --workdir, or the same settings to go on"
      )


def _folder(workdir):
  """Returns the folder of the steps, absolute, as Orbax wants it."""
  path = epath.Path(workdir)
  # `resolve` takes gs:// for a folder of the working directory.
  return (path if files.in_bucket(path) else path.resolve()) / "checkpoints"


def _parts(state):
  """Splits a TrainState: evaluation reads the parameters alone."""
  rest = state._asdict()
  return {"params": rest.pop("params"), "rest": rest}


def _steps(folder):
  # `glob` takes a folder that one may not read for an empty one.
  names = [p.name for p in folder.iterdir()] if folder.exists() else []
  return sorted(int(name) for name in names if name.isdecimal())


def _problems(workdir, steps):
  """Returns {step: what is wrong with it, or ""}; the same on every process.

  Each process hashes a share of the files. They agree here because restoring
  is collective: if only one found the damage, the others would wait for it.
  """
  folder, origin = _folder(workdir), manifest.origin(workdir)
  found = [manifest.problem(folder / str(s), origin, _share()) for s in steps]
  columns = zip(*from_all_processes(found), strict=True)
  return {
    step: next(filter(None, column), "")
    for step, column in zip(steps, columns, strict=True)
  }


def _share():
  return jax.process_index(), jax.process_count()


def _scores(folder):
  """Returns {step: dev F1 or None} of the steps with a readable manifest."""
  found = {step: manifest.load(folder / str(step)) for step in _steps(folder)}
  return {step: entry["f1"] for step, (entry, _) in found.items() if entry}


def _best(scores):
  """Returns the step with the highest F1, the later one of equals, or None."""
  scored = [(f1, step) for step, f1 in scores.items() if f1 is not None]
  return max(scored)[1] if scored else None


def _dropped(folder, step, f1):
  """Lists the steps that need not be kept once `step` is sealed."""
  scores = {**_scores(folder), step: f1}
  kept = {*sorted(scores)[-_KEPT:], _best(scores)}
  return [step for step in scores if step not in kept]


def _busy(folder):
  try:
    return json.loads((folder / _BUSY).read_text())
  except (OSError, ValueError):
    return []


def _clear(folder):
  """Removes what a killed save or removal left."""
  for path in folder.glob("*.orbax-checkpoint-tmp*"):
    path.rmtree()
  for step in _busy(folder):
    path = folder / str(step)
    if path.exists() and not (path / manifest.NAME).exists():
      print(f"{path}: was not finished; removed", file=sys.stderr)
      path.rmtree()
  (folder / _BUSY).unlink(missing_ok=True)


def _move(path, problem):
  """Moves a damaged step aside, beside those that were moved before."""
  target = path.parent.with_name("checkpoints_damaged") / path.name
  # A bucket has no empty folder to move it to.
  files.write(
    target.parent / "README", "Damaged checkpoints; nothing reads them.\n"
  )
  while target.exists():
    target = target.with_name(f"{target.name}_")
  path.rename(target)
  print(f"{path}: damaged: {problem}; moved to {target}", file=sys.stderr)


@contextlib.contextmanager
def _explained(path, text):
  """Turns what Orbax, tensorstore and the disk raise into a UserError."""
  try:
    yield
  except Exception as error:
    reason = str(error).strip() or type(error).__name__
    # tensorstore writes a page around the system's message.
    found = re.search(r"([^:\[\]]+) \[os_error_code", reason)
    reason = found[1].strip() if found else reason.splitlines()[0][:200]
    raise UserError(f"{path}: {text % reason}") from None


def _load(path, parts):
  with _explained(path, "whole, but not of this model (%s)"):
    stored = ocp.checkpointables_metadata(path).metadata
    check_equal(_shapes(stored, parts), _shapes(parts, parts))
  with _explained(path, "cannot be read (%s)"):  # also for want of memory
    return ocp.load_checkpointables(path, parts)


def check_equal(stored, wanted):
  """Raises a ValueError at the first array that differs, of {name: shape}.

  In place of a shape there may be a text that describes the array.
  """
  for name in sorted(stored.keys() | wanted):
    saved, needed = (x.get(name, "missing") for x in (stored, wanted))
    if saved != needed:
      raise ValueError(f"{name} is {saved}, in the model {needed}")


def _shapes(tree, parts):
  """Returns {name: shape} of the arrays of those parts of a checkpoint."""
  leaves = jax.tree_util.tree_leaves_with_path({k: tree[k] for k in parts})
  return {path_name(path): x.shape for path, x in leaves}


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__)

"""Checkpoints of a run, through Orbax: saved, verified, restored.

  python -m mner_jax.checkpoint verify DIR

Checkpoint k is the state after k updates, in `checkpoints/k`. Two kinds are
kept: the latest, from which a run goes on, and the best on dev, which is
scored and used. A damaged one goes to `checkpoints_damaged/k`.
"""

import json
import re
import sys

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from mner_jax import cli, files, integrity
from mner_jax import config as config_lib
from mner_jax.config import UserError

_KEPT = 2  # latest ones: should one be damaged, the other is there
_NONE, _FAILED = -1, -2  # in the place of a step, between processes


def save(workdir, step, state, f1=None):
  """Saves `state`, a TrainState, with its dev F1 where one was measured."""
  folder = _folder(workdir) / str(step)
  # Parameters apart: evaluation reads them without the optimizer's state.
  state = state._asdict()
  params = state.pop("params")
  main = jax.process_index() == 0
  if main:
    dropped = _dropped(workdir, step, f1)
    # Who is killed from here on left these steps in pieces, see `recover`.
    _mark(workdir, [step, *dropped])
  try:
    ocp.save_checkpointables(folder, {"params": params, "rest": state})
  except Exception as error:  # Orbax, tensorstore and the disk raise their own
    raise UserError(
      f"{folder}: cannot be saved ({_reason(error)}); what was saved before is"
      " untouched, the same command goes on from there"
    ) from None
  if main:
    try:
      integrity.write_manifest(folder, f1)
      for old in dropped:
        _remove(_folder(workdir) / str(old))
      (_folder(workdir) / _MARK).unlink()
    except OSError as error:
      raise UserError(f"{folder}: cannot be saved ({_reason(error)})") from None


def add_score(workdir, step, f1):
  """Notes the dev F1 of a checkpoint that was saved before it had one."""
  if jax.process_index() == 0:
    integrity.add_score(_folder(workdir) / str(step), f1)


def score(workdir, step):
  """The dev F1 of a checkpoint, or None."""
  return integrity.read_manifest(_folder(workdir) / str(step))["f1"]


def restore(workdir, step, abstract_state):
  """The TrainState of `step`, laid out as `abstract_state` says."""
  rest = abstract_state._asdict()
  params = rest.pop("params")
  loaded = _load(workdir, step, {"params": params, "rest": rest})
  return type(abstract_state)(params=loaded["params"], **loaded["rest"])


def latest_step(workdir):
  """Updates of the newest whole checkpoint, or None at a run's start.

  For the run itself, which puts its checkpoints in order here. What a killed
  save or removal left is cleared away. A damaged checkpoint is moved aside,
  with one line that names the file, and the one before is taken; if none is
  left, that is an error, not a new start. The best on dev is verified too: if
  it is lost, the best of those that are left and of those to come stands in
  its place, and the line says so.
  """
  return _on_main(lambda: _recover(epath.Path(workdir)))


def _recover(workdir):
  folder, aside = _folder(workdir), workdir / "checkpoints_damaged"
  _clear(folder)
  latest, lost = None, []
  for step in reversed(_steps(folder)):
    try:
      integrity.verify(folder / str(step))
      latest = step
      break
    except integrity.Damaged as error:
      lost.append(f"{step}/{error}")
      _move(folder, step, aside, error)
  if latest is None:
    if lost or (aside.is_dir() and _steps(aside)):
      raise UserError(
        f"{folder}: no whole checkpoint is left"
        + (f" ({'; '.join(lost)})" if lost else "")
        + f"; put an undamaged copy of one of {aside} back there, or start"
        " again in another --workdir"
      )
    return None
  while True:
    scores, broken = _scores(folder)
    for step, error in broken.items():
      _move(folder, step, aside, error)
    best = _best(scores)
    if best in (None, latest):
      return latest
    try:
      integrity.verify(folder / str(best))
      return latest
    except integrity.Damaged as error:
      _move(
        folder, best, aside, error,
        f"; it was the best on dev (F1 {scores[best]:.4f}), now the best of"
        " the others is",
      )  # fmt: skip


def restore_best(workdir, abstract_params):
  """(step, parameters) of the best checkpoint on dev of a run.

  A damaged one is an error: another one would be another result.
  """

  def find():
    folder = _folder(workdir)
    if not folder.is_dir():
      raise UserError(f"{folder}: not found; run train.py first")
    scores, broken = _scores(folder)
    step = _best(scores)
    try:
      # A step without a readable score may have been the best.
      for unread, error in broken.items():
        if unread not in _marked(folder):
          step = unread
          raise error
      if step is not None:
        integrity.verify(folder / str(step))
    except integrity.Damaged as error:
      raise UserError(
        f"{folder / str(step)}: damaged: {error}; bring it back from a copy,"
        " or let the same train.py command move it aside and go on"
      ) from None
    if step is None:
      raise UserError(
        f"{folder}: none was evaluated on dev yet; let train.py run to its"
        " first evaluation"
      )
    return step

  step = _on_main(find)
  return step, _load(workdir, step, {"params": abstract_params})["params"]


def initial_params(config, abstract_params):
  """The best parameters of the run `config.init_from`, of the same model."""
  other = cli.read_workdir(config.init_from)
  changed = [
    line
    for line in config_lib.differences(other, config)
    if line.startswith(("model.", "data.labels"))
  ]
  if changed:
    raise UserError(
      f"init_from: {config.init_from} holds another model: {'; '.join(changed)}"
    )
  return restore_best(config.init_from, abstract_params)[1]


def claim_workdir(workdir, config):
  """Writes `config.json`, or checks that the one there is of this config."""
  path = epath.Path(workdir) / "config.json"
  if path.exists():
    changed = config_lib.differences(cli.read_workdir(workdir), config)
    if changed:
      raise UserError(
        f"{path}: this workdir is of another config ({'; '.join(changed)});"
        " choose another --workdir, or the same settings to go on"
      )
  if jax.process_index() == 0:
    files.write(path, config_lib.to_json(config))


_MARK = "saving.json"  # the steps that are being written or removed


def _folder(workdir):
  return files.absolute(workdir) / "checkpoints"


def _steps(folder):
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())


def _scores(folder):
  """({step: F1 or None}, {step: Damaged}) by the manifests."""
  scores, broken = {}, {}
  for step in _steps(folder):
    try:
      scores[step] = integrity.read_manifest(folder / str(step))["f1"]
    except integrity.Damaged as error:
      broken[step] = error
  return scores, broken


def _best(scores):
  """The step with the highest F1; the later one of two."""
  scored = [(f1, step) for step, f1 in scores.items() if f1 is not None]
  return max(scored)[1] if scored else None


def _dropped(workdir, step, f1):
  """The steps that need not be kept once `step` is there."""
  scores = {**_scores(_folder(workdir))[0], step: f1}
  kept = {*sorted(scores)[-_KEPT:], _best(scores)}
  return [step for step in scores if step not in kept]


def _mark(workdir, steps):
  files.write(_folder(workdir) / _MARK, json.dumps(steps))


def _marked(folder):
  try:
    return set(json.loads((folder / _MARK).read_text()))
  except (OSError, ValueError, TypeError):
    return set()


def _clear(folder):
  """Removes what a killed save or removal left."""
  if not folder.is_dir():
    return
  for path in folder.iterdir():
    if ".orbax-checkpoint-tmp" in path.name:
      path.rmtree()
  for step in _marked(folder):
    path = folder / str(step)
    if path.is_dir() and not (path / integrity.MANIFEST).exists():
      _say(f"{path}: was not finished; removed")
      path.rmtree()
  (folder / _MARK).unlink(missing_ok=True)


def _remove(path):
  # The manifest first: half a step must not pass for a damaged one.
  (path / integrity.MANIFEST).unlink(missing_ok=True)
  path.rmtree()


def _move(folder, step, aside, error, note=""):
  aside.mkdir(parents=True, exist_ok=True)
  taken, target = 0, aside / str(step)
  while target.exists():
    taken += 1
    target = aside / f"{step}.{taken}"
  (folder / str(step)).rename(target)
  _say(f"{folder / str(step)}: damaged: {error}; moved to {target}{note}")


def _say(text):
  print(text, file=sys.stderr)


def _reason(error):
  text = str(error).strip() or type(error).__name__
  # tensorstore writes a page around what the system said.
  if found := re.search(r"([^:\[\]]+) \[os_error_code", text):
    return found[1].strip()
  return text.splitlines()[0][:200]


def _load(workdir, step, abstract):
  folder = _folder(workdir) / str(step)
  try:
    return ocp.load_checkpointables(folder, abstract)
  except Exception as error:  # Orbax, tensorstore and the disk raise their own
    raise UserError(
      f"{folder}: whole, but not of this model ({_reason(error)})"
    ) from None


def _on_main(find):
  """What `find` returns on process 0, a step or None, on every process."""
  if jax.process_count() == 1:
    return find()
  step, failure = _NONE, None
  if jax.process_index() == 0:
    try:
      step = find()
      step = _NONE if step is None else step
    except UserError as error:
      step, failure = _FAILED, error
  step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
  if step == _FAILED:
    raise failure or UserError("process 0 found no checkpoint to use")
  return None if step == _NONE else step


def arguments(parser):
  """Defines the command's flags."""
  parser.add_argument("action", choices=("verify",))
  parser.add_argument("workdir", metavar="DIR", help="folder of a run")


def main(args):
  """Prints one line a step; a UserError if one is not whole."""
  folder = _folder(args.workdir)
  if not _steps(folder):
    raise UserError(f"{folder}: no checkpoints")
  damaged = 0
  for step in _steps(folder):
    try:
      f1 = integrity.verify(folder / str(step))["f1"]
      print(f"{step}: ok" + (f", dev F1 {f1:.4f}" if f1 is not None else ""))
    except integrity.Damaged as error:
      damaged += 1
      print(f"{step}: damaged: {error}")
  if damaged:
    raise UserError(f"{folder}: {damaged} damaged")


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__)

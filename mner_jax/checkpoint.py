"""Checkpoints of a run, through Orbax.

Checkpoint k is the state after k updates. Two kinds are kept: the latest,
from which a run goes on, and the best on dev, which is scored and used.
"""

import contextlib

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from mner_jax import config as config_lib
from mner_jax.config import UserError

_KEPT = 2  # latest ones: should one be damaged, the other is there


@contextlib.contextmanager
def open_checkpoints(workdir, *, writer=False):
  """The run's checkpointer, closed at the end.

  Only the `writer`, the run itself, clears away what a killed save left.
  """
  policies = ocp.training.preservation_policies
  checkpointer = ocp.training.Checkpointer(
    epath.Path(workdir).resolve() / "checkpoints",
    # The loop decides when; without this Orbax saves continuously.
    save_decision_policy=(
      ocp.training.save_decision_policies.FixedIntervalPolicy(1)
    ),
    preservation_policy=policies.AnyPreservationPolicy(
      [
        policies.LatestN(_KEPT),
        policies.BestN(
          get_metric_fn=lambda metrics: metrics["f1"],
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
      ]
    ),
    cleanup_tmp_directories=writer,
  )
  try:
    yield checkpointer
  finally:
    checkpointer.close()


def save(checkpointer, step, state, f1=None):
  """Saves `state`, a TrainState, with its dev F1 where one was measured."""
  # Parameters apart: evaluation reads them without the optimizer's state.
  state = state._asdict()
  params = state.pop("params")
  checkpointer.save_checkpointables(
    step,
    {"params": params, "rest": state},
    metrics=None if f1 is None else {"f1": f1},
    force=True,
  )


def restore(checkpointer, step, abstract_state):
  """The TrainState of `step`, laid out as `abstract_state` says."""
  rest = abstract_state._asdict()
  params = rest.pop("params")
  loaded = _load(checkpointer, step, {"params": params, "rest": rest})
  return type(abstract_state)(params=loaded["params"], **loaded["rest"])


def _load(checkpointer, step, abstract):
  try:
    return checkpointer.load_checkpointables(step, abstract)
  except Exception as error:  # Orbax, tensorstore and the disk raise their own
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(
      f"{checkpointer.directory / str(step)}: damaged, or of another model"
      f" ({reason[:200]}); remove the folder to use the one before"
    ) from None


def latest_step(checkpointer):
  """Updates of the newest checkpoint, or None."""
  latest = checkpointer.latest
  return None if latest is None else latest.step


def best_step(checkpointer):
  """Updates of the checkpoint with the best dev F1; the later one of two."""
  scored = [
    (c.metrics["f1"], c.step) for c in checkpointer.checkpoints if c.metrics
  ]
  return max(scored)[1] if scored else None


def restore_best(workdir, abstract_params):
  """(step, parameters) of the best checkpoint on dev of a run."""
  if not (epath.Path(workdir) / "checkpoints").is_dir():
    raise UserError(f"{workdir}/checkpoints: not found; run train.py first")
  with open_checkpoints(workdir) as checkpointer:
    step = best_step(checkpointer)
    if step is None:
      raise UserError(
        f"{workdir}/checkpoints: none was evaluated on dev yet; let train.py"
        " run to its first evaluation"
      )
    loaded = _load(checkpointer, step, {"params": abstract_params})
  return step, loaded["params"]


def initial_params(config, abstract_params):
  """The best parameters of the run `config.init_from`, of the same model."""
  other = config_lib.read_workdir(config.init_from)
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
    changed = config_lib.differences(config_lib.read_workdir(workdir), config)
    if changed:
      raise UserError(
        f"{path}: this workdir is of another config ({'; '.join(changed)});"
        " choose another --workdir, or the same settings to go on"
      )
  if jax.process_index() == 0:
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(config_lib.to_json(config))
    except OSError as error:
      raise UserError(f"{path}: cannot be written ({error})") from None

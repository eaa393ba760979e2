"""Trains a model: 2M-NER on the embedded synthetic corpus unless told else.

  python train.py --config=mner_jax/configs/NAME.py --config.data.path=DIR

The same command goes on where a run stood. At the end the test split is
scored with the checkpoint that is best on dev.
"""

import pathlib

import jax
from absl import flags
from ml_collections import config_flags

import mner_jax
from mner_jax.cli import launch
from mner_jax.config import UserError, from_config_dict
from mner_jax.evaluation import evaluate as evaluation
from mner_jax.training import loop as training
from mner_jax.training import stopping

_CONFIGS = pathlib.Path(mner_jax.__file__).parent / "configs"

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  str(_CONFIGS / "synthetic.py"),
  "The experiment's file; --config.a.b=value changes a field of it.",
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run; default: runs/<name of the config>."
)
_STOP_AT = flags.DEFINE_integer(
  "stop_at", None, "Save and leave after this many updates.", lower_bound=1
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  False,
  "One of several processes (found on Cloud TPU, Slurm, Kubernetes).",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "One of several processes elsewhere: HOST:PORT of process 0, with",
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many, and")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "which, from 0.")


def _join_processes():
  given = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  alone = given == (None, None, None)
  if alone and not _DISTRIBUTED.value:
    return
  if not alone and None in given:
    raise UserError(
      "--coordinator, --num_processes and --process_id go together"
    )
  # It would take SIGTERM from the run, see mner_jax/training/stopping.py.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(*given)
  except (ValueError, RuntimeError) as error:
    reason = (str(error).strip() or "no reason given").splitlines()[0]
    raise UserError(f"cannot join the other processes ({reason})") from None


def main():
  _join_processes()
  config = from_config_dict(_CONFIG.value)
  config_file = flags.FLAGS["config"].config_filename
  workdir = _WORKDIR.value or f"runs/{pathlib.Path(config_file).stem}"
  trained = training.train(config, workdir, _STOP_AT.value)
  if trained is not None:
    with stopping.exit_when_asked():
      scores = evaluation.evaluate(trained, workdir, "test").scores
      evaluation.write(scores, workdir, "test")
    if jax.process_index() == 0:
      print(evaluation.table(scores))


if __name__ == "__main__":
  launch(main)

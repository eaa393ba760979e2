"""One run, from its start to its test scores.

  python -m mner_jax.training.run CONFIG.json WORKDIR

is train.py with a config in JSON, as the tables start it, and retrieval.
"""

import contextlib
import errno
import fcntl
import sys

import jax
from etils import epath

from mner_jax import cli
from mner_jax.config import UserError, from_dict
from mner_jax.data import files
from mner_jax.evaluation import evaluate, record, retrieval
from mner_jax.training import compiling, loop, stopping


@contextlib.contextmanager
def lock(workdir):
  """Keeps other runs out of `workdir` for as long as this process lives.

  The system releases the lock however the process ends. Process 0 holds it for
  all. Bucket stores such as gs:// have none, nor have some cluster disks: there
  it is up to the user to start one run only.
  """
  if files.in_bucket(workdir) or jax.process_index():
    yield
    return
  path = workdir / "lock"
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, "w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f"{workdir}: another process trains in it; wait for its end or choose"
        " another --workdir"
      ) from None
    except OSError as error:
      if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
        raise
      print(f"{path}: this disk has no locks", file=sys.stderr)
    yield


def run(config, workdir, stop_at=None, profile=(0, 0), retrieve=False):
  """Trains, or resumes, and scores test once training has ended.

  Leaves in `workdir`, beside what `loop.train` writes: `run.json`, the cost
  over its starts and the machine; `test_predictions.jsonl`; with `retrieve`
  and a model that aligns, `test_retrieval.json`; and `test_metrics.json`,
  which comes last and means finished.
  """
  compiling.reuse_memory()
  workdir = epath.Path(workdir)
  with record.accounting(workdir), lock(workdir):
    trained = loop.train(config, workdir, stop_at, profile)
    if trained is None:
      return
    with stopping.at_once():
      evaluated = evaluate.evaluate(trained, workdir, "test")
      record.write_predictions(evaluated, workdir)
      if retrieve and (recalls := retrieval.score(evaluated)):
        evaluate.write(recalls, workdir / "test_retrieval.json")
  evaluate.write(evaluated.scores, workdir / "test_metrics.json")
  if jax.process_index() == 0:
    print(evaluate.table(evaluated.scores))


def arguments(parser):
  """Defines the command's flags."""
  parser.add_argument("config", help="the experiment, as JSON")
  parser.add_argument("workdir", help="folder of the run")


def main(args):
  """Runs the experiment."""
  compiling.keep()
  tree = files.read_json(epath.Path(args.config))
  run(from_dict(tree), args.workdir, retrieve=True)


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__)

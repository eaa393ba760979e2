"""Trains a model: 2M-NER on the embedded synthetic corpus by default.

  python train.py --config=mner_jax/configs/NAME.py --config.data.path=DIR

The same command resumes a run that was stopped. At the end the test split is
scored with the checkpoint that is best on dev.
"""

import pathlib

import jax

import mner_jax
from mner_jax import cli
from mner_jax.config import UserError
from mner_jax.training import compiling, run

_DEFAULT = pathlib.Path(mner_jax.__file__).parent / "configs" / "synthetic.py"


def arguments(parser):
  add = parser.add_argument
  config = "the experiment; --config.a.b=VALUE changes a setting of it"
  config += " (default: mner_jax/configs/synthetic.py)"
  add("--config", metavar="FILE", default=_DEFAULT, help=config)
  add("--workdir", help="folder of the run (default: runs/<config's name>)")
  add("--stop_at", type=cli.count, metavar="STEP", help="save and leave then")
  found = "one of several processes, found on Cloud TPU, Slurm, Kubernetes"
  add("--distributed", action="store_true", help=found)
  listens = "one of several processes elsewhere: where process 0 listens, with"
  add("--coordinator", metavar="HOST:PORT", help=listens)
  add("--num_processes", type=int, help="how many processes there are, and")
  add("--process_id", type=int, help="which of them this is, from 0")
  kept = "keeps compiled programs for the next start; '' = nowhere (default:"
  kept += " $JAX_COMPILATION_CACHE_DIR, or, of one process, ~/.cache/mner_jax)"
  add("--compilation_cache", metavar="DIR", help=kept)
  trace = "write a trace of these updates for xprof or TensorBoard to the"
  trace += " workdir's plugins/profile"
  updates = {"type": _range, "default": (0, 0), "metavar": "FIRST:LAST"}
  add("--profile", **updates, help=trace)


def _range(text):
  first, last = map(int, text.split(":"))
  if not 0 < first <= last:
    raise ValueError
  return first, last


def _join_processes(args):
  given = (args.coordinator, args.num_processes, args.process_id)
  if given == (None, None, None) and not args.distributed:
    return
  # It would take SIGTERM from the run, see mner_jax/training/stopping.py.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(*given)
  except (ValueError, RuntimeError) as error:
    reason = (str(error).strip() or "no reason given").splitlines()[0]
    raise UserError(f"cannot join the other processes ({reason})") from None


def main(args):
  _join_processes(args)
  compiling.keep(args.compilation_cache)
  config = cli.override(cli.load(args.config), args.overrides)
  run.run(
    config,
    args.workdir or f"runs/{pathlib.Path(args.config).stem}",
    args.stop_at,
    args.profile,
  )


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__, overrides=True)

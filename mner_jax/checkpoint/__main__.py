"""Verifies the checkpoints of a run.

python -m mner_jax.checkpoint verify DIR
"""

from mner_jax import checkpoint, cli


def arguments(parser):
  """Defines the command's flags."""
  parser.add_argument("action", choices=("verify",))
  parser.add_argument("workdir", metavar="DIR", help="folder of a run")


def main(args):
  """Prints a line per step; raises a UserError if one may not be used."""
  checkpoint.verify(args.workdir)


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__)

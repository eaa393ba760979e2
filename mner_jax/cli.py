"""How every command starts: its flags, and one line for bad input."""

import dataclasses
import os
import re
import signal
import sys

import ml_collections
from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

from mner_jax.config import UserError, read_workdir


def launch(main, *, config_from_workdir=False, arguments=False):
  """Parses the flags, runs `main()`; a UserError is one line, exit code 2.

  With `config_from_workdir` the flag `--config` starts from the
  `config.json` of `--workdir` instead of from an experiment's file. With
  `arguments`, `main` takes those that are no flags.
  """

  def parse(argv):
    try:
      if config_from_workdir:
        _define_workdir_config(argv)
      rest = flags.FLAGS(argv)
      if not config_from_workdir and "config" in flags.FLAGS:
        _check_config_file(flags.FLAGS["config"].config_filename)
    except Exception as error:  # a config file may raise anything
      _exit(_first_line(error))
    if len(rest) > 1 and not arguments:
      _exit(f"unexpected argument {rest[1]!r}; flags are written --name=value")
    return rest

  def run(argv):
    # TFDS and Orbax tell of every file they touch, and of an error before they
    # raise it.
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.FATAL)
    try:
      main(*argv[1:])
      sys.stdout.flush()
    except UserError as error:
      _exit(str(error))
    except BrokenPipeError:  # as of `| head`
      # Else Python flushes at the end, and says so again.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)
    except KeyboardInterrupt:
      # The shell must see the signal, to end a script's loop too.
      print("interrupted", file=sys.stderr, flush=True)
      signal.signal(signal.SIGINT, signal.SIG_DFL)
      os.kill(os.getpid(), signal.SIGINT)

  app.run(run, flags_parser=parse)


def _define_workdir_config(argv):
  found = re.search(r"(?:^|\0)--?workdir[=\0]([^\0]+)", "\0".join(argv[1:]))
  if found:
    config = dataclasses.asdict(read_workdir(found[1]))
    config_flags.DEFINE_config_dict(
      "config",
      ml_collections.ConfigDict(config),
      "Overrides of the run's config, --config.a.b=value.",
      sys_argv=argv,
    )


def _check_config_file(path):
  # The library tells of a missing file only where its fields are used.
  if not epath.Path(path).is_file():
    raise UserError(f"--config: {path} is not a file")


def _first_line(error):
  """The line of an exception, of ours or of the flag libraries, to show."""
  text = str(error).strip() or type(error).__name__
  if isinstance(error, UserError | flags.Error):
    return text.splitlines()[0]
  if isinstance(error, FileNotFoundError | IsADirectoryError):
    return f"{error.filename}: {error.strerror}"
  # ml_collections' word for a setting that is none: a KeyError, as a rule in
  # an AttributeError, whose text is the quoted name and at times a guess.
  wrapped = isinstance(error, AttributeError) and error.args
  inner = error.args[0] if wrapped else error
  name = inner.args[0] if isinstance(inner, KeyError) and inner.args else ""
  if found := re.match(r"'(.+)'(?:\nDid you mean \"(.+?)\")?", str(name)):
    guess = f"; did you mean {found[2]!r}?" if found[2] else ""
    return f"--config: there is no setting {found[1]!r}{guess}"
  return f"{type(error).__name__}: {text.splitlines()[0]}"


def _exit(message):
  print(f"{sys.argv[0]}: error: {message}", file=sys.stderr)
  sys.exit(2)

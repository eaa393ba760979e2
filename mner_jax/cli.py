"""How every command starts: its flags, its config, one line for bad input."""

import argparse
import ast
import json
import logging
import os
import runpy
import signal
import sys
import traceback

from etils import epath

from mner_jax import config as config_lib
from mner_jax.config import Config, UserError

_OLD_FORM = (
  "get_config() must return a mner_jax.config.Config: an older file's"
  ' `config.a.b = 1` is now `return replace(Config(), {"a.b": 1})`'
)


class _Parser(argparse.ArgumentParser):
  def error(self, message):
    """Raises, where argparse would print its usage too."""
    raise UserError(message)


def launch(main, arguments, doc, *, overrides=False):
  """Runs a command; bad input is one line on stderr and exit code 2.

  Args:
    main: function of the argparse.Namespace.
    arguments: function that adds the command's flags to a parser.
    doc: the command's description, of `--help`.
    overrides: whether `--config.a.b=value` is accepted; `main` finds them in
      `args.overrides`, {"a.b": text}.
  """
  # TFDS and Orbax log every file they touch, and errors before raising them.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  module = sys.modules["__main__"].__spec__
  parser = _Parser(
    prog=f"python -m {module.name.removesuffix('.__main__')}"
    if module
    else None,
    description=doc,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  arguments(parser)
  try:
    argv, texts = _take_overrides(sys.argv[1:])
    if texts and not overrides:
      raise UserError("this command takes no --config.a.b=value")
    main(parser.parse_args(argv, argparse.Namespace(overrides=texts)))
    sys.stdout.flush()
  except UserError as error:
    _exit(parser, str(error))
  except BrokenPipeError:  # as of `| head`
    # Otherwise Python flushes at exit and reports the error again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
  except OSError as error:
    path = f"{error.filename}: " if error.filename else ""
    _exit(parser, f"{path}{error.strerror or error}")
  except KeyboardInterrupt:
    # The shell must see the signal, to end a script's loop too.
    print("interrupted", file=sys.stderr, flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _take_overrides(argv):
  """Splits (other arguments, {"a.b": text}) of `--config.a.b=text` or ` text`."""
  rest, texts = [], {}
  words = iter(argv)
  for word in words:
    if word.startswith("--config."):
      name, equals, text = word.removeprefix("--config.").partition("=")
      texts[name] = text if equals else next(words, None)
      if texts[name] is None:
        raise UserError(f"{word} has no value")
    else:
      rest.append(word)
  return rest, texts


def _exit(parser, message):
  print(f"{parser.prog}: error: {message}", file=sys.stderr)
  sys.exit(2)


def override(config, texts):
  """Returns `config` with {"a.b": text} changed.

  A text is read as a Python literal, such as 3e-5, True or ('en', 'de'), but
  for fields that are strings.
  """
  known = config_lib.flatten(config)
  fields = dict(texts)
  for name, text in texts.items():
    if not isinstance(known.get(name), str):
      try:
        fields[name] = ast.literal_eval(text)
      except (ValueError, SyntaxError):
        fields[name] = {"true": True, "false": False}.get(text, text)
  return config_lib.replace(config, fields)


def load(path):
  """Returns the Config of a config file; a UserError names file and line."""
  try:
    config = runpy.run_path(str(path))["get_config"]()
  except OSError:
    raise
  except Exception as error:  # the file's own code may raise anything
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == str(path)]
    line = getattr(error, "lineno", None) or (lines or [1])[-1]
    old = isinstance(error, ImportError | AttributeError)
    raise UserError(
      f"--config: {path}:{line}: {type(error).__name__}: {error}"
      + (f"; {_OLD_FORM}" if old else "")
    ) from None
  if not isinstance(config, Config):
    raise UserError(f"--config: {path}: {type(config).__name__}: {_OLD_FORM}")
  return config


def read_workdir(workdir):
  """Returns the Config that a workdir was trained with."""
  path = epath.Path(workdir) / "config.json"
  try:
    return config_lib.from_dict(json.loads(path.read_text()))
  except FileNotFoundError:
    raise UserError(
      f"{path}: not found; is {workdir} the --workdir of a train.py run?"
    ) from None
  except ValueError as error:
    raise UserError(f"{path}: not valid JSON ({error})") from None

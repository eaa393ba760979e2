"""How every command starts: its flags, its config, one line for bad input."""

import argparse
import ast
import logging
import os
import re
import runpy
import signal
import sys
import traceback
import warnings

from etils import epath

from mner_jax import config as config_lib
from mner_jax.config import Config, UserError
from mner_jax.data import files

EXIT_STOPPED = 75  # "temporary failure, try again": everything is saved

# What TFDS and Orbax have warned of; TFDS does so at every build.
_warned = {
  "Using custom data configuration: %s",  # its name is ours
  "Variant folder %s has no %s",  # it is new
}


class Stopped(BaseException):
  """A signal asked to stop: exit code EXIT_STOPPED.

  Like KeyboardInterrupt, it is not for an `except Exception` in a library.
  """


class _Parser(argparse.ArgumentParser):
  def error(self, message):
    """Exits with one line; argparse would print its usage, too."""
    self.exit(2, f"{self.prog}: error: {message}\n")


def output(text):
  """The type of --output: what cannot be written is refused before the work."""
  folder = os.path.dirname(text) or "."
  # A device such as /dev/null would become a file.
  fits = os.path.isfile(text) or not os.path.exists(text)
  fits = fits and os.path.isdir(folder) and os.access(folder, os.W_OK)
  if text in ("", "-") or "://" not in text and not fits:
    raise argparse.ArgumentTypeError(f"{text} is not a file one can write")
  return text


def count(text):
  """The type of a flag that is a whole number above 0."""
  if int(text) < 1:
    raise ValueError
  return int(text)


def _is_news(record):
  """Whether a library's message is to be seen: a warning, for the first time.

  Errors are raised too; Orbax would print a page beforehand.
  """
  news = record.levelno == logging.WARNING and record.msg not in _warned
  _warned.add(record.msg)
  return news


def launch(main, arguments, doc, *, overrides=False):
  """Runs a command; bad input is one line on stderr and exit code 2.

  Args:
    main: function of the argparse.Namespace.
    arguments: function that adds the command's flags to a parser.
    doc: the command's description, of `--help`.
    overrides: whether `--config.a.b=value` is accepted; `main` finds them in
      `args.overrides`, {"a.b": text}.
  """
  absl = logging.getLogger("absl")  # of TFDS and Orbax
  absl.setLevel(logging.WARNING)
  absl.addFilter(_is_news)
  # Our own limit of pixels replaces Pillow's; odd EXIF data is no news.
  warnings.filterwarnings("ignore", module=r"PIL\.")
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
    args = parser.parse_args(argv, argparse.Namespace(overrides=texts))
    if getattr(args, "workdir", None) == "":  # it would be this folder
      raise UserError("--workdir is empty")
    main(args)
    sys.stdout.flush()
  except UserError as error:
    parser.error(str(error))
  except ImportError as error:  # of what a flag, field or gs:// needs
    parser.error(f"{error}: a library is not installed")
  except Stopped:
    sys.exit(EXIT_STOPPED)
  except OSError as error:
    path = error.filename
    try:
      sys.stdout.flush()
    except OSError:
      path = "standard output"
      # Otherwise Python flushes at exit and reports the error again.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # as of `| head`
      sys.exit(1)
    parser.error(f"{path}: " * bool(path) + (error.strerror or str(error)))
  except (MemoryError, RuntimeError) as error:  # JAX raises the second
    names = "RESOURCE_EXHAUSTED|[Oo]ut of memory|MemoryError"
    if not re.search(names, repr(error)):
      raise
    parser.error(
      "out of memory: set model.text.remat, model.vit.remat or, in another"
      " --workdir, a lower train.batch_size or a higher train.accumulate",
    )
  except KeyboardInterrupt:
    # The shell must see the signal, to end a script's loop too.
    print("interrupted", file=sys.stderr, flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _take_overrides(argv):
  """Splits into other arguments and, of `--config.a.b=text`, {"a.b": text}."""
  rest, texts = [], {}
  words = iter(argv)
  for word in words:
    if word.startswith("--config."):
      name, equals, text = word.removeprefix("--config.").partition("=")
      texts[name] = text if equals else next(words, None)
      if texts[name] is None or not equals and texts[name].startswith("--"):
        raise UserError(f"{word} has no value")
    else:
      rest.append(word)
  return rest, texts


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
      except (ValueError, TypeError, SyntaxError, RecursionError):
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
    raise UserError(
      f"--config: {path}:{line}: {type(error).__name__}: {error}"
    ) from None
  if not isinstance(config, Config):
    raise UserError(f"--config: {path}: get_config() returns {config!r:.40}")
  return config


def read_workdir(workdir):
  """Returns the Config that a workdir was trained with."""
  path = epath.Path(workdir) / "config.json"
  try:
    tree = files.read_json(path)
  except FileNotFoundError:
    raise UserError(
      f"{path}: not found; is {workdir} the --workdir of a train.py run?"
    ) from None
  try:
    return config_lib.from_dict(tree)
  except UserError as error:
    raise UserError(f"{path}: not a run's settings ({error})") from None

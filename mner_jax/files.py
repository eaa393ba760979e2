"""Files of a workdir: written whole or not at all, by one run at a time."""

import contextlib
import fcntl

from etils import epath

from mner_jax.config import UserError


def write(path, text):
  """Writes a file under another name first: who reads never finds half."""
  path = epath.Path(path)
  temporary = path.with_name(path.name + ".tmp")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(text)
    temporary.replace(path)
  except OSError as error:
    raise UserError(
      f"{path}: cannot be written ({error.strerror or error})"
    ) from None


def _in_bucket(path):
  """Whether a path is of a bucket store, as gs://."""
  return "://" in str(path)


def absolute(path):
  """The path as Orbax wants it."""
  path = epath.Path(path)
  # `resolve` takes gs:// for a folder of the working directory.
  return path if _in_bucket(path) else path.resolve()


class Lines:
  """A text file that grows line by line; no line is lost to a kill.

  A local file has a line once `add` is done. A bucket store cannot append: it
  has them once `sync` is done, which writes the file whole.
  """

  def __init__(self, path, text):
    """Writes the file anew with `text`, the lines that it begins with."""
    self._path, self._text = path, text
    write(path, text)
    self._file = None if _in_bucket(path) else path.open("a")

  def add(self, line):
    """Appends a line, without its end; raises OSError."""
    if self._file:
      self._file.write(line + "\n")
      self._file.flush()
    else:
      self._text += line + "\n"

  def sync(self):
    """Has all lines where they outlast this process."""
    if not self._file:
      write(self._path, self._text)

  def close(self):
    """Syncs and closes."""
    self.sync()
    if self._file:
      self._file.close()


@contextlib.contextmanager
def lock(workdir):
  """Keeps other runs out of `workdir` for as long as this process lives.

  The system gives the lock back however the process ends. Bucket stores such
  as gs:// have none: there it is up to the user to start one run only.
  """
  path = epath.Path(workdir) / "lock"
  if _in_bucket(workdir):
    yield
    return
  with contextlib.ExitStack() as stack:
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      file = stack.enter_context(open(path, "w"))
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f"{workdir}: another process trains in it; wait for its end or choose"
        " another --workdir"
      ) from None
    except OSError as error:
      raise UserError(
        f"{path}: cannot be written ({error.strerror or error})"
      ) from None
    yield

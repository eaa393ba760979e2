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


@contextlib.contextmanager
def lock(workdir):
  """Keeps other runs out of `workdir` for as long as this process lives.

  The system gives the lock back however the process ends. Bucket stores such
  as gs:// have none: there it is up to the user to start one run only.
  """
  path = epath.Path(workdir) / "lock"
  if "://" in str(workdir):
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

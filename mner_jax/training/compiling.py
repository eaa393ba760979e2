"""Compiled programs: kept on disk, what they cost to make, their memory."""

import collections
import contextlib
import ctypes
import pathlib
import time

import jax

from mner_jax.config import UserError

_FOLDER = "~/.cache/mner_jax"
_COMPILED = "/jax/core/compile/backend_compile_duration"
_FOUND = "/jax/compilation_cache/cache_hits"
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep(folder=None):
  """Keeps compiled programs in a folder, where the next start finds them.

  Args:
    folder: on a local disk; None = that of JAX_COMPILATION_CACHE_DIR, or else
      one in the home folder; "" = nowhere.
  """
  if folder is None:
    folder = jax.config.jax_compilation_cache_dir or _FOLDER
  if "://" in folder:  # where JAX has crashed on GPUs
    raise UserError(
      f"--compilation_cache={folder}: it must be a folder of a local disk"
    )
  folder = folder and str(pathlib.Path(folder).expanduser())
  jax.config.update("jax_compilation_cache_dir", folder)
  # JAX would leave out what compiled in under a second.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def reuse_memory():
  """Lets steps on a CPU have the memory of those before; call it first.

  XLA allocates a step's temporaries anew each time. glibc would give them back
  in between, and the system clear their pages: a quarter of a step on 2 cores.
  It keeps up to 2 GiB of what the main thread allocates, so steps must run in
  it. Other devices and systems are left as they are.
  """
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt and jax.default_backend() == "cpu":
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def announced(say, length):
  """Says that the train step is compiled, and then what it took.

  Args:
    say: function that prints a line.
    length: of the rows, in word pieces; each needs a program of its own.
  """
  say(f"compiling the train step for {length} word pieces ...")
  totals = collections.Counter()

  def add(event, seconds=1.0, **_):
    totals[event] += seconds

  monitoring = jax.monitoring
  monitoring.register_event_duration_secs_listener(add)
  monitoring.register_event_listener(add)
  start = time.monotonic()
  try:
    yield
  finally:
    monitoring.unregister_event_duration_listener(add)
    monitoring.unregister_event_listener(add)
  compiled = totals[_COMPILED]
  traced = time.monotonic() - start - compiled
  how = "read what was compiled before" if totals[_FOUND] else "compile"
  say(f"  {traced:.1f} s to trace and start it, {compiled:.1f} s to {how}")

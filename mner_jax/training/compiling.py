"""Compiled programs: kept on disk, what they cost to make, their memory."""

import ctypes
import pathlib
import time

import jax

from mner_jax.config import UserError

_FOLDER = "~/.cache/mner_jax"
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep(folder=None):
  """Keeps compiled programs in a folder, where the next start finds them.

  Args:
    folder: on a disk, which several processes share; None = that of
      JAX_COMPILATION_CACHE_DIR, or else, for a single process, one in the home
      folder; "" = nowhere.
  """
  if folder is None:
    folder = jax.config.jax_compilation_cache_dir
    # Without a shared disk only process 0 would find its program, and the other
    # GPUs wait for its part in tuning theirs.
    folder = folder or ("" if jax.distributed.is_initialized() else _FOLDER)
  if "://" in folder:  # where JAX has crashed on GPUs
    raise UserError(
      f"--compilation_cache={folder}: it must be a folder of a disk"
    )
  folder = folder and str(pathlib.Path(folder).expanduser())
  jax.config.update("jax_compilation_cache_dir", folder or None)
  # XLA's own, of which whole programs need nothing: a full disk ends a run.
  jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
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


def compiled(step, state, batch, say):
  """Compiles the train step for batches of this length, and says what it took.

  Args:
    step: the jitted function (state, batch) -> (state, metrics).
    state, batch: its arguments; the program takes any of the same shapes.
    say: function that prints a line.
  """
  length = batch["input_ids"].shape[1]
  say(f"compiling the train step for {length} word pieces ...")
  start = time.monotonic()
  lowered = step.lower(state, batch)
  traced = time.monotonic()
  program = lowered.compile()
  seconds = traced - start, time.monotonic() - traced
  say(
    f"  {seconds[0]:.1f} s to trace it, {seconds[1]:.1f} s to compile or read it"
  )
  return program

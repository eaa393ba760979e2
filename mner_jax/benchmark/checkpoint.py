"""Checkpoints: save, verify and restore the whole state of a config."""

import pathlib
import tempfile

import jax

from mner_jax import checkpoint, integrity, sharding
from mner_jax.benchmark import timing
from mner_jax.training import step as stepping


def run(config, *, repeats):
  """Rows {"what", "ms", "spread_ms", "megabytes", "megabytes_per_second"}.

  "save" and "restore" are those of a run, hashes included; "verify" is the
  hashing that a restore begins with. The folder is the system's temporary one,
  and its files stay in the page cache.
  """
  mesh = sharding.make_mesh(config.mesh)
  tx = stepping.make_optimizer(config.optim, 1000)
  init = stepping.make_init(config, tx)
  key = jax.random.key_data(jax.random.key(config.seed))
  abstract = jax.eval_shape(init, key)
  placed = sharding.shardings(abstract, mesh)
  state = jax.jit(init, out_shardings=placed)(key)
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    abstract,
    placed,
  )
  with tempfile.TemporaryDirectory() as workdir:
    folder = pathlib.Path(workdir) / "checkpoints"
    last = [0]

    def save():
      last[0] += 1
      checkpoint.save(workdir, last[0], state, 0.0)

    def verify():
      integrity.verify(checkpoint.files.absolute(folder) / str(last[0]))

    def restore():
      verify()
      jax.block_until_ready(checkpoint.restore(workdir, last[0], abstract))

    times = timing.interleave(
      {"save": save, "verify": verify, "restore": restore}, repeats=repeats
    )
    size = sum(
      p.stat().st_size
      for p in (folder / str(last[0])).rglob("*")
      if p.is_file()
    )
  return [
    {
      "what": what,
      "ms": 1e3 * seconds,
      "spread_ms": 1e3 * spread,
      "megabytes": size / 1e6,
      "megabytes_per_second": size / 1e6 / seconds,
    }
    for what, (seconds, spread) in times.items()
  ]

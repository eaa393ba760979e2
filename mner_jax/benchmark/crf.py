"""The CRF alone: loss with gradient, and Viterbi."""

import jax
import jax.numpy as jnp
import numpy as np

from mner_jax.benchmark import timing
from mner_jax.models import crf

# sentences B, words W, tags K
SIZES = ((32, 32, 9), (256, 128, 9), (256, 128, 33), (1024, 64, 9))


def run(sizes=SIZES, *, repeats, pytorch=None):
  """Measures the CRF at every size.

  Args:
    sizes: as `SIZES`.
    repeats: rounds.
    pytorch: the module tests/parity/speed.py, to compare with pytorch-crf.

  Returns:
    Rows {"what", "sentences", "words", "tags", ...}, with the fields of
    `timing.compare`.
  """
  rows = []
  for b, w, k in sizes:
    rng = np.random.default_rng(0)
    emissions = rng.normal(size=(b, w, k)).astype(np.float32)
    tags = rng.integers(k, size=(b, w), dtype=np.int32)
    lengths = rng.integers(w // 2, w + 1, size=b, dtype=np.int32)
    lengths[0] = w
    ours = _ours(k, emissions, tags, lengths)
    theirs = pytorch.crf(k, emissions, tags, lengths) if pytorch else {}
    for what, function in ours.items():
      row = {"what": what, "sentences": b, "words": w, "tags": k}
      row |= timing.compare(function, theirs.get(what), repeats=repeats)
      rows.append(row)
  return rows


def _ours(num_tags, emissions, tags, lengths):
  """{what: function that computes it and waits}."""
  emissions, tags, lengths = map(jnp.asarray, (emissions, tags, lengths))
  params, _ = crf.CRF(num_tags).init_with_output(jax.random.key(0))

  def loss(params, emissions):
    return -jnp.mean(crf.log_likelihood(params, emissions, tags, lengths))

  value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  best_paths = jax.jit(crf.viterbi)

  def loss_and_gradient():
    return value_and_grad(params, emissions)[0]

  def viterbi():
    jax.device_get(best_paths(params, emissions, lengths))

  return {"loss and gradient": loss_and_gradient, "viterbi": viterbi}

"""The CRF alone: loss with gradient, and Viterbi."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mner_jax.benchmark import timing
from mner_jax.config import UserError
from mner_jax.models import crf

SIZES = ((32, 32, 9), (256, 128, 9), (256, 128, 33), (1024, 64, 9))
_CALLS = 10


def run(*, compare, repeats):
  """Measures the sizes (sentences, words, tags) of SIZES.

  Returns:
    Rows {"what", "sentences", "words", "tags", "ms", "spread_ms"}, with
    "torch_ms" and "times_faster" where compared with pytorch-crf.
  """
  rows = []
  for sizes in SIZES:
    ours = _ours(*sizes)
    theirs = _torch(*sizes) if compare == "torch" else {}
    for what, function in ours.items():
      variants = {"ours": function}
      if what in theirs:
        variants["torch"] = theirs[what]
      # Several calls a turn: threads of the other library wait busily for a
      # while after theirs.
      turns = {name: _often(call) for name, call in variants.items()}
      times = timing.interleave(turns, repeats=repeats, steps=_CALLS)
      ms, spread = (1e3 * t for t in times["ours"])
      row = dict(zip(("sentences", "words", "tags"), sizes, strict=True))
      row = {"what": what, **row, "ms": ms, "spread_ms": spread}
      if what in theirs:
        row["torch_ms"] = 1e3 * times["torch"][0]
        row["times_faster"] = row["torch_ms"] / ms
      rows.append(row)
  return rows


def _often(call):
  def turn():
    for _ in range(_CALLS):
      call()

  return turn


def _inputs(b, w, k):
  rng = np.random.default_rng(0)
  emissions = rng.normal(size=(b, w, k)).astype(np.float32)
  tags = rng.integers(k, size=(b, w)).astype(np.int32)
  lengths = rng.integers(w // 2, w + 1, b).astype(np.int32)
  lengths[0] = w
  return emissions, tags, lengths


def _ours(b, w, k):
  emissions, tags, lengths = map(jnp.asarray, _inputs(b, w, k))
  scores = crf.CRF(k).init(jax.random.key(0))["params"]
  scores = crf.CRFParams(**scores)

  @jax.jit
  def loss_and_gradient(scores, emissions):
    def loss(scores, emissions):
      return -jnp.mean(crf.log_likelihood(scores, emissions, tags, lengths))

    return jax.value_and_grad(loss, argnums=(0, 1))(scores, emissions)

  viterbi = jax.jit(crf.viterbi)
  return {
    "loss and gradient": lambda: jax.block_until_ready(
      loss_and_gradient(scores, emissions)
    ),
    "viterbi": lambda: jax.device_get(viterbi(scores, emissions, lengths)),
  }


def _torch(b, w, k):
  try:
    import torch
    import torchcrf
  except ImportError as error:
    raise UserError(
      f"--compare=torch: {error}; it needs the extra [parity]"
    ) from None
  device = "cuda" if torch.cuda.is_available() else "cpu"
  to = functools.partial(torch.tensor, device=device)
  emissions, tags, lengths = _inputs(b, w, k)
  emissions, tags = to(emissions, requires_grad=True), to(tags).long()
  mask = torch.arange(w, device=device)[None] < to(lengths)[:, None]
  model = torchcrf.CRF(k, batch_first=True).to(device)

  def loss_and_gradient():
    emissions.grad = None
    model.zero_grad()
    (-model(emissions, tags, mask=mask, reduction="mean")).backward()
    return emissions.grad[0, 0, 0].item()

  def viterbi():
    with torch.no_grad():
      return model.decode(emissions, mask=mask)

  return {"loss and gradient": loss_and_gradient, "viterbi": viterbi}

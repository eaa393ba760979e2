"""BERT-CRF, small and from scratch, on the English part of MMNERD, text only.

The pictures of MMNERD are not public; the text is. Shows real sentences of
two kinds, tweets and captions of web pictures, scored apart.

Measured: F1 48.45 on the test split, 2026-11-22, seed 19; since then new layers
start otherwise. Cost: 122 s on 2 CPU cores.
Command:
  python train.py --config=mner_jax/configs/mmnerd_small.py \\
    --config.data.path=DIR
"""

from mner_jax.config import replace
from mner_jax.configs import synthetic_text

SETTINGS = {
  "data.path": "mmnerd_en",
  "data.languages": ("en",),
  "data.images": "",
  "data.buckets": (24, 48, 128),
  "model.text.vocab_size": 12000,
  "model.text.max_positions": 128,
  "optim.learning_rate": 1e-3,
  "train.epochs": 3,
}


def get_config():
  """Returns the experiment's Config."""
  return replace(synthetic_text.get_config(), SETTINGS)

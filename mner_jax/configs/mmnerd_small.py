"""BERT-CRF, small and from scratch, on the English part of MMNERD, text only.

The pictures of MMNERD are not public; the text is. Shows real sentences of
two kinds, tweets and captions of web pictures, scored apart.

Measured: F1 48.45 on the test split, 2026-11-22, seed 19. Cost: 122 s on 2
CPU cores.
Command:
  python train.py --config=mner_jax/configs/mmnerd_small.py \\
    --config.data.path=DIR
"""

from mner_jax.configs import synthetic_text


def get_config():
  """The experiment's ConfigDict."""
  config = synthetic_text.get_config()
  config.data.path = "mmnerd_en"
  config.data.languages = ("en",)
  config.data.images = ""
  config.data.buckets = (24, 48, 128)
  config.model.text.vocab_size = 12000
  config.model.text.max_positions = 128
  config.optim.learning_rate = 1e-3
  config.train.epochs = 3
  return config

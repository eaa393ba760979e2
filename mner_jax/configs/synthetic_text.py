"""BERT-CRF, tiny and from scratch, on the text of the synthetic corpus.

The text-only row beside `synthetic.py`: the same corpus and text encoder, no
image branch, twice the epochs (more do not help the other). It ends near the ceiling that the corpus sets to
any reader of the text alone.

Measured: see README.
Cost: see README.
Command: python train.py --config=mner_jax/configs/synthetic_text.py
"""

from mner_jax.configs import synthetic


def get_config():
  """The experiment's ConfigDict."""
  config = synthetic.get_config()
  config.model.vit.enabled = False
  config.model.resnet.enabled = False
  config.loss.contrastive = "none"
  config.train.epochs = 10  # a step costs a fifth of one with pictures
  return config

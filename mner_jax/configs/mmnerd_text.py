"""BERT-CRF at the authors' settings: mBERT, text only, no image branch.

The text-only row beside `mmnerd.py`. Expects MMNERD in `data.path`, with a
subfolder for each language or, for English alone, the files themselves. The
test split is scored after every epoch: the authors' code reports the best of
these, we report the epoch best on dev and name the other beside it.

Measured: with all-MiniLM-L6-v2 in place of mBERT and three epochs, F1 59.59 on
English test text (58.45 with `released`), mean of three seeds, 2026-11-22: see
the README. Not measured with mBERT.
Command:
  python train.py --config=mner_jax/configs/mmnerd_text.py \\
    --config.data.path=DIR --config.data.languages="('en',)"
"""

from mner_jax.configs import mmnerd


def get_config():
  """The experiment's ConfigDict."""
  config = mmnerd.get_config()
  config.data.images = ""
  config.model.vit.enabled = False
  config.model.resnet.enabled = False
  config.loss.contrastive = "none"
  config.train.score_test = True
  return config

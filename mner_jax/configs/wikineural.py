"""BERT-CRF, small and from scratch, on WikiNEuRal: four languages, text only.

Shows training on all four languages, on some, and on one and scoring others.
Expects a folder with en/, fr/, de/ and es/, each with train.conllu,
valid.conllu and test.conllu. WikiNEuRal's own train files are larger; the
numbers below are from its `val` files, the first 90 % of each as train and
the rest as valid, and its `test` files as test.

Measured: F1 on the test files in %, two epochs, 2026-11-22, seed 19, 2 CPU
cores (shared with other work); since then new layers start otherwise.

  trained on   sentences  steps  en     fr     de     es     all    cost
  all four     41,454     1300   65.77  74.80  71.26  78.86  72.45  252 s
  en, de       21,528      676   56.02         60.80         58.24  122 s
  en           10,431      328   48.99  21.72  16.09  19.93  24.51  134 s

The last row is zero-shot but for English: its vocabulary is English, too.
Command:
  python train.py --config=mner_jax/configs/wikineural.py \\
    --config.data.path=DIR
A pair, and zero-shot from English:
  ... --config.data.languages="('en','de')"
  ... --config.data.languages="('en',)" \\
      --config.data.eval_languages="('en','fr','de','es')"
"""

from mner_jax.config import replace
from mner_jax.configs import synthetic_text

SETTINGS = {
  "data.path": "wikineural",
  "data.images": "",
  "data.buckets": (24, 48, 128),
  "model.text.vocab_size": 16000,
  "model.text.max_positions": 128,
  "optim.learning_rate": 2e-3,
  "train.batch_size": 64,
  "train.epochs": 2,
}


def get_config():
  """Returns the experiment's Config."""
  return replace(synthetic_text.get_config(), SETTINGS)

"""BERT-CRF with multilingual-e5-small on WikiNEuRal: four languages, text only.

Shows what languages gain from each other where the text encoder knows them all.
The table of its 250,037 pieces (96 of 118 M numbers) is not trained. The
warm-up is the same share of the updates in rows that differ in these. Expects a
folder with en/, fr/, de/ and es/, each with train.conllu, valid.conllu and
test.conllu; the tables can do without train.conllu, see `tables/prepare.py`.

Chosen on English dev, once for all rows of the table: F1 in % after each of
three epochs on 2,000 sentences. At first the CRF tags nothing. Without a limit
on the gradient's norm (100 and more in some updates) it depends on the seed
how long that lasts:

  batch  learning rate  warm-up  limit  seed  epoch 1  epoch 2  epoch 3
     16           5e-4     0.10      -    19     19.0      0.0      0.0  (diverged)
     16           2e-4     0.10      -    19     20.9     71.4     78.2
     16           2e-4     0.10      -    20     19.2     43.6     56.5
     16           2e-4     0.03      -    20      0.0      0.0        -  (diverged)
      8           2e-4     0.10      -    20     54.1     75.5     79.9
      8           2e-4     0.10      -    21     48.5     73.8     81.2
      8           2e-4     0.20      -    20     41.2     72.9     78.9
  with the buckets below, so other batches:
      8           2e-4     0.10      -    19     32.1     73.5     79.6
      8           2e-4     0.10      -    20     18.2     44.4     54.7
      8           2e-4     0.10      1    19     64.2     75.6     79.4
      8           2e-4     0.10      1    20     65.3     76.9     79.5
      8           2e-4     0.10      1    21     59.0     75.7     80.2
      8           4e-4     0.10      1    20      0.0        -        -  (diverged)

A rate ten times as high for the new layers (batch 16, 2e-4, no limit, seed 19)
gave 34.6, 70.5, 76.9; Adam with b2 = 0.98 in place of the limit (seed 20) 40.5,
73.4, 81.3. 2 CPU cores, 2026-11-24 to 28, with the weights that
`tests/parity/e5_small.py` writes: "multilingual-e5-small, dequantised from 4
bits". Not measured with the Hub's.
Command:
  python train.py --config=mner_jax/configs/wikineural_e5.py \\
    --config.data.path=DIR
"""

from mner_jax.config import Config, replace
from mner_jax.configs.mmnerd_text import TEXT_ONLY

# How the encoder is trained; with the paintings and with MMNERD too.
RECIPE = {
  "model.text.weights": "intfloat/multilingual-e5-small",
  "model.text.dropout": 0.1,
  "model.text.attention_dropout": 0.1,
  "model.dropout": 0.2,
  "optim.frozen": (r"^text/word_embeddings/",),
  "optim.learning_rate": 2e-4,
  "optim.warmup_share": 0.1,
  "optim.clip_norm": 1.0,
  "train.batch_size": 8,
  "train.epochs": 3,
}
SETTINGS = {
  **TEXT_ONLY,
  **RECIPE,
  "data.path": "wikineural",
  "data.images": "",
  # A sixth of the pieces is padding; a quarter with (32, 48, 64, 128, 256).
  "data.buckets": (24, 32, 40, 48, 64, 96, 256),
}


def get_config():
  """Returns the experiment's Config."""
  return replace(Config(), SETTINGS)

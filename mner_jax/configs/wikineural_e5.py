"""BERT-CRF with multilingual-e5-small on WikiNEuRal: four languages, text only.

Shows what languages gain from each other where the text encoder knows them all.
The table of its 250,037 pieces (96 of 118 M numbers) is not trained. The
warm-up is the same share of the updates in rows that differ in these. Data as
in `wikineural.py`.

The learning rate was chosen on English dev, for all rows of the table: after
each of three epochs on 2,000 sentences F1 was 19.0, 0.0, 0.0 with 5e-4 (it
diverged) and 20.9, 71.4, 78.2 with 2e-4. A rate ten times as high for the new
layers gave 34.6, 70.5, 76.9. Seed 19, 2 CPU cores, 2026-11-24 and 27, with the
weights that `tests/parity/e5_small.py` writes: "multilingual-e5-small,
dequantised from 4 bits". Not measured with the Hub's.
Command:
  python train.py --config=mner_jax/configs/wikineural_e5.py \\
    --config.data.path=DIR
"""

from mner_jax.config import Config, replace
from mner_jax.configs.mmnerd_text import TEXT_ONLY

SETTINGS = {
  **TEXT_ONLY,
  "data.path": "wikineural",
  "data.images": "",
  "data.buckets": (32, 48, 64, 128, 256),
  "model.text.weights": "intfloat/multilingual-e5-small",
  "model.dropout": 0.2,
  "optim.frozen": (r"^text/word_embeddings/",),
  "optim.learning_rate": 2e-4,
  "optim.warmup_share": 0.1,
  "train.batch_size": 16,
  "train.epochs": 3,
}


def get_config():
  """Returns the experiment's Config."""
  return replace(Config(), SETTINGS)

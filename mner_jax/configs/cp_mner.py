"""2M-NER, small and from scratch, on Chinese paintings with real pictures.

CP-MNER: 950 / 119 / 119 descriptions of paintings, one character a word, 16
entity types, one picture each. Too little for a model from scratch to be
good; it shows the road from real files with pictures to scores.

Measured: F1 57.65 on the test split, mean of seeds 19, 20, 21; 57.02 for the
text-only row, 2026-11-23; since then new layers start otherwise.
Cost: 363 s a run on 2 CPU cores, 246 s text only.
Command:
  python -m mner_jax.tables paintings --data=DIR --seeds=3
or one run:
  python train.py --config=mner_jax/configs/cp_mner.py --config.data.path=DIR
"""

from mner_jax.config import replace
from mner_jax.configs import synthetic

SETTINGS = {
  "data.path": "cp_mner",
  "data.languages": ("zh",),
  "data.buckets": (128, 256),
  "model.text.max_positions": 256,
  "model.text.vocab_size": 4000,
  "model.vit.image_size": 64,
  "model.vit.patch_size": 16,
  "optim.learning_rate": 2e-3,
  "train.batch_size": 16,
  "train.epochs": 8,
}


def get_config():
  """Returns the experiment's Config."""
  return replace(synthetic.get_config(), SETTINGS)

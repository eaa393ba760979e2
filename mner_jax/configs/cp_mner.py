"""2M-NER, small and from scratch, on Chinese paintings with real pictures.

CP-MNER: 950 / 119 / 119 descriptions of paintings, one character a word, 16
entity types, one picture each. Too little for a model from scratch to be
good; it shows the road from real files with pictures to scores.

Measured: F1 57.65 on the test split, mean of seeds 19, 20, 21; 57.02 for the
text-only row, 2026-11-23. Cost: 363 s a run on one CPU core, 246 s text only.
Command:
  python -m mner_jax.tables paintings --data=DIR --seeds=3
or one run:
  python train.py --config=mner_jax/configs/cp_mner.py --config.data.path=DIR
"""

from mner_jax.configs import synthetic


def get_config():
  """The experiment's ConfigDict."""
  config = synthetic.get_config()
  config.data.path = "cp_mner"
  config.data.languages = ("zh",)
  config.data.buckets = (128, 256)
  config.model.text.max_positions = 256
  config.model.text.vocab_size = 4000
  config.model.vit.image_size = 64
  config.model.vit.patch_size = 16
  config.optim.learning_rate = 2e-3
  config.train.batch_size = 16
  config.train.epochs = 8
  return config

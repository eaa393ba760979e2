"""2M-NER, small and from scratch, on Chinese paintings with real pictures.

CP-MNER: 950 / 119 / 119 descriptions of paintings, one character a word, 16
entity types, one picture each. Too little for a model from scratch to be
good; it shows the road from real files with pictures to scores.

Measured: F1 57.84 on the test split, 57.85 for the text-only row, 2026-11-22,
seed 19. Cost: 312 s on 2 CPU cores.
Command:
  python train.py --config=mner_jax/configs/cp_mner.py --config.data.path=DIR
The text-only row, same text encoder and schedule:
  ... --config.model.vit.enabled=False --config.model.resnet.enabled=False
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

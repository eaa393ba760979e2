"""MAF (Xu et al., WSDM 2022) at its authors' settings, with mBERT.

A row of the tables: matching and CLIP-form alignment with a frozen ResNet-152,
no ViT. L is twice the authors' 0.62 L_crf + 0.38 (L_match + L_cl), which Adam
does not see. The same model in any other config takes the first six lines
below as flags.

Measured: not at this size. On `cp_mner.py` with these lines: F1 57.98, mean of
three seeds, 2026-11-23, see the README's tables.
Cost: not measured here; there 349 s a run on one CPU core.
Command:
  python train.py --config=mner_jax/configs/maf.py
"""

from mner_jax.configs import mmnerd


def get_config():
  """The experiment's ConfigDict."""
  config = mmnerd.get_config()
  config.model.fusion = "maf"
  config.model.vit.enabled = False
  config.loss.alpha = 0.62
  config.loss.contrastive = "clip"
  config.loss.temperature = 0.179
  config.loss.text_share = 0.7
  config.train.batch_size = 64
  config.train.epochs = 24
  return config

"""UMT (Yu et al., ACL 2020) at its authors' settings, with mBERT.

A row of the tables: its layers over the words and the 49 regions of a frozen
ResNet-152, a second CRF for spans, no ViT and no contrastive loss. The same
model in any other config takes the first three lines below as flags.

Measured: not at this size. On `cp_mner.py` with these lines and the optimiser's
two: F1 56.29, mean of three seeds, 2026-11-23, see the README's tables.
Cost: not measured here; there 642 s a run on one CPU core.
Command:
  python train.py --config=mner_jax/configs/umt.py
"""

from mner_jax.configs import mmnerd


def get_config():
  """The experiment's ConfigDict."""
  config = mmnerd.get_config()
  config.model.fusion = "umt"
  config.model.vit.enabled = False
  config.loss.contrastive = "none"
  config.optim.warmup_share = 0.1
  config.optim.weight_decay = 0.01
  config.train.epochs = 24
  return config

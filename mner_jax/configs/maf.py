"""MAF (Xu et al., WSDM 2022) at its authors' settings, with mBERT.

A row of the tables: matching and CLIP-form alignment with a frozen ResNet-152,
no ViT. L is twice the authors' 0.62 L_crf + 0.38 (L_match + L_cl), which Adam
does not see. The same model in any other config takes the first six lines
below as flags.

Measured: not at this size. On `cp_mner.py` with these lines: F1 57.98, mean of
three seeds, 2026-11-23, see `mner_jax/tables/results/paintings-mini.md`;
since then new layers start otherwise.
Cost: not measured here; there 349 s a run on 2 CPU cores.
Command:
  python train.py --config=mner_jax/configs/maf.py
"""

from mner_jax.config import replace
from mner_jax.configs import mmnerd

# Against any 2M-NER config; the authors' budget is apart.
SETTINGS = {
  "model.fusion": "maf",
  "model.vit.enabled": False,
  "loss.alpha": 0.62,
  "loss.contrastive": "clip",
  "loss.temperature": 0.179,
  "loss.text_share": 0.7,
}


def get_config():
  """Returns the experiment's Config."""
  budget = {"train.batch_size": 64, "train.epochs": 24}
  return replace(mmnerd.get_config(), SETTINGS | budget)

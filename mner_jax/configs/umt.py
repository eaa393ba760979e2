"""UMT (Yu et al., ACL 2020) at its authors' settings, with mBERT.

A row of the tables: its layers over the words and the 49 regions of a frozen
ResNet-152, a second CRF for spans, no ViT and no contrastive loss. The same
model in any other config takes the first three lines below as flags.

Measured: not at this size. On `cp_mner.py` with these lines and the optimiser's
two: F1 56.29, mean of three seeds, 2026-11-23, see
`mner_jax/tables/results/paintings-mini.md`; since then new layers start
otherwise.
Cost: not measured here; there 642 s a run on 2 CPU cores.
Command:
  python train.py --config=mner_jax/configs/umt.py
"""

from mner_jax.config import replace
from mner_jax.configs import mmnerd

# Against any 2M-NER config; the authors' budget is apart.
SETTINGS = {
  "model.fusion": "umt",
  "model.vit.enabled": False,
  "loss.contrastive": "none",
  "optim.warmup_share": 0.1,
  "optim.weight_decay": 0.01,
}


def get_config():
  """Returns the experiment's Config."""
  return replace(mmnerd.get_config(), SETTINGS | {"train.epochs": 24})

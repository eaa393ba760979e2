"""The contrastive part alone, on photographs with captions; no entities.

Does the alignment learn from real pictures? alpha = 0 leaves L = 2 L_cl of
the ordinary training loop; every tag is O. Scored by retrieval of 65 pictures
(published `val` and `test`); trained on all but the last 72 of `train`, which
the settings were chosen on. The last step is scored: nothing is selected.

Measured: see `mner_jax/tables/results/retrieval-mini.md`.
Command:
  python -m mner_jax.tables retrieval --data=FLICKR8K_MULTI30K --seeds=3
"""

from mner_jax.config import replace
from mner_jax.configs import synthetic

SETTINGS = {
  "data.path": "flickr8k",
  "data.languages": ("en", "de", "fr"),
  "data.buckets": (24, 48),
  "data.resize": 96,
  # 800 pictures are few: one small encoder a side.
  "model.text.encoder": "bilstm",
  "model.text.num_layers": 1,
  "model.text.vocab_size": 3000,
  "model.text.dropout": 0.4,
  "model.vit.enabled": False,
  "model.resnet.image_size": 64,
  "model.resnet.width": 16,
  "loss.alpha": 0.0,
  "loss.temperature": 0.2,
  "optim.learning_rate": 1e-3,
  "optim.warmup_steps": 40,
  "optim.warmup_share": 0.0,
  "train.batch_size": 64,
  "train.epochs": 12,
  "train.eval_every": 1000000,
}


def get_config():
  """Returns the experiment's Config."""
  return replace(synthetic.get_config(), SETTINGS)

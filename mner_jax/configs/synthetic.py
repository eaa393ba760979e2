"""2M-NER, tiny and from scratch, on the embedded synthetic corpus.

Shows everything from end to end on a laptop: four languages, pictures that
decide where the text cannot. The sizes are tiny, the ResNet is trained and the
text encoder's dropout is its own; everything else is the model of the paper.

Measured: F1 93.60 on the synthetic test split, 2026-11-28, seed 19.
Cost: 174 s on 2 CPU cores (AMD EPYC), with nothing beside it.
Command: python train.py
"""

from mner_jax.config import Config, replace

SETTINGS = {
  "data.path": "synthetic",
  "data.buckets": (16, 40),
  "model.text.vocab_size": 1200,
  "model.text.hidden_size": 128,
  "model.text.num_layers": 2,
  "model.text.num_heads": 4,
  "model.text.intermediate_size": 256,
  "model.text.max_positions": 64,
  "model.text.dropout": 0.2,
  # Its random bits cost a third of a CPU step.
  "model.text.attention_dropout": 0.0,
  "model.vit.image_size": 48,
  "model.vit.patch_size": 12,
  "model.vit.hidden_size": 64,
  "model.vit.num_layers": 2,
  "model.vit.num_heads": 4,
  "model.vit.intermediate_size": 128,
  "model.resnet.image_size": 48,
  "model.resnet.stages": (1, 1, 1),
  "model.resnet.width": 8,
  # Two layers compile a second sooner without a loop.
  "model.text.unroll": 2,
  "model.vit.unroll": 2,
  "model.fusion_heads": 4,
  "optim.learning_rate": 3e-3,
  "optim.warmup_share": 0.03,
  "optim.frozen": (),
  "train.epochs": 7,
}


def get_config():
  """Returns the experiment's Config."""
  return replace(Config(), SETTINGS)

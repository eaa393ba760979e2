"""The contrastive part alone, on photographs with captions; no entities.

Does the alignment learn from real pictures? alpha = 0 leaves L = 2 L_cl of
the ordinary training loop; every tag is O. Scored by retrieval of 65 pictures
(published `val` and `test`); trained on all but the last 72 of `train`, which
the settings were chosen on. The last step is scored: nothing is selected.

Measured: see the README, "The contrastive part alone".
Command:
  python -m mner_jax.tables retrieval --data=FLICKR8K_MULTI30K --seeds=5
"""

from mner_jax.configs import synthetic


def get_config():
  """The experiment's ConfigDict."""
  config = synthetic.get_config()
  config.data.path = "flickr8k"
  config.data.languages = ("en", "de", "fr")
  config.data.buckets = (24, 48)
  config.data.resize = 96
  # 800 pictures are few: one small encoder a side.
  text = config.model.text
  text.encoder = "bilstm"
  text.num_layers = 1
  text.vocab_size = 3000
  text.dropout = 0.4
  config.model.vit.enabled = False
  config.model.resnet.image_size = 64
  config.model.resnet.width = 16
  config.loss.alpha = 0.0
  config.loss.temperature = 0.2
  config.optim.learning_rate = 1e-3
  config.optim.warmup_steps = 40
  config.train.batch_size = 64
  config.train.epochs = 12
  config.train.eval_every = 1000000
  return config

"""BiLSTM-CRF, text only and from scratch: the row below BERT.

Word pieces of a vocabulary that is counted on the training split, 200 units
in each direction, and the learning rate that such a model needs; everything
else is `mmnerd_text.py`.

Measured: not measured. Cost: not measured.
Command:
  python train.py --config=mner_jax/configs/bilstm.py \\
    --config.data.path=DIR --config.data.languages="('en',)"
"""

from mner_jax.configs import mmnerd_text


def get_config():
  """The experiment's ConfigDict."""
  config = mmnerd_text.get_config()
  config.model.text.encoder = "bilstm"
  config.model.text.weights = ""
  config.model.text.vocab_size = 30000
  config.model.text.hidden_size = 400
  config.model.text.num_layers = 1
  config.model.text.dropout = 0.5
  config.optim.learning_rate = 1e-3
  return config

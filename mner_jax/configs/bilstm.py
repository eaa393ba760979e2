"""BiLSTM-CRF, text only and from scratch: the row below BERT.

Word pieces of a vocabulary that is counted on the training split, 200 units
in each direction, and the learning rate that such a model needs; everything
else is `mmnerd_text.py`.

Measured: F1 30.41 after three epochs on 5,000 English sentences of MMNERD,
mean of three seeds, 2026-11-28: `mner_jax/tables/results/text-mini.md`.
Cost: not measured alone.
Command:
  python train.py --config=mner_jax/configs/bilstm.py \\
    --config.data.path=DIR --config.data.languages="('en',)"
"""

from mner_jax.config import replace
from mner_jax.configs import mmnerd_text
from mner_jax.configs.mmnerd_text import TEXT_ONLY

SETTINGS = {
  **TEXT_ONLY,
  "model.text.encoder": "bilstm",
  "model.text.weights": "",
  "model.text.vocab_size": 30000,
  "model.text.hidden_size": 400,
  "model.text.num_layers": 1,
  "model.text.dropout": 0.5,
  "optim.learning_rate": 1e-3,
}


def get_config():
  """Returns the experiment's Config."""
  return replace(mmnerd_text.get_config(), SETTINGS)

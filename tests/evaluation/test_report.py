"""report.html: its numbers, its attention, and that no data becomes markup."""

import base64
import hashlib
import html.parser
import io
import json
import re
import shutil

import jax
import numpy as np
import pytest
import seqeval.metrics
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax import sharding
from mner_jax.data import batches, dataset, formats, wordpiece
from mner_jax.evaluation import errors, evaluate, report
from mner_jax.models.mner import MultimodalNER

HOSTILE = (
  "<script>alert(1)</script>",
  '"><img src=x onerror=alert(1)>',
  "</script>",
  "<!--",
  "&lt;b&gt;",
  "\u2028",
  "__POLICY__",
  "__DATA__",
  "javascript:x",
)


def make_split():
  """Fourteen sentences: some with pictures, one hostile, one in windows."""
  rng = np.random.default_rng(0)
  sentences, records = [], []
  for i in range(12):
    words = ("Anna", "Smith", "visits", f"Town{i}") + ("today",) * i
    tags = ("B-PER", "I-PER", "O", "B-LOC") + ("O",) * i
    language, image = "en" if i % 2 else "de", f"pic{i}" if i < 6 else ""
    sentences.append(formats.Sentence(words, tags, image, language))
    pixels = rng.integers(256, size=(20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    records.append({"image": buffer.getvalue()})
  tags = ("B-PER",) + ("O",) * (len(HOSTILE) - 1)
  sentences.append(formats.Sentence(HOSTILE, tags, "", "en", *HOSTILE[:2]))
  words = ("Anna",) * 50
  sentences.append(formats.Sentence(words, ("O",) * 50, "pic0", "de"))
  names = [s.image for s in sentences]
  status = ["ok" if name else "" for name in names]
  rows = [0 if name == "pic0" else i for i, name in enumerate(names)]
  return dataset.Split(sentences, status, names, rows, records)


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  shutil.copytree(trained("images")[0] / "tokenizer", folder / "tokenizer")
  lines = [{"step": 10, "crf": 2.0, "loss": 3.0, "grad_norm": 1.0}]
  lines += [{"step": 20, "skipped": "loss"}, {"step": 20, "valid_f1": 0.5}]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (folder / "metrics.jsonl").write_text(text)
  return folder


@pytest.fixture(scope="module")
def evaluated(trained, workdir):
  """An Evaluation whose predictions are right in every second sentence."""
  found, rng = trained("images")[1], np.random.default_rng(0)
  split, tokenizer = make_split(), wordpiece.load(workdir / "tokenizer")
  examples = batches.Examples(split, tokenizer, found.examples.config)
  predicted = [
    rng.permutation(s.tags).tolist() if i % 2 else list(s.tags)
    for i, s in enumerate(split.sentences)
  ]
  scores = evaluate.score(examples, predicted) | {"checkpoint_step": 20}
  return found._replace(scores=scores, predicted=predicted, examples=examples)


def with_config(evaluated, workdir, config):
  """The Examples of `evaluated` for another model."""
  tokenizer = wordpiece.load(workdir / "tokenizer")
  return batches.Examples(evaluated.examples.split, tokenizer, config)


class Page(html.parser.HTMLParser):
  """The tags of a page, and the text behind each of them."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.texts = [], []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    self.texts.append("")

  def handle_endtag(self, tag):
    self.handle_starttag(f"/{tag}", ())

  def handle_data(self, data):
    self.texts[-1:] = [text + data for text in self.texts[-1:]]

  def inside(self, tag, **attributes):
    """The text of the one element with this tag and these attributes."""
    return self.texts[self.elements.index((tag, attributes))]


def test_no_data_becomes_markup(evaluated, workdir):
  data = report.collect(evaluated, workdir, "test")
  data["name"], data["remarks"] = HOSTILE[0], HOSTILE
  text = report.render(data)
  page, empty = Page(text), Page(report.render({}))
  assert page.elements == empty.elements
  # What the script reads is what was put in.
  found = json.loads(page.inside("script", type="application/json", id="data"))
  assert found == json.loads(json.dumps(data))
  assert list(HOSTILE) in [s["words"] for s in found["sentences"]]
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
  (policy,) = (a["content"] for _, a in page.elements if "http-equiv" in a)
  rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
  assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
  for name in ("script", "style"):
    digest = hashlib.sha256(page.inside(name).encode()).digest()
    encoded = base64.b64encode(digest).decode()
    assert rules[f"{name}-src"] == f"'sha256-{encoded}'"


def test_numbers_are_those_of_the_metrics(evaluated, workdir):
  data = report.collect(evaluated, workdir, "test")
  scores = evaluated.scores
  groups = {group["name"]: group["rows"] for group in data["scores"]}
  assert list(groups) == ["", "language", "type", "source"]
  (total,) = groups.pop("")
  assert 0 < total["f1"] == scores["f1"] < 1
  for group, rows in groups.items():
    assert [row["name"] for row in rows] == list(scores[f"per_{group}"])
    for row in rows:
      low, high = row["interval"]
      assert 0 <= low <= row["f1"] <= high <= 1
      assert scores[f"per_{group}"][row["name"]].items() <= row.items()
  _check_interval(groups["type"][0], evaluated)
  types, rows = data["confusion"]["types"], np.array(data["confusion"]["rows"])
  for i, name in enumerate(types):
    of_type = scores["per_type"][name]
    assert rows[i].sum() == of_type["support"]
    assert rows[i, i] / max(rows[i].sum(), 1) == of_type["recall"]
    assert rows[i, i] / max(rows[:, i].sum(), 1) == of_type["precision"]
  assert data["curves"] == {"crf": [[10, 2.0]], "valid_f1": [[20, 0.5]]}
  assert dict(data["data"])["sentences"] == "14"


def _check_interval(row, evaluated):
  """Against F1 scored anew on each of 400 samples of the sentences."""
  gold = [list(s.tags) for s in evaluated.examples.split.sentences]
  pairs = list(zip(gold, evaluated.predicted, strict=True))
  rng, found = np.random.default_rng(1), []
  for _ in range(400):
    chosen = [pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]
    scores = seqeval.metrics.classification_report(
      *zip(*chosen, strict=True), output_dict=True, zero_division=0
    )
    found.append(scores.get(row["name"], {}).get("f1-score", 0))
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
  ]


_TAG = st.sampled_from(["O", "B-A", "I-A", "B-C", "I-C"])


@given(st.lists(st.tuples(_TAG, _TAG), min_size=1, max_size=9))
def test_every_entity_is_in_one_cell(pairs):
  gold, guess = map(list, zip(*pairs, strict=True))
  found = errors.confusion([errors.align(gold, guess)])
  rows = np.array(found["rows"])
  a, b = set(get_entities(gold)), set(get_entities(guess))
  for i, name in enumerate(found["types"]):
    assert rows[i].sum() == sum(t == name for t, *_ in a)
    assert rows[:, i].sum() == sum(t == name for t, *_ in b)
    assert rows[i, i] == sum(t == name for t, *_ in a & b)
  assert rows[:-2, -1].sum() == sum(
    all(e < x or y < s for _, x, y in b) for _, s, e in a
  )


@pytest.mark.parametrize("released", [False, True])
def test_attention_is_that_of_the_formulas(
  evaluated, workdir, change, released
):
  config = change(evaluated.examples.config, model__released=released)
  examples = with_config(evaluated, workdir, config)
  evaluator = evaluate.Evaluator(config, sharding.make_mesh(config.mesh))
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

  params = evaluated.params["fusion"]["vit"]["attention"]
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  query, key = params["key" if released else "query"], params["key"]
  seen = 0
  for step in range(plan.steps_per_epoch):
    batch = examples.rows(*plan.batch(step))
    pieces, tokens = (np.asarray(x, np.float64) for x in encode(batch))
    for row, window in enumerate(plan.batch(step)[1]):
      if window == batches.PADDING:
        continue
      window = examples.windows[window]
      words = pieces[row, window.first_piece - released]  # [W, D]
      q = words @ query["kernel"] + query["bias"]
      k = tokens[row] @ key["kernel"] + key["bias"]
      heads = (np.split(x, 4, axis=1) for x in (q, k))
      mean = 0
      for q_head, k_head in zip(*heads, strict=True):
        scores = np.exp(q_head @ k_head.T / np.sqrt(q_head.shape[1]))
        mean += scores / scores.sum(1, keepdims=True) / 4
      found = weights[window.sentence][window.start : window.stop]
      np.testing.assert_allclose(found, mean, atol=1e-5)
      seen += 1
  assert seen > len(examples.split.sentences)  # windows, too
  for sentence, found in zip(examples.split.sentences, weights, strict=True):
    assert found.shape == (len(sentence.words), 5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


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


def test_pictures_are_those_the_model_saw(evaluated, workdir):
  data = report.collect(evaluated, workdir, "test")
  by_number = {s["number"]: s for s in data["sentences"]}
  # The long sentence has the picture of the first; the others their own.
  assert by_number[14]["picture"] == by_number[1]["picture"]
  assert len(data["pictures"]) == 6
  for number, sentence in by_number.items():
    has = evaluated.examples.split.sentences[number - 1].image != ""
    assert ("picture" in sentence) == ("attention" in sentence) == has
  uri = data["pictures"][by_number[2]["picture"]]
  image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
  pixels = evaluated.examples.rows(24, [1])["pixels"][0]
  assert image.size == (16, 16)
  error = np.asarray(image.convert("RGB"), int) - pixels
  assert np.abs(error).mean() < 40  # noise, compressed; unrelated: 85


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
  fields = {"model__vit__enabled": vit, "model__resnet__enabled": resnet}
  config = evaluated.examples.config
  config = change(config, model__fusion=fusion, **fields)
  examples = with_config(evaluated, workdir, config)
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
  assert whole["note"] == "14 of the split's 14 sentences."
  assert 3 < len(wrong) < 12
  monkeypatch.setattr(report, "MAX_SENTENCES", len(wrong) + 2)
  cut = report.collect(evaluated, workdir, "test")
  numbers = [s["number"] for s in cut["sentences"]]
  assert len(numbers) == len(wrong) + 2 and wrong < set(numbers)
  assert numbers == sorted(numbers)
  assert cut["note"].startswith(f"{len(numbers)} of the split's 14 sentences:")
  assert f"the {len(wrong)} with an error" in cut["note"]
  assert cut["scores"] == whole["scores"]
  # The bytes, too, have a bound.
  monkeypatch.setattr(report, "MAX_BYTES", 3000)
  small = report.collect(evaluated, workdir, "test")
  assert 1 < len(small["sentences"]) < len(wrong)
  bare = small | {"sentences": [], "pictures": {}}
  size = len(report.render(small)) - len(report.render(bare))
  assert 1500 < size < 4000

"""report.html: its numbers, its attention, and that no data becomes markup."""

import base64
import functools
import hashlib
import json
import re
import shutil

import jax
import numpy as np
import pytest

from mner_jax import sharding
from mner_jax.config import replace
from mner_jax.data import batches, dataset, formats, images, wordpiece
from mner_jax.evaluation import errors, evaluate, report
from mner_jax.models.mner import MultimodalNER
from tests.conftest import TEXT_ONLY
from tests.data.test_images import encode, random_image

HOSTILE = (
  "<script>alert(1)</script>",
  '"><img src=x onerror=alert(1)>',
  "<!--",
  "&lt;b&gt;",
  "\u2028",
  "__POLICY__",
  "__DATA__",
)


def make_split():
  """Fourteen sentences: some with pictures, one hostile, one in windows."""
  sentences, records = [], []
  for i in range(12):
    words = ("Anna", "Smith", "visits", f"Town{i}") + ("today",) * i
    tags = ("B-PER", "I-PER", "O", "B-LOC") + ("O",) * i
    language, image = "en" if i % 2 else "de", f"pic{i}" if i < 6 else ""
    sentences.append(formats.Sentence(words, tags, image, language))
    records.append({"image": encode(random_image((30, 20), seed=i), "PNG")})
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
  shutil.copytree(trained[0] / "tokenizer", folder / "tokenizer")
  lines = [{"step": 10, "crf": 2.0, "loss": 3.0, "grad_norm": 1.0}]
  lines += [{"step": 20, "skipped": "loss"}, {"step": 20, "valid_f1": 0.5}]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (folder / "metrics.jsonl").write_text(text)
  return folder


def with_config(workdir, config):
  """The Examples of a model."""
  tokenizer = wordpiece.load(workdir / "tokenizer")
  return batches.Examples(make_split(), tokenizer, config)


@pytest.fixture(scope="module")
def evaluated(trained, workdir):
  """An Evaluation whose predictions are right in every second sentence."""
  found, rng = trained[1], np.random.default_rng(0)
  examples = with_config(workdir, found.examples.config)
  predicted = [
    rng.permutation(s.tags).tolist() if i % 2 else list(s.tags)
    for i, s in enumerate(examples.split.sentences)
  ]
  scores = evaluate.score(examples, predicted) | {"checkpoint_step": 20}
  return found._replace(scores=scores, predicted=predicted, examples=examples)


@pytest.fixture(scope="module")
def data(evaluated, workdir):
  return report.collect(evaluated, workdir, "test")


def test_no_data_becomes_markup(data):
  data = data | {"name": HOSTILE[0], "remarks": HOSTILE}
  place = re.compile('(?<=id="data">)(.*?)(?=</script>)', re.DOTALL)
  page, empty = (place.split(report.render(x)) for x in (data, {}))
  assert page[::2] == empty[::2]
  assert not set("<>&") & set(page[1])
  # What the script reads is what was put in.
  assert json.loads(page[1]) == json.loads(json.dumps(data))
  assert HOSTILE in [s["words"] for s in data["sentences"]]


def test_the_page_needs_nothing_and_allows_only_itself():
  page = report.render({})
  assert not re.search(r"<\w[^<>]*\s(on\w+|src|srcset|action)=", page)
  assert all(target[0] == "#" for target in re.findall('href="(.*?)"', page))
  assert "@import" not in page and "url(" not in page
  addresses = set(re.findall(r"https?://[^\"' ]+", page))
  assert addresses == {"http://www.w3.org/2000/svg"}
  (policy,) = re.findall(r'<meta http-equiv="Con.*?" content="(.*?)">', page)
  rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
  assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
  for name in ("script", "style"):
    (text,) = re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest())
    assert rules[f"{name}-src"] == f"'sha256-{digest.decode()}'"


def test_numbers_are_those_of_the_metrics(evaluated, data):
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
      assert low < high or row["f1"] in (0, 1)
      assert scores[f"per_{group}"][row["name"]].items() <= row.items()
  types, rows = data["confusion"]["types"], np.array(data["confusion"]["rows"])
  for i, name in enumerate(types):
    of_type = scores["per_type"][name]
    assert rows[i].sum() == of_type["support"]
    assert rows[i, i] / max(rows[i].sum(), 1) == of_type["recall"]
    assert rows[i, i] / max(rows[:, i].sum(), 1) == of_type["precision"]
  assert data["curves"] == {"crf": [[10, 2.0]], "valid_f1": [[20, 0.5]]}
  assert dict(data["data"])["sentences"] == "14"


def test_kinds_of_errors():
  gold = ["B-PER", "I-PER", "O", "B-LOC", "B-ORG", "O", "I-LOC", "B-PER"]
  guess = ["B-PER", "I-PER", "B-ORG", "B-ORG", "O", "O", "B-LOC", "I-LOC"]
  found = errors.align(gold, guess)
  assert found == [
    (0, 2, "PER", "PER", "correct"),
    (2, 3, "", "ORG", "spurious"),
    (3, 4, "LOC", "ORG", "type"),
    (4, 5, "ORG", "", "missed"),
    (6, 7, "LOC", "", "bounds"),
    (6, 8, "", "LOC", "bounds"),
    (7, 8, "PER", "", "bounds"),
  ]
  rows = "01010 00001 00110 10000 01000"  # LOC, ORG, PER, bounds, alone
  assert errors.confusion([found]) == {
    "types": ["LOC", "ORG", "PER"],
    "rows": [list(map(int, row)) for row in rows.split()],
  }


@pytest.mark.parametrize("released", [False, True])
def test_attention_is_that_of_the_formulas(evaluated, workdir, released):
  config = replace(evaluated.examples.config, {"model.released": released})
  examples = with_config(workdir, config)
  evaluator = evaluate.Evaluator(config, sharding.make_mesh(config.mesh))
  weights = evaluator.attention(evaluated.params, examples)
  encode = functools.partial(
    MultimodalNER(config).apply,
    capture_intermediates=lambda module, _: module.name in ("text", "vit"),
  )
  batch = examples.rows(24, range(len(examples.windows)))
  _, state = jax.jit(encode)({"params": evaluated.params}, batch)
  found = jax.device_get(state["intermediates"])
  pieces, tokens = found["text"]["__call__"][0][0], found["vit"]["__call__"][0]
  params = jax.device_get(evaluated.params["fusion"]["vit"]["attention"])
  query, key = params["key" if released else "query"], params["key"]
  for row, window in enumerate(examples.windows):
    words = pieces[row, window.first_piece - released]  # [W, D]
    q = words @ query["kernel"] + query["bias"]
    k = tokens[row] @ key["kernel"] + key["bias"]
    q, k = (x.reshape(len(x), 4, -1) for x in (q, k))
    scores = np.einsum("whd,phd->hwp", q, k) / np.sqrt(q.shape[-1])
    mean = jax.nn.softmax(scores).mean(axis=0)
    found = weights[window.sentence][window.start : window.stop]
    np.testing.assert_allclose(found, mean, atol=1e-5)
  lengths = [len(s.words) for s in examples.split.sentences]
  assert [len(found) for found in weights] == lengths
  assert len(examples.windows) > len(lengths)


def test_attention_survives_its_bytes():
  weights = np.random.default_rng(0).dirichlet(np.ones(17), size=6)
  found = report.encode_attention(weights)
  patches, shares = (
    np.frombuffer(base64.b64decode(found[name]), np.uint8).reshape(6, -1) / 255
    for name in ("patches", "class")
  )
  peak = weights[:, 1:].max()
  decoded = np.concatenate([shares, found["peak"] * patches], axis=1)
  np.testing.assert_allclose(decoded, weights, atol=1 / 500)
  np.testing.assert_allclose(decoded[:, 1:], weights[:, 1:], atol=peak / 500)
  # All of it on the class token.
  assert report.encode_attention(np.eye(3)[:1])["patches"] == "AAA="


def test_pictures_are_those_the_model_saw(evaluated, data):
  by_number = {s["number"]: s for s in data["sentences"]}
  # The long sentence has the picture of the first; the others their own.
  assert by_number[14]["picture"] == by_number[1]["picture"]
  assert len(data["pictures"]) == 6
  for number, sentence in by_number.items():
    has = evaluated.examples.split.sentences[number - 1].image != ""
    assert ("picture" in sentence) == ("attention" in sentence) == has
  uri = data["pictures"][by_number[2]["picture"]]
  image = images.decode(base64.b64decode(uri.partition(",")[2]))
  error = np.asarray(image, int) - evaluated.examples.rows(24, [1])["pixels"][0]
  assert np.abs(error).mean() < 40  # noise, compressed; unrelated: 85


WITHOUT = [{"model.vit.enabled": False}, TEXT_ONLY]
WITHOUT += [{"model.fusion": "concatenation"}]


@pytest.mark.parametrize("fields", WITHOUT)
def test_models_without_weights_have_no_heat_map(evaluated, workdir, fields):
  config = replace(evaluated.examples.config, fields)
  examples = with_config(workdir, config)
  # Nothing is computed again: there is no evaluator.
  other = evaluated._replace(examples=examples, evaluator=None)
  data = report.collect(other, workdir, "test")
  assert len(data["sentences"]) == 14
  assert not any("attention" in s for s in data["sentences"])
  assert bool(data["pictures"]) == config.model.multimodal


def test_a_cut_split_has_its_errors(evaluated, workdir, data, monkeypatch):
  wrong = {
    s["number"]
    for s in data["sentences"]
    if any(e[-1] != "correct" for e in s["entities"])
  }
  assert data["note"] == "14 of the split's 14 sentences."
  assert 3 < len(wrong) < 12
  monkeypatch.setattr(report, "MAX_SENTENCES", len(wrong) + 2)
  cut = report.collect(evaluated, workdir, "test")
  numbers = [s["number"] for s in cut["sentences"]]
  assert len(numbers) == len(wrong) + 2 and wrong < set(numbers)
  assert numbers == sorted(numbers)
  assert f"14 sentences: of the {len(wrong)} with an error" in cut["note"]
  assert cut["scores"] == data["scores"]
  # The bytes, too, have a bound.
  monkeypatch.setattr(report, "MAX_BYTES", 3000)
  small = report.collect(evaluated, workdir, "test")
  assert 1 < len(small["sentences"]) < len(wrong)
  assert 1500 < len(json.dumps([small["sentences"], small["pictures"]])) < 4000

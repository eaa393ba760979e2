"""A model taken from its run: it tags as the run does, and is whole or refused."""

import json
import pathlib
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy

from mner_jax import cli
from mner_jax.config import UserError, replace
from mner_jax.evaluation import model_folder
from mner_jax.predict import Tagger
from tests.conftest import full_disk, read_jsonl
from tests.training.test_loop import command, spawn

PREDICT = "mner_jax/predict.py"


@pytest.fixture(scope="module")
def run(shared_run):
  return shared_run("images") / "run"


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
  folder = tmp_path_factory.mktemp("saved") / "new" / "model"
  ended = command(PREDICT, f"--workdir={run}", f"--save={folder}")
  assert ended == (0, "", "")
  return folder


def test_it_tags_as_eval_does(run, saved, trained, tmp_path, monkeypatch):
  """In a process of its own, from a cache as the Hub's client keeps it."""
  sentences = trained[1].examples.split.sentences
  records = [{"tokens": s.words, "image": s.image} for s in sentences]
  (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)))
  repo = tmp_path / "models--someone--ner"
  shutil.copytree(saved, repo / "blobs")
  for path in filter(pathlib.Path.is_file, (repo / "blobs").rglob("*")):
    link = repo / "snapshots/0" / path.relative_to(repo / "blobs")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(path)
  (repo / "refs").mkdir()
  (repo / "refs/main").write_text("0")
  monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  flags = f"--input={tmp_path}/in.jsonl", f"--images={run.parent}/data/images"
  process = spawn("-m", "mner_jax.predict", "--workdir=someone/ner", *flags)
  out, err = process.communicate()
  assert process.returncode == 0, err
  tags = [json.loads(line)["tags"] for line in out.splitlines()]
  records = read_jsonl(run / "test_predictions.jsonl")
  assert tags == [record["tags"] for record in records]


def test_its_parameters_are_those_of_the_run(run, saved):
  config, params, _ = model_folder.load(saved)
  whole, wanted, _ = model_folder.load(run)
  jax.tree.map(np.testing.assert_array_equal, params, wanted)
  assert (config.model, config.tags) == (whole.model, whole.tags)
  with pytest.raises(UserError, match="not a run but a saved model"):
    model_folder.save(saved, saved.parent / "again")


def test_nothing_names_the_machine(run, saved):
  names = {str(p.relative_to(saved)) for p in saved.rglob("*") if p.is_file()}
  files = {"README.md", "config.json", "manifest.json", "model.safetensors"}
  assert names == files | {"tokenizer/tokenizer.json"}
  for name in names:
    assert str(run.parent).encode() not in (saved / name).read_bytes()
  data = cli.read_workdir(saved).data
  assert (data.path, data.images, data.cache_dir) == ("data", "images", "")


def test_paths_of_weights_go_and_hub_names_stay(tiny, tmp_path):
  fields = {
    "model.text.weights": "google-bert/bert-base",
    "model.vit.weights": str(tmp_path / "vit"),
    "init_from": "runs/first",
  }
  given = replace(tiny, fields)
  model, found = given.model, model_folder._without_paths(given)
  assert found.model.text.weights == model.text.weights
  assert found.model.vit.weights == "vit"
  assert found.init_from == "first"


def test_the_card_holds_the_scores_of_the_run(run, saved):
  card = huggingface_hub.ModelCard.load(saved / "README.md")
  scores = json.loads((run / "test_metrics.json").read_text())
  assert card.data.language == ["en", "de"]
  assert card.data.library_name == "mner_jax" and card.data.license is None
  results = card.data.eval_results
  found = {(x.dataset_config, x.metric_type): x.metric_value for x in results}
  groups = {"all": scores, **scores["per_language"]}
  assert set(groups) == {"all", "en", "de"}
  names = "f1", "precision", "recall"
  want = {(group, x): row[x] for group, row in groups.items() for x in names}
  assert found == want
  config = cli.read_workdir(run)
  english = next(x for x in card.text.splitlines() if x.startswith("en "))
  assert english.split()[-1] == str(scores["per_language"]["en"]["support"])
  assert f"| seed | {config.seed} |" in card.text
  assert config.data.fingerprint in card.text
  assert f"| step {scores['checkpoint_step']}, best on dev |" in card.text


def put(content):
  return lambda path: path.write_bytes(content)


def cut(path):
  path.write_bytes(path.read_bytes()[:-9])


def arrays(changes):
  """Puts these among the arrays of a file; None takes one away."""

  def change(path):
    found = safetensors.numpy.load_file(path) | changes
    left = {name: x for name, x in found.items() if x is not None}
    safetensors.numpy.save_file(left, path)

  return change


def hashes(path):
  """Writes the manifest of the files as they are, as somebody else would."""
  path.write_text(json.dumps(model_folder._hashes(path.parent)))


MODEL, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"
BERT = b'{"model_type": "bert", "architectures": ["BertModel"]}'
BIAS, ZEROS = "emissions/bias", np.zeros(2)
OURS = "in the model"
unlink = pathlib.Path.unlink
# ({file: what happens to it}, message).
BAD = [
  ({MODEL: cut}, "model.safetensors: not as in manifest.json"),
  (
    {CONFIG: put(b"{}")},
    r"\(config.json: not as in manifest.json\); copy or download it again",
  ),
  ({"tokenizer": shutil.rmtree}, "tokenizer.json: missing"),
  ({MODEL: unlink}, "model.safetensors: missing"),
  (
    {MANIFEST: unlink, CONFIG: put(BERT)},
    r"not a whole model of `.* --save` \(manifest.json: missing\)",
  ),
  ({MANIFEST: put(b"{}")}, "format, model.safetensors, config.json"),
  ({MANIFEST: put(b"{")}, "manifest.json: not valid JSON"),
]
# With a manifest of the changed file.
HASHED = [
  ({MODEL: put(b"\x80\x04N.")}, "model.safetensors: cannot be used"),
  (
    {CONFIG: put(BERT)},
    "config.json: not a run's settings .*no setting architectures",
  ),
  ({MODEL: arrays({BIAS: None})}, f"{BIAS} is missing, {OURS} float32"),
  ({MODEL: arrays({"more": ZEROS})}, rf"more is float64\(2,\), {OURS} missing"),
  ({MODEL: arrays({BIAS: ZEROS})}, rf"{BIAS} is float64\(2,\), {OURS} float32"),
]
BAD += [(changes | {MANIFEST: hashes}, said) for changes, said in HASHED]


@pytest.mark.parametrize("changes, said", BAD)
def test_what_is_not_whole_is_refused(saved, tmp_path, changes, said):
  folder = shutil.copytree(saved, tmp_path / "copy")
  for name, change in changes.items():
    change(folder / name)
  with pytest.raises(UserError, match=said) as error:
    Tagger.load(folder)
  assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_a_save_that_fails_leaves_nothing(run, tmp_path):
  """As on a full disk: no file may become larger than a few KB."""
  said = "model.safetensors: cannot be written"
  with full_disk(8000), pytest.raises(UserError, match=said):
    model_folder.save(run, tmp_path / "model")
  assert not list(tmp_path.iterdir())
  # A run that is still untested has a card without scores.
  copy = shutil.copytree(run, tmp_path / "run")
  (copy / "test_metrics.json").unlink()
  (tmp_path / "model").mkdir()
  model_folder.save(copy, tmp_path / "model")
  assert "not measured" in (tmp_path / "model" / "README.md").read_text()

"""A model taken from its run: it tags as the run does, and is whole or refused."""

import json
import pathlib
import resource
import shutil
import subprocess
import sys

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy

from mner_jax import cli
from mner_jax.config import UserError, replace
from mner_jax.evaluation import model_folder
from mner_jax.predict import Tagger
from tests.training.test_loop import ROOT, command

PREDICT = "mner_jax/predict.py"


@pytest.fixture(scope="module")
def run(shared_run):
  return shared_run("images") / "run"


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
  folder = tmp_path_factory.mktemp("saved") / "new" / "model"
  result = command(PREDICT, f"--workdir={run}", f"--save={folder}")
  assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
  return folder


def test_it_tags_as_eval_does_from_the_hub(
  run, saved, trained, tmp_path, monkeypatch
):
  """In a process of its own, from a cache as the Hub's client keeps it."""
  evaluated = trained[1]
  for sentence in evaluated.examples.split.sentences:
    record = {"tokens": sentence.words, "image": sentence.image}
    with (tmp_path / "in.jsonl").open("a") as file:
      file.write(json.dumps(record) + "\n")
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
  flags = [
    "--workdir=someone/ner",
    f"--input={tmp_path / 'in.jsonl'}",
    f"--images={run.parent / 'data/images'}",
  ]
  result = subprocess.run(
    [sys.executable, "-m", "mner_jax.predict", *flags],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert result.returncode == 0, result.stderr
  tags = [json.loads(line)["tags"] for line in result.stdout.splitlines()]
  lines = (run / "test_predictions.jsonl").read_text().splitlines()
  assert tags == [json.loads(line)["tags"] for line in lines]


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
  found = {
    (result.dataset_config, result.metric_type): result.metric_value
    for result in card.data.eval_results
  }
  groups = {"all": scores, **scores["per_language"]}
  assert set(groups) == {"all", "en", "de"}
  assert found == {
    (group, metric): row[metric]
    for group, row in groups.items()
    for metric in ("f1", "precision", "recall")
  }
  config = cli.read_workdir(run)
  english = next(x for x in card.text.splitlines() if x.startswith("en "))
  assert english.split()[-1] == str(scores["per_language"]["en"]["support"])
  assert f"| seed | {config.seed} |" in card.text
  assert config.data.fingerprint in card.text
  assert f"| step {scores['checkpoint_step']}, best on dev |" in card.text


def truncate(folder):
  path = folder / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-9])


def edit(name, change):
  """Changes a file, and the manifest too, as somebody else's would be."""

  def edited(folder):
    change(folder / name)
    hashes = json.dumps(model_folder._hashes(folder))
    (folder / "manifest.json").write_text(hashes)

  return edited


def array(change):
  def changed(path):
    arrays = safetensors.numpy.load_file(path)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)

  return edit("model.safetensors", changed)


BERT = '{"model_type": "bert", "architectures": ["BertModel"]}'
BAD = {
  "cut": (truncate, "model.safetensors: not as in manifest.json"),
  "edited": (
    lambda f: (f / "config.json").write_text("{}"),
    r"\(config.json: not as in manifest.json\); copy or download it again",
  ),
  "no tokenizer": (
    lambda f: shutil.rmtree(f / "tokenizer"),
    "tokenizer.json: missing",
  ),
  "no parameters": (
    lambda f: (f / "model.safetensors").unlink(),
    "model.safetensors: missing",
  ),
  "BERT": (
    lambda f: (
      (f / "manifest.json").unlink(),
      (f / "config.json").write_text(BERT),
    ),
    r"not a whole model of `.* --save` \(manifest.json: missing\)",
  ),
  "another's manifest": (
    lambda f: (f / "manifest.json").write_text("[]"),
    "format, model.safetensors, config.json",
  ),
  "no JSON": (
    lambda f: (f / "manifest.json").write_text("{"),
    "manifest.json: not valid JSON",
  ),
  "no safetensors": (
    edit("model.safetensors", lambda p: p.write_bytes(b"\x80\x04N.")),
    "model.safetensors: cannot be read",
  ),
  "config of BERT": (
    edit("config.json", lambda p: p.write_text(BERT)),
    "config.json: not a run's settings .*no setting architectures",
  ),
  "an array less": (
    array(lambda arrays: arrays.pop("emissions/bias")),
    "emissions/bias is missing, in the model of config.json float32",
  ),
  "an array more": (
    array(lambda arrays: arrays.update(more=np.zeros(2))),
    r"more is float64\(2,\), in the model of config.json missing",
  ),
  "another shape": (
    array(lambda arrays: arrays.update({"emissions/bias": np.zeros(2)})),
    r"emissions/bias is float64\(2,\), in the model",
  ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_whole_is_refused(saved, tmp_path, name):
  damage, said = BAD[name]
  folder = shutil.copytree(saved, tmp_path / "copy")
  damage(folder)
  with pytest.raises(UserError, match=said) as error:
    Tagger.load(folder)
  assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_a_save_that_fails_leaves_nothing(run, tmp_path):
  """As on a full disk: no file may become larger than a few KB."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
    with pytest.raises(UserError, match="model.safetensors: cannot be written"):
      model_folder.save(run, tmp_path / "model")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert not list(tmp_path.iterdir())
  # A run that is still untested has a card without scores.
  copy = shutil.copytree(run, tmp_path / "run")
  (copy / "test_metrics.json").unlink()
  (tmp_path / "model").mkdir()
  model_folder.save(copy, tmp_path / "model")
  assert "not measured" in (tmp_path / "model" / "README.md").read_text()

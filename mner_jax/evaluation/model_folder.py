"""A model in a folder of its own, to keep, to pass on or to put on the Hub.

  model.safetensors         the parameters, each under its path in the model
  config.json               the run's; of a path only its last part is left
  tokenizer/tokenizer.json
  manifest.json             [bytes, hash] of these, compared before they are used
  README.md                 the model card, which may be edited

Only safetensors and JSON are read: nothing in such a folder is executed.
"""

import importlib.resources
import json
import os
import re
import tempfile

import huggingface_hub
import jax
import safetensors.numpy
from etils import epath
from flax import traverse_util

from mner_jax import checkpoint, cli, pretrained, sharding
from mner_jax import config as config_lib
from mner_jax.config import UserError
from mner_jax.data import files, hub, manifest, wordpiece
from mner_jax.evaluation import evaluate, report

WEIGHTS = "model.safetensors"
_CONFIG, _TOKENIZER = "config.json", "tokenizer/tokenizer.json"
_FILES = (WEIGHTS, _CONFIG, _TOKENIZER)
_ONE_DEVICE = dict.fromkeys(
  ("mesh.data", "mesh.fsdp", "mesh.tensor", "train.accumulate"), 1
)


def load(name):
  """Returns (Config, parameters, tokenizer) of a model, for one device.

  Args:
    name: the folder of a run, of which the checkpoint that is best on dev is
      loaded; or one that `save` wrote; or the Hub name of such a folder.

  Raises a UserError if it is none of these, damaged or edited.
  """
  folder, config, params, _ = _open(name)
  return config, params, wordpiece.load(folder / "tokenizer")


def _open(name):
  """(folder, Config, parameters, step or, of a saved model, None)."""
  folder = hub.folder(str(name), safe=True)
  saved = any((folder / n).exists() for n in (WEIGHTS, manifest.NAME))
  if saved:
    _check(folder)
  config = config_lib.replace(cli.read_workdir(folder), _ONE_DEVICE)
  abstract = evaluate.abstract_params(config, mesh(config))
  if saved:
    return folder, config, _read(folder / WEIGHTS, abstract), None
  step, params = checkpoint.restore_best(folder, abstract)
  return folder, config, params, step


def mesh(config):
  """The mesh of the first device, for a Config of `load`."""
  return sharding.make_mesh(config.mesh, jax.devices()[:1])


def _check(folder):
  """Raises a UserError if a file is not the one that `save` wrote."""
  names = [n for n in (manifest.NAME, *_FILES) if not (folder / n).exists()]
  problem = "missing"
  if not names:
    known, wanted = files.read_json(folder / manifest.NAME), _hashes(folder)
    names = [name for name in wanted if known.get(name) != wanted[name]]
    problem = f"not as in {manifest.NAME}"
  if names:
    raise UserError(
      f"{folder}: not a whole model of `mner_jax.predict --save`"
      f" ({', '.join(names)}: {problem}); copy or download it again"
    )


def _hashes(folder):
  found = {name: files.hash_file(folder / name) for name in _FILES}
  return {"format": manifest.FORMAT, **found}


def _read(path, abstract):
  """Returns the parameters in a file, placed like `abstract`."""
  wanted = traverse_util.flatten_dict(abstract, sep="/")
  try:
    found = safetensors.numpy.load_file(path)
    stored, needed = (
      {name: f"{x.dtype}{x.shape}" for name, x in arrays.items()}
      for arrays in (found, wanted)
    )
    checkpoint.check_equal(stored, needed)
  except Exception as error:  # safetensors raises several kinds
    raise UserError(f"{path}: cannot be used ({error})") from None
  placed = {n: jax.device_put(found[n], x.sharding) for n, x in wanted.items()}
  return traverse_util.unflatten_dict(placed, sep="/")


def save(workdir, folder):
  """Writes the best model of a run to a new or empty local folder, or nothing.

  Raises a UserError if the run has none or is damaged.
  """
  target = epath.Path(os.path.abspath(folder))
  free = not target.exists() or target.is_dir() and not any(target.iterdir())
  if files.in_bucket(folder) or not free:
    raise UserError(f"--save: {folder} is not a new or empty local folder")
  run, config, params, step = _open(workdir)
  if step is None:
    raise UserError(f"{workdir}: not a run but a saved model; copy the folder")
  config = _without_paths(config)
  arrays = traverse_util.flatten_dict(jax.device_get(params), sep="/")
  contents = {
    WEIGHTS: safetensors.numpy.save(arrays),
    _CONFIG: config_lib.to_json(config),
    _TOKENIZER: (run / _TOKENIZER).read_text(),
    "README.md": _card(target.name, config, params, step, _scores(run, step)),
  }
  target.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=target.parent) as parent:
    written = epath.Path(parent) / target.name
    for name, content in contents.items():
      files.write(written / name, content)
    files.write(written / manifest.NAME, json.dumps(_hashes(written)) + "\n")
    os.rename(written, target)  # epath's refuses an empty folder, too


def _without_paths(config):
  """Returns `config` without the folders of the machine that trained it."""
  fields = config_lib.flatten(config)
  weights = [f"model.{name}.weights" for name in pretrained.ENCODERS]
  for name in ("data.path", "data.images", "init_from", *weights):
    path = epath.Path(fields[name])
    on_hub = name in weights and re.fullmatch(r"\w[\w.-]*/[^/]+", str(path))
    if not on_hub or path.is_dir():
      fields[name] = path.name
  return config_lib.replace(config, fields | {"data.cache_dir": ""})


def _scores(run, step):
  """Returns what `test_metrics.json` holds if it is of this step, or None."""
  path = run / "test_metrics.json"
  scores = files.read_json(path) if path.exists() else {}
  return scores if scores.get("checkpoint_step") == step else None


def _card(name, config, params, step, scores):
  """Returns the text of the model card."""
  data = config.data
  groups = {"all": scores, **scores["per_language"]} if scores else {}
  of = {"dataset_type": data.path, "dataset_name": data.path}
  of |= {"dataset_split": "test", "task_type": "token-classification"}
  results = [
    huggingface_hub.EvalResult(
      **of, dataset_config=group, metric_type=metric, metric_value=row[metric]
    )
    for group, row in groups.items()
    for metric in ("f1", "precision", "recall")
  ]
  header = huggingface_hub.ModelCardData(
    language=list(data.languages), model_name=name, eval_results=results
  )
  facts = report.run_facts(config, params, step)
  facts += [("fingerprint of its sentences", data.fingerprint)]
  card = importlib.resources.files("mner_jax.evaluation") / "model_card.md"
  return card.read_text(encoding="utf-8").format(
    header=header,
    name=name,
    labels=", ".join(data.labels),
    languages=", ".join(data.languages),
    scores=evaluate.table(scores) if scores else "not measured",
    facts="\n".join(f"| {label} | {value} |" for label, value in facts),
  )

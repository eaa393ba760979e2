"""Published weights against transformers, from files on disk."""

import json

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mner_jax import pretrained
from mner_jax.config import Config, UserError, replace
from mner_jax.data import wordpiece
from mner_jax.models.bert import Bert
from mner_jax.models.resnet import IMAGENET_STATISTICS, ResNet
from mner_jax.models.vit import PIXEL_STATISTICS, Vit
from mner_jax.training.loop import settle
from tests.conftest import LONG
from tests.parity import reference
from tests.training import test_loop as runs

MODULES = {"text": Bert, "vit": Vit, "resnet": ResNet}


def layers(number, hidden, heads):
  """Sizes of transformer layers, as config.json has them."""
  return {
    "num_hidden_layers": number,
    "hidden_size": hidden,
    "num_attention_heads": heads,
    "intermediate_size": 4 * hidden,
  }


TINY, FULL = layers(3, 32, 4), layers(1, 768, 12)
full_width = LONG(FULL, id="full width")


def config_of(folder, name, **settings):
  """The Config with the sizes of a folder."""
  fields = {f"model.{name}.{k}": v for k, v in settings.items()}
  fields |= {"data.buckets": (32,), "model.fusion_heads": 4}
  fields[f"model.{name}.weights"] = str(folder)
  return pretrained.fill_sizes(replace(Config(), fields))


def load(folder, name, *inputs, **settings):
  """Our module with the sizes of a folder, and the parameters in it."""
  config = config_of(folder, name, **settings)
  net = MODULES[name](getattr(config.model, name))
  return net, load_into(net, folder, *inputs)


def load_into(net, folder, *inputs):
  abstract = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  return reference.load_encoder(folder, abstract["params"])


def assert_same_states(net, params, inputs, want, mask=...):
  """Where the mask is True; the pooled output too, if ours has one."""
  ours = jax.jit(net.apply)({"params": params}, *inputs)
  states, *pooled = jax.tree.leaves(ours)
  theirs = want.last_hidden_state[mask], want.pooler_output
  for x, y in zip((states[mask], *pooled), theirs, strict=False):
    np.testing.assert_allclose(x, y, rtol=0, atol=2e-5)


def text_inputs(vocab):
  ids = np.random.default_rng(0).integers(5, vocab, (4, 17)).astype(np.int32)
  mask = np.arange(17)[None] < np.array([17, 9, 3, 12])[:, None]
  return ids, mask


def text_states(model, ids, mask):
  with torch.no_grad():
    ids, mask = torch.tensor(ids).long(), torch.tensor(mask).long()
    return model(ids, attention_mask=mask)


@pytest.mark.parametrize("size", [TINY, full_width])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_text_encoders(tmp_path, family, size):
  settings = dict(size, vocab_size=200, attn_implementation="eager")
  settings["max_position_embeddings"] = 64
  if family != "bert":
    settings |= {"max_position_embeddings": 66, "type_vocab_size": 1}
    settings["layer_norm_eps"] = 1e-5
  hf = transformers.AutoConfig.for_model(family, **settings)
  model = reference.randomise(transformers.AutoModel.from_config(hf))
  model.save_pretrained(tmp_path)
  ids, mask = text_inputs(200)
  ids = np.where(mask, ids, hf.pad_token_id).astype(np.int32)
  want = text_states(model, ids, mask)
  frozen = {"frozen_layers": int(family == "bert")}
  net, params = load(tmp_path, "text", ids, mask, **frozen)
  assert net.config.layer_norm_eps == hf.layer_norm_eps
  assert_same_states(net, params, (ids, mask), want, mask)


def pictures(size, rows=2):
  rng = np.random.default_rng(0)
  return rng.integers(256, size=(rows, size, size, 3), dtype=np.uint8)


# Style, and side of the pictures that are shown; the weights' own is 64.
SHOWN = [("clip", 64), ("clip", 96), ("google", 64), ("google", 32)]


@pytest.mark.parametrize("size", [TINY, full_width])
@pytest.mark.parametrize(("style", "shown"), SHOWN)
def test_vision_transformers(tmp_path, style, size, shown):
  kind = {"clip": "clip_vision_model", "google": "vit"}[style]
  sizes = dict(size, image_size=64, patch_size=8)
  hf = transformers.AutoConfig.for_model(kind, **sizes)
  model = transformers.AutoModel.from_config(hf)
  reference.randomise(model).save_pretrained(tmp_path)
  pixels = pictures(shown)
  side = 0 if shown == 64 else shown  # 0 takes the size of the weights
  net, params = load(tmp_path, "vit", pixels, image_size=side)
  assert net.config.style == style
  x = reference.pixel_values(torch.tensor(pixels), PIXEL_STATISTICS[style])
  with torch.no_grad():
    want = model(x, interpolate_pos_encoding=True)
  assert_same_states(net, params, (pixels,), want)


@pytest.mark.parametrize("stages", [(2, 1), LONG((3, 4, 6, 3))])
def test_resnet(tmp_path, monkeypatch, stages):
  """transformers' ResNetModel, saved under torchvision's names."""
  monkeypatch.setitem(pretrained._RESNETS, "resnet50", stages)
  hf = transformers.ResNetConfig(
    depths=list(stages), hidden_sizes=[256, 512, 1024, 2048][: len(stages)]
  )
  model = reference.randomise(transformers.ResNetModel(hf))
  state = model.state_dict().items()
  named = {reference.torchvision_name(n): x.contiguous() for n, x in state}
  config, pixels = {"architecture": "resnet50"}, pictures(64)
  reference.write_folder(tmp_path, config, named)
  net, params = load(tmp_path, "resnet", pixels)
  x = reference.pixel_values(torch.tensor(pixels), IMAGENET_STATISTICS)
  with torch.no_grad():
    grid = model(x).last_hidden_state  # [B, C, h, w]
  want = grid.flatten(2).transpose(1, 2).numpy()
  # Random weights grow through 50 layers; published ones stay near 1.
  scale = max(np.abs(want).max(), 1)
  got = jax.jit(net.apply)({"params": params}, pixels)
  assert np.abs(np.array(got) - want).max() / scale <= 3e-5
  # Without statistics it is no batch norm that can be folded.
  del named["layer1.0.bn1.running_var"]
  save_file(named, tmp_path / "model.safetensors")
  block = "stage1_block0/bn1"
  lacks = f"the file lacks: {block}/bias, {block}/scale$"  # and no more
  with pytest.raises(UserError, match=lacks):
    load_into(net, tmp_path, pixels)


@pytest.fixture
def bert(tmp_path):
  """A small BERT, saved; returns it and a function that loads the folder."""
  hf = transformers.BertConfig(vocab_size=50, **TINY)
  model = reference.randomise(transformers.BertModel(hf))
  model.save_pretrained(tmp_path)
  return model, lambda: load(tmp_path, "text", *text_inputs(50))[1]


def assert_equal(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_other_weights_are_refused_with_both_sides(tmp_path, bert):
  _, load_bert = bert
  file = tmp_path / "model.safetensors"
  state = load_file(file)
  state["encoder.extra.weight"] = state.pop("pooler.dense.weight")
  state["embeddings.LayerNorm.weight"] = torch.zeros(5)
  state["encoder.layer.2.intermediate.dense.bias"] = torch.zeros(5)
  del state["encoder.layer.1.output.dense.weight"]
  # The same array under its old name: one of the two is not used.
  state["encoder.layer.0.output.LayerNorm.beta"] = torch.zeros(32)
  save_file(state, file)
  with pytest.raises(UserError) as error:
    load_bert()
  said = str(error.value)
  assert "lacks: layer_1/output/kernel, pooler/kernel;" in said
  assert "encoder.extra.weight" in said
  assert "layer_2/intermediate/bias is (128,), in the file (5,)" in said
  assert "encoder.layer.0.output.LayerNorm." in said
  assert "embeddings_norm/scale is (32,), in the file (5,)" in said
  file.write_bytes(file.read_bytes()[:5000])
  with pytest.raises(UserError, match="model.safetensors: cannot be read"):
    load_bert()
  file.unlink()
  with pytest.raises(UserError, match="no .*safetensors"):
    load_bert()


@pytest.mark.parametrize("legacy", [False, True])
def test_pytorch_files(tmp_path, bert, legacy):
  model, load_bert = bert
  want = load_bert()
  (tmp_path / "model.safetensors").unlink()
  # Files of 2019 have a prefix, heads, and no archive around the pickle.
  state = {f"bert.{name}": x for name, x in model.state_dict().items()}
  if legacy:
    for new, old in (("Norm.weight", "Norm.gamma"), ("Norm.bias", "Norm.beta")):
      state = {name.replace(new, old): x for name, x in state.items()}
  state["cls.predictions.bias"] = torch.zeros(50)
  file = tmp_path / "pytorch_model.bin"
  torch.save(state, file, _use_new_zipfile_serialization=not legacy)
  torch.save(Harmful, tmp_path / "training_args.bin")  # by transformers, beside
  assert_equal(load_bert(), want)


class Harmful:
  def __reduce__(self):
    return (open, ("harm", "w"))


def test_no_pickle_is_executed(tmp_path, bert, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "model.safetensors").unlink()
  torch.save({"embeddings": Harmful()}, tmp_path / "pytorch_model.bin")
  with pytest.raises(UserError, match="pytorch_model.bin: cannot be read"):
    bert[1]()
  assert not (tmp_path / "harm").exists()
  monkeypatch.setattr(torch, "__version__", "2.5.1")
  with pytest.raises(UserError, match="needs torch >= 2.6"):
    bert[1]()


def test_sharded_and_bfloat16_files(tmp_path, bert):
  model, load_bert = bert
  want = load_bert()
  (tmp_path / "model.safetensors").unlink()
  model.save_pretrained(tmp_path, max_shard_size="20KB")
  assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
  assert_equal(load_bert(), want)
  for file in tmp_path.glob("model-*.safetensors"):
    save_file({name: x.bfloat16() for name, x in load_file(file).items()}, file)
  rounded = jax.tree.map(lambda x: x.astype("bfloat16").astype("f4"), want)
  assert_equal(load_bert(), rounded)


def test_a_padded_vocabulary(tmp_path, bert):
  config = config_of(tmp_path, "text", vocab_multiple=16)
  with pytest.raises(UserError, match="has 51 pieces, more than the 50"):
    settle(config, ("PER",), "", num_pieces=51)
  config = settle(config, ("PER",), "", num_pieces=50)
  assert config.model.text.vocab_size == 64
  params = load_into(Bert(config.model.text), tmp_path, *text_inputs(50))
  table = np.array(params["word_embeddings"]["embedding"])
  assert table.shape == (64, 32)
  assert table[:50].any(axis=1).all() and not table[50:].any()


def save_roberta(folder):
  sizes = TINY | {"max_position_embeddings": 66, "type_vocab_size": 1}
  hf = transformers.RobertaConfig(vocab_size=50, **sizes)
  transformers.RobertaForMaskedLM(hf).save_pretrained(folder)


def test_weights_of_another_family_are_refused(tmp_path):
  save_roberta(tmp_path)
  path = tmp_path / "config.json"
  settings = json.loads(path.read_text())
  # A table of more positions than the file says is not cut.
  cases = {
    "file lacks: embeddings_norm/bias, .* roberta": {"model_type": "bert"},
    "config.json: neither model_type nor": {"model_type": "gpt2"},
    "position_embeddings/embedding is": {"max_position_embeddings": 64},
    "data.buckets must end at": {"max_position_embeddings": 20},
    "hidden_act is 'relu'; only 'gelu'": {"hidden_act": "relu"},
    "config.json: no field 'vocab_size'": {"vocab_size": None},
    "config.json: no field 'pad_token_id'": {"pad_token_id": None},
  }
  for said, changed in cases.items():
    path.write_text(json.dumps(settings | changed))
    with pytest.raises(UserError, match=said):
      load(tmp_path, "text", *text_inputs(50))
  path.write_text(json.dumps(settings))
  with pytest.raises(UserError, match="is a 'roberta', for model.text"):
    load(tmp_path, "vit", pictures(32))


def test_weights_without_a_pooler_are_trained(tmp_path):
  """RoBERTa's: the pooler is drawn, which is said; all else is the file's."""
  weights, workdir = tmp_path / "weights", tmp_path / "run"
  save_roberta(weights)
  wordpiece.save(wordpiece.bert_tokenizer(wordpiece.SPECIAL), weights)
  runs.write_corpus(tmp_path / "data")
  fields = {"model.text.weights": str(weights), "optim.frozen": ("^text/",)}
  fields = runs.experiment(tmp_path, fields)
  config = runs.write_config(tmp_path / "c.py", fields)
  flags = f"--config={config}", f"--workdir={workdir}", "--stop_at=1"
  err = runs.command("train.py", *flags, check=True).stderr
  assert "text/pooler: the weights have none" in err
  found = runs.arrays(workdir)
  assert found["params/text/pooler/kernel"].std() > 0.01
  ours = found["params/text/word_embeddings/embedding"]
  file = load_file(weights / "model.safetensors")
  assert_equal(ours, file["roberta.embeddings.word_embeddings.weight"].numpy())

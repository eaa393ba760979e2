"""Published weights against transformers, from files on disk."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [parity]")
transformers = pytest.importorskip(
  "transformers", reason="needs the extra [parity]"
)

from safetensors.torch import load_file, save_file  # noqa: E402

from mner_jax import pretrained  # noqa: E402
from mner_jax.config import Config, UserError, replace  # noqa: E402
from mner_jax.data import hub  # noqa: E402
from mner_jax.models.bert import Bert  # noqa: E402
from mner_jax.models.resnet import (  # noqa: E402
  IMAGENET_STATISTICS,
  ResNet,
)
from mner_jax.models.vit import PIXEL_STATISTICS, Vit  # noqa: E402
from mner_jax.training.loop import settle  # noqa: E402
from tests.parity import reference  # noqa: E402

TINY = {
  "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
  "intermediate_size": 64,
}  # fmt: skip
FULL = {
  "hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12,
  "intermediate_size": 3072,
}  # fmt: skip


def randomise(model):
  """Weights that a mistake shows in: biases and norms away from 0 and 1."""
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for p in model.parameters():
      noise = torch.randn(p.shape, generator=generator)
      p.add_(noise * (p.shape[-1] ** -0.5 if p.ndim == 2 else 0.1))
    for name, b in model.named_buffers():
      if name.endswith("running_mean"):
        b.add_(0.1 * torch.randn(b.shape, generator=generator))
      if name.endswith("running_var"):
        b.mul_(1 + torch.rand(b.shape, generator=generator))
  return model.eval()


def load(folder, name, module, *inputs, **settings):
  """Our module's parameters, read from the folder."""
  fields = {f"model.{name}.{k}": v for k, v in settings.items()}
  fields |= {"data.buckets": (32,), "model.fusion_heads": 4}
  fields[f"model.{name}.weights"] = str(folder)
  config = pretrained.resolve(replace(Config(), fields))
  sizes = getattr(config.model, name)
  net = module(sizes)
  init = jax.jit(net.init)(jax.random.key(0), *inputs)["params"]
  params = pretrained.load_encoder(hub.folder(str(folder)), init)
  return net, params


def text_inputs(vocab, rows=4, length=17):
  rng = np.random.default_rng(0)
  ids = rng.integers(5, vocab, (rows, length)).astype(np.int32)
  mask = np.arange(length)[None] < np.array([length, 9, 3, 12])[:, None]
  return ids, mask


def reference_text(model, ids, mask, pad=0):
  """Hidden states and pooled output of transformers, padding in place."""
  ids = np.where(mask, ids, pad)
  with torch.no_grad():
    out = model(
      torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()
    )
  return ids.astype(np.int32), out


@pytest.mark.parametrize("size", [TINY, FULL], ids=["tiny", "full width"])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_text_encoders(tmp_path, family, size):
  settings = dict(size, vocab_size=200, attn_implementation="eager")
  if family == "bert":
    hf = transformers.BertConfig(max_position_embeddings=64, **settings)
    model = transformers.BertModel(hf)
  else:
    hf = transformers.XLMRobertaConfig(
      max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5,
      **settings,
    )  # fmt: skip
    model = transformers.XLMRobertaModel(hf)
  randomise(model).save_pretrained(tmp_path)
  ids, mask = text_inputs(200)
  ids, want = reference_text(model, ids, mask, pad=hf.pad_token_id)
  net, params = load(tmp_path, "text", Bert, ids, mask)
  assert net.config.layer_norm_eps == hf.layer_norm_eps
  states, pooled = jax.jit(net.apply)({"params": params}, ids, mask)
  error = np.abs(np.array(states) - want.last_hidden_state.numpy())
  assert error[mask].max() <= 2e-5
  assert np.abs(np.array(pooled) - want.pooler_output.numpy()).max() <= 2e-5


def test_the_tolerance_catches_a_wrong_eps_and_a_tanh_gelu(
  tmp_path, monkeypatch
):
  hf = transformers.BertConfig(
    vocab_size=200, max_position_embeddings=64, attn_implementation="eager",
    **dict(TINY, num_hidden_layers=12),
  )  # fmt: skip
  model = randomise(transformers.BertModel(hf))
  model.save_pretrained(tmp_path)
  ids, mask = text_inputs(200)
  ids, want = reference_text(model, ids, mask)
  net, params = load(tmp_path, "text", Bert, ids, mask)

  def error(net):
    states, _ = net.apply({"params": params}, ids, mask)
    return np.abs(
      np.array(states) - want.last_hidden_state.numpy()
    )[mask].max()  # fmt: skip

  assert error(net) <= 2e-5
  wrong = dataclasses.replace(net.config, layer_norm_eps=1e-5)
  assert error(Bert(wrong)) > 2e-5
  exact = jax.nn.gelu
  monkeypatch.setattr(
    jax.nn, "gelu", lambda x, approximate: exact(x, approximate=True)
  )
  assert error(net) > 2e-5


def pictures(size, rows=2):
  rng = np.random.default_rng(0)
  return rng.integers(256, size=(rows, size, size, 3), dtype=np.uint8)


def torch_pixels(pixels, mean, std):
  x = (pixels / 255.0 - np.array(mean)) / np.array(std)
  return torch.tensor(x, dtype=torch.float32).permute(0, 3, 1, 2)


def save_vision(folder, style, settings):
  """A published ViT of a style with random weights, in a folder."""
  if style == "clip":
    model = transformers.CLIPVisionModel(
      transformers.CLIPVisionConfig(**settings)
    )
  else:
    model = transformers.ViTModel(transformers.ViTConfig(**settings))
  randomise(model).save_pretrained(folder)
  return model


@pytest.mark.parametrize("size", [TINY, FULL], ids=["tiny", "full width"])
@pytest.mark.parametrize("style", ["clip", "google"])
def test_vision_transformers(tmp_path, style, size):
  settings = dict(
    size, image_size=64, patch_size=16, attn_implementation="eager"
  )
  model = save_vision(tmp_path, style, settings)
  pixels = pictures(64)
  net, params = load(tmp_path, "vit", Vit, pixels)
  assert net.config.style == style
  got = jax.jit(net.apply)({"params": params}, pixels)
  with torch.no_grad():
    want = model(torch_pixels(pixels, *PIXEL_STATISTICS[style]))
  error = np.abs(np.array(got) - want.last_hidden_state.numpy()).max()
  assert error <= 2e-5


@pytest.mark.parametrize("style", ["clip", "google"])
def test_the_tolerance_catches_the_other_eps_and_gelu(
  tmp_path, style, monkeypatch
):
  settings = dict(TINY, num_hidden_layers=12, image_size=64, patch_size=16)
  model = save_vision(tmp_path, style, settings)
  pixels = pictures(64)
  net, params = load(tmp_path, "vit", Vit, pixels)
  with torch.no_grad():
    want = model(torch_pixels(pixels, *PIXEL_STATISTICS[style]))

  def error(net):
    got = jax.jit(net.apply)({"params": params}, pixels)
    return np.abs(np.array(got) - want.last_hidden_state.numpy()).max()

  assert error(net) <= 2e-5
  other = 1e-12 if style == "clip" else 1e-5
  wrong = dataclasses.replace(net.config, layer_norm_eps=other)
  assert error(Vit(wrong)) > 2e-5
  exact = jax.nn.gelu
  if style == "clip":
    monkeypatch.setattr(jax.nn, "sigmoid", lambda x: jax.nn.tanh(x) / 2 + 0.5)
  else:
    monkeypatch.setattr(
      jax.nn, "gelu", lambda x, approximate: exact(x, approximate=True)
    )
  assert error(Vit(net.config)) > 2e-5


@pytest.mark.parametrize("image_size", [96, 32])
@pytest.mark.parametrize("style", ["clip", "google"])
def test_other_picture_sizes(tmp_path, style, image_size):
  settings = dict(TINY, image_size=64, patch_size=8)
  model = save_vision(tmp_path, style, settings)
  pixels = pictures(image_size)
  net, params = load(tmp_path, "vit", Vit, pixels, image_size=image_size)
  got = jax.jit(net.apply)({"params": params}, pixels)
  with torch.no_grad():
    want = model(
      torch_pixels(pixels, *PIXEL_STATISTICS[style]),
      interpolate_pos_encoding=True,
    )
  error = np.abs(np.array(got) - want.last_hidden_state.numpy()).max()
  assert error <= 2e-5


def test_resnet(tmp_path, monkeypatch):
  """transformers' ResNetModel, saved under torchvision's names."""
  hf = transformers.ResNetConfig(
    depths=[3, 4, 6, 3], layer_type="bottleneck",
    hidden_sizes=[256, 512, 1024, 2048],
    downsample_in_bottleneck=False,
  )  # fmt: skip
  model = randomise(transformers.ResNetModel(hf))
  save_file(
    {
      reference.torchvision_name(n): x.contiguous()
      for n, x in model.state_dict().items()
    },
    tmp_path / "model.safetensors",
  )
  (tmp_path / "config.json").write_text(
    json.dumps({"architecture": "resnet50"})
  )
  pixels = pictures(64)
  net, params = load(tmp_path, "resnet", ResNet, pixels)
  apply = jax.jit(net.apply)
  with torch.no_grad():
    want = model(torch_pixels(pixels, *IMAGENET_STATISTICS)).last_hidden_state
  want = want.permute(0, 2, 3, 1).numpy()
  # Random weights grow through 50 layers; published ones stay near 1.
  scale = max(np.abs(want).max(), 1)

  def error(params):
    return np.abs(np.array(apply({"params": params}, pixels)) - want).max()

  assert error(params) / scale <= 3e-5
  monkeypatch.setattr(pretrained, "_BATCHNORM_EPS", 1e-3)
  wrong = pretrained.load_encoder(hub.folder(str(tmp_path)), params)
  assert error(wrong) / scale > 3e-5


def test_other_weights_are_refused_with_both_sides(tmp_path):
  hf = transformers.BertConfig(vocab_size=50, **TINY)
  model = transformers.BertModel(hf)
  model.save_pretrained(tmp_path)
  ids, mask = text_inputs(50)
  load_bert = functools.partial(load, tmp_path, "text", Bert, ids, mask)
  load_bert()
  file = tmp_path / "model.safetensors"
  state = load_file(file)
  state["encoder.extra.weight"] = state.pop("pooler.dense.weight")
  state["embeddings.LayerNorm.weight"] = torch.zeros(5)
  save_file(state, file)
  with pytest.raises(UserError) as error:
    load_bert()
  said = str(error.value)
  assert "lacks: pooler/kernel" in said and "encoder.extra.weight" in said
  assert "embeddings_norm/scale is (32,), there (5,)" in said
  file.write_bytes(file.read_bytes()[:5000])
  with pytest.raises(UserError, match="model.safetensors"):
    load_bert()
  file.unlink()
  with pytest.raises(UserError, match="no .*safetensors"):
    load_bert()
  with pytest.raises(UserError, match="neither a folder nor a Hub name"):
    hub.folder("/no/such/folder")


def bert(tmp_path, vocab_size=50):
  hf = transformers.BertConfig(vocab_size=vocab_size, **TINY)
  model = randomise(transformers.BertModel(hf))
  model.save_pretrained(tmp_path)
  return model


def equal(a, b):
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize("legacy", [False, True])
def test_pytorch_files(tmp_path, legacy):
  model = bert(tmp_path)
  inputs = text_inputs(50)
  _, want = load(tmp_path, "text", Bert, *inputs)
  (tmp_path / "model.safetensors").unlink()
  file = tmp_path / "pytorch_model.bin"
  # Files of 2019 have a prefix, heads, and no archive around the pickle.
  state = {f"bert.{name}": x for name, x in model.state_dict().items()}
  state["cls.predictions.bias"] = torch.zeros(50)
  torch.save(state, file, _use_new_zipfile_serialization=not legacy)
  _, got = load(tmp_path, "text", Bert, *inputs)
  assert equal(got, want)


class Harmful:
  def __reduce__(self):
    return (open, ("harm", "w"))


def test_no_pickle_is_executed(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  bert(tmp_path)
  (tmp_path / "model.safetensors").unlink()
  torch.save({"embeddings": Harmful()}, tmp_path / "pytorch_model.bin")
  with pytest.raises(UserError, match="pytorch_model.bin: cannot be read"):
    load(tmp_path, "text", Bert, *text_inputs(50))
  assert not (tmp_path / "harm").exists()


def test_sharded_and_bfloat16_files(tmp_path):
  model = bert(tmp_path)
  inputs = text_inputs(50)
  _, want = load(tmp_path, "text", Bert, *inputs)
  (tmp_path / "model.safetensors").unlink()
  model.save_pretrained(tmp_path, max_shard_size="20KB")
  assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
  _, got = load(tmp_path, "text", Bert, *inputs)
  assert equal(got, want)
  for file in tmp_path.glob("model-*.safetensors"):
    save_file({name: x.bfloat16() for name, x in load_file(file).items()}, file)
  _, got = load(tmp_path, "text", Bert, *inputs)
  rounded = jax.tree.map(
    lambda x: np.array(x).astype("bfloat16").astype(np.float32), want
  )
  assert equal(got, rounded)


def test_a_padded_vocabulary(tmp_path):
  bert(tmp_path)
  fields = {
    "model.text.weights": str(tmp_path),
    "model.text.vocab_multiple": 16,
    "data.buckets": (32,),
    "model.fusion_heads": 4,
  }
  config = pretrained.resolve(replace(Config(), fields))
  with pytest.raises(UserError, match="has 51 pieces, more than the 50"):
    settle(config, ("PER",), "", num_pieces=51)
  config = settle(config, ("PER",), "", num_pieces=50)
  assert config.model.text.vocab_size == 64
  net = Bert(config.model.text)
  init = jax.jit(net.init)(jax.random.key(0), *text_inputs(50))["params"]
  params = pretrained.load_encoder(hub.folder(str(tmp_path)), init)
  table = np.array(params["word_embeddings"]["embedding"])
  assert table.shape == (64, 32)
  assert table[:50].any(axis=1).all() and not table[50:].any()


def test_weights_of_another_family_are_refused(tmp_path):
  inputs = text_inputs(50)
  hf = transformers.RobertaConfig(
    vocab_size=50, max_position_embeddings=66, type_vocab_size=1, **TINY
  )
  transformers.RobertaForMaskedLM(hf).save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  settings = json.loads(path.read_text())
  path.write_text(json.dumps(settings | {"model_type": "bert"}))
  with pytest.raises(UserError) as error:
    load(tmp_path, "text", Bert, *inputs)
  assert "the file lacks: embeddings_norm/bias" in str(error.value)
  assert "the model lacks: roberta.embeddings" in str(error.value)
  path.write_text(json.dumps(settings | {"model_type": "gpt2"}))
  with pytest.raises(UserError, match="config.json: neither a model_type"):
    load(tmp_path, "text", Bert, *inputs)
  path.write_text(json.dumps(settings))
  with pytest.raises(UserError, match="'roberta' is no ViT"):
    load(tmp_path, "vit", Vit, pictures(32))
  # A table of more positions than the file says is not cut.
  path.write_text(json.dumps(settings | {"max_position_embeddings": 64}))
  with pytest.raises(UserError, match="position_embeddings/embedding is"):
    load(tmp_path, "text", Bert, *inputs)
  path.write_text(json.dumps(settings | {"max_position_embeddings": 20}))
  with pytest.raises(UserError, match="data.buckets ends at 32, above"):
    load(tmp_path, "text", Bert, *inputs)


def test_a_hub_name_without_a_network(monkeypatch, tmp_path):
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
  with pytest.raises(UserError, match="is no folder, and the Hub did not") as e:
    hub.folder("google-bert/no-such-model")
  assert "\n" not in str(e.value)

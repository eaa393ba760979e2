"""UMT and MAF against their equations in PyTorch: values and gradients.

The reference reads our parameters by name and starts from what our encoders
say (which `test_whole_model.py` compares): everything behind them is its own.
"""

import functools

import jax
import numpy as np
import pytest
import torch
import torchcrf
from flax import traverse_util
from torch.nn import functional as F

from mner_jax.config import replace
from mner_jax.models.bert import Bert
from mner_jax.models.mner import MultimodalNER, losses
from mner_jax.models.resnet import ResNet
from tests.conftest import NO_DROPOUT, random_params
from tests.parity import reference

ROWS = 8  # so that MAF swaps one pair


class Reference:
  """What stands behind the encoders; `p` maps our names to tensors."""

  def __init__(self, config, p, batch):
    self.config, self.p, self.batch = config, p, batch
    inside = torch.arange(batch["tags"].shape[1])[None]
    self.mask = inside < batch["num_words"][:, None]  # [B, W]
    self.seen = batch["has_image"][:, None, None].float()

  def dense(self, name, x):
    return x @ self.p[f"{name}/kernel"] + self.p[f"{name}/bias"]

  def norm(self, name, x):
    scale, bias = self.p[f"{name}/scale"], self.p[f"{name}/bias"]
    return F.layer_norm(x, x.shape[-1:], scale, bias, 1e-12)

  def layer(self, name, q, kv, mask=None):
    heads = self.config.model.fusion_heads

    def split(x):  # [B, S, D] -> [B, N, S, H]
      return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    a = f"{name}/attention"
    seen = F.scaled_dot_product_attention(
      split(self.dense(f"{a}/query", q)),
      split(self.dense(f"{a}/key", kv)),
      split(self.dense(f"{a}/value", kv)),
      None if mask is None else mask[:, None, None],
    )
    seen = self.dense(f"{a}/output", seen.transpose(1, 2).flatten(2))
    x = self.norm(f"{name}/attention_norm", q + seen)
    y = F.gelu(self.dense(f"{name}/intermediate", x))
    return self.norm(f"{name}/output_norm", x + self.dense(f"{name}/output", y))

  def nll(self, name, emissions, tags):
    crf = torchcrf.CRF(emissions.shape[-1], batch_first=True).to(torch.float64)
    for theirs in ("start_transitions", "end_transitions", "transitions"):
      ours = theirs.removesuffix("_transitions")
      del crf._parameters[theirs]
      setattr(crf, theirs, self.p[f"{name}/{ours}"])
    nll = -crf(emissions, tags, mask=self.mask, reduction="none")
    weight = self.batch["weight"]
    return (nll * weight).sum() / weight.sum()

  def umt(self, words, grid):
    v = self.dense("fusion/regions", grid.flatten(1, 2)) * self.seen
    r = self.layer("fusion/words", words, words, self.mask)
    a = self.layer("fusion/spans", words, words, self.mask)
    p = self.layer("fusion/see", r, v)
    t = self.layer("fusion/hear", r, self.layer("fusion/ask", v, r, self.mask))
    g = torch.sigmoid(self.dense("fusion/gate", torch.cat([t, p], -1)))
    main = self.dense("emissions", torch.cat([t, g * p * self.seen], -1))
    spans = self.dense("fusion/span_emissions", a)
    # O -> O, B -> each B-, I -> each I-, by the names of the tags.
    tags = self.config.tags
    types = len(self.config.data.labels)
    spread = torch.zeros(3, len(tags), dtype=torch.float64)
    for k, tag in enumerate(tags):
      spread["OBI".index(tag[0]), k] = 1 if tag == "O" else 1 / types
    emissions = 0.5 * main + 0.5 * spans @ spread
    span_tags = torch.tensor(["OBI".index(tag[0]) for tag in tags])
    tags = self.batch["tags"]
    parts = {
      "crf": self.nll("crf", emissions, tags),
      "spans": 0.5 * self.nll("fusion/span_crf", spans, span_tags[tags]),
    }
    return emissions, parts["crf"] + parts["spans"], parts

  def maf(self, words, grid, pooled, partner):
    v = self.dense("fusion/regions", grid.flatten(1, 2))[partner]
    a = self.layer("fusion/see", words, v)
    inside = self.mask[:, :, None]
    mean = (torch.cat([words, a], -1) * inside).sum(1) / inside.sum(1)
    logit = self.dense("fusion/match", mean)[:, 0]
    a = torch.sigmoid(logit)[:, None, None] * a * self.seen
    gate = self.dense("fusion/gate_words", words)
    gate = torch.sigmoid(gate + self.dense("fusion/gate_seen", a))
    emissions = self.dense("emissions", torch.cat([words, gate * a], -1))
    rows = self.batch["has_image"] & (self.batch["weight"] > 0)
    own = torch.tensor(partner == np.arange(ROWS)).double()
    match = F.binary_cross_entropy_with_logits(logit[rows], own[rows])

    def head(name, x):
      return self.dense(
        f"{name}/output", F.relu(self.dense(f"{name}/hidden", x))
      )

    text = F.normalize(head("text_head", pooled[rows]), dim=-1)
    scene = F.normalize(head("resnet_head", grid.mean((1, 2))[rows]), dim=-1)
    logits = text @ scene.T / 0.179
    truth = torch.arange(len(logits))
    align = 0.7 * F.cross_entropy(logits, truth)
    align += 0.3 * F.cross_entropy(logits.T, truth)
    parts = {"crf": self.nll("crf", emissions, self.batch["tags"])}
    parts |= {"contrastive_resnet": align, "match": match}
    # Twice the authors' sum.
    return emissions, 2 * (0.62 * parts["crf"] + 0.38 * (match + align)), parts


@pytest.fixture(scope="module", params=["umt", "maf"])
def case(request, tiny, random_batch):
  """(config, our parameters, batch)."""
  fields = {"model.vit.enabled": False, "model.resnet.stages": (1,)}
  fields |= {"model.fusion": request.param, "model.text.num_layers": 1}
  if request.param == "umt":
    fields["loss.contrastive"] = "none"
  else:
    fields |= {"loss.contrastive": "clip", "loss.alpha": 0.62}
    fields |= {"loss.temperature": 0.179, "loss.text_share": 0.7}
  config = replace(tiny, NO_DROPOUT | fields)
  batch = random_batch(config, ROWS)
  batch["has_image"][:] = True
  batch["has_image"][5] = False
  batch["weight"][7] = 0  # a row that only pads
  shapes = jax.eval_shape(MultimodalNER(config).init, jax.random.key(0), batch)
  return config, random_params(shapes["params"], 0.3), batch


@pytest.fixture(scope="module")
def encoded(case):
  """(function text, grid) of our encoders.

  text(g) -> ((states, pooled), the gradient of text's parameters from g).
  """
  config, params, batch = case
  pieces = np.arange(batch["input_ids"].shape[1])[None]
  mask = pieces < batch["num_pieces"][:, None]

  @jax.jit
  def text(g):
    bert, ids = Bert(config.model.text), batch["input_ids"]
    encode = functools.partial(bert.apply, input_ids=ids, piece_mask=mask)
    out, back = jax.vjp(lambda p: encode({"params": p}), params["text"])
    return out, back(g)[0]

  grid = jax.jit(ResNet(config.model.resnet).apply)(
    {"params": params["resnet"]}, batch["scene_pixels"]
  )
  assert grid.shape[1] > 1  # regions, not one
  return text, grid


def in_torch(case, encoded, partner):
  """(emissions, {name: loss}, {our name: gradient}) of the reference."""
  config, params, batch = case
  text, grid = encoded
  rows, length = batch["input_ids"].shape
  width = config.model.text.hidden_size
  zero = np.zeros((rows, length, width), "f4"), np.zeros((rows, width), "f4")
  (states, pooled), _ = text(zero)

  def tensor(x):
    return torch.tensor(np.array(x), dtype=torch.float64)

  flat = {
    name: tensor(x).requires_grad_()
    for name, x in traverse_util.flatten_dict(params, sep="/").items()
    if not name.startswith(("text/", "resnet/"))
  }
  states, pooled = (tensor(x).requires_grad_() for x in (states, pooled))
  model = Reference(config, flat, reference.tensors(batch))
  index = torch.tensor(batch["first_piece"]).long()[:, :, None]
  words = states.gather(1, index.expand(-1, -1, states.shape[-1]))
  more = (pooled, partner) if config.model.fusion == "maf" else ()
  fuse = getattr(model, config.model.fusion)
  emissions, loss, parts = fuse(words, tensor(grid), *more)
  loss.backward()

  def gradient(x):
    return np.zeros(x.shape) if x.grad is None else x.grad.numpy()

  grads = {name: gradient(x) for name, x in flat.items()}
  back = tuple(gradient(x).astype(np.float32) for x in (states, pooled))
  of_text = traverse_util.flatten_dict({"text": text(back)[1]}, sep="/")
  parts = {"loss": loss, **parts}
  return (
    emissions.detach().numpy(),
    {name: x.item() for name, x in parts.items()},
    grads | of_text,
  )


def real_words(batch):
  """[B, W] bool: words of the rows that count."""
  words = np.arange(16)[None] < batch["num_words"][:, None]
  return words & (batch["weight"] > 0)[:, None]


def test_values_and_gradients(case, encoded):
  """In training, where MAF swaps pictures; dropout is 0."""
  config, params, batch = case

  def loss(params, frozen):
    out, kept = MultimodalNER(config).apply(
      {"params": params | frozen},
      batch,
      deterministic=False,
      rngs={"dropout": jax.random.key(3)},
      mutable="intermediates",
    )
    total, parts = losses(config, out, batch)
    own = kept["intermediates"]["fusion"].get("own")
    return total, (parts, out.emissions, own)

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  trained = {name: x for name, x in params.items() if name != "resnet"}
  (total, (parts, emissions, own)), grads = run(
    trained, {"resnet": params["resnet"]}
  )
  partner = np.arange(ROWS)
  if config.model.fusion == "maf":
    pair = np.flatnonzero(~np.array(own[0]))
    assert len(pair) == 2 and not {5, 7} & {*pair}
    partner[pair] = pair[::-1]
  want, want_parts, want_grads = in_torch(case, encoded, partner)
  words = real_words(batch)
  assert np.abs(emissions - want)[words].max() <= 2e-5
  assert want_parts.keys() == {"loss", *parts}
  for name, value in {"loss": total, **parts}.items():
    np.testing.assert_allclose(value, want_parts[name], rtol=1e-5, err_msg=name)
  grads = traverse_util.flatten_dict(grads, sep="/")
  assert grads.keys() == want_grads.keys()
  norms = {n: np.linalg.norm(g) for n, g in want_grads.items()}
  whole = np.sqrt(sum(x**2 for x in norms.values()))
  for name, g in want_grads.items():
    # A key's bias moves all scores of a query alike: no gradient.
    zero = name.endswith("attention/key/bias")
    # UMT has no use for the pooled sentence.
    zero |= "pooler" in name and config.model.fusion == "umt"
    assert zero or norms[name] > 1e-6 * whole, name
    error = np.linalg.norm(grads[name] - g)
    assert error <= 1e-4 * max(norms[name], 1e-3 * whole), name


def test_emissions_of_an_evaluation(case, encoded):
  """Every sentence sees its own picture."""
  config, params, batch = case
  emissions = jax.jit(MultimodalNER(config).apply)({"params": params}, batch)[0]
  want, _, _ = in_torch(case, encoded, np.arange(ROWS))
  words = real_words(batch)
  assert np.abs(emissions - want)[words].max() <= 2e-5

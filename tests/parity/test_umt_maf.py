"""UMT and MAF against their equations in PyTorch: values and gradients."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchcrf import CRF

from mner_jax.config import replace
from tests.parity import test_whole_model as whole
from tests.parity.reference import Attention, inside, nll, scene_width


class Layer(nn.Module):
  """A layer of BERT in which queries see keys of their own."""

  def __init__(self, config):
    super().__init__()
    text = config.model.text
    width, hidden = text.hidden_size, text.intermediate_size
    self.attention = Attention(width, width, config.model.fusion_heads)
    self.attention_norm = nn.LayerNorm(width, eps=1e-12)
    self.intermediate = nn.Linear(width, hidden)
    self.output = nn.Linear(hidden, width)
    self.output_norm = nn.LayerNorm(width, eps=1e-12)

  def forward(self, queries, keys, mask=None):
    x = self.attention_norm(queries + self.attention(queries, keys, mask))
    return self.output_norm(x + self.output(F.gelu(self.intermediate(x))))


class UMT(nn.ModuleDict):
  parts = 2

  def __init__(self, config):
    names = "words", "spans", "see", "ask", "hear"
    super().__init__({name: Layer(config) for name in names})
    width, self.tags = config.model.text.hidden_size, config.tags
    self["regions"] = nn.Linear(scene_width(config), width)
    self["gate"] = nn.Linear(2 * width, width)
    self["span_emissions"] = nn.Linear(width, 3)
    self["span_crf"] = CRF(3, batch_first=True)

  def forward(self, words, images, batch):
    mask = inside(batch["tags"], batch["num_words"])
    seen = batch["has_image"][:, None, None].float()
    v = self["regions"](images["resnet"]) * seen
    assert v.shape[1] > 1  # regions, not one
    r = self["words"](words, words, mask)
    a = self["spans"](words, words, mask)
    p = self["see"](r, v)
    t = self["hear"](r, self["ask"](v, r, mask))
    g = torch.sigmoid(self["gate"](torch.cat([t, p], -1)))
    spans = self["span_emissions"](a)
    # O -> O, B -> each B-, I -> each I-, by the names of the tags.
    span_tags = torch.tensor(["OBI".index(tag[0]) for tag in self.tags])
    spread = F.one_hot(span_tags).T.float()  # [3, K]
    spread /= spread.sum(1, keepdim=True)
    loss = nll(self["span_crf"], spans, span_tags[batch["tags"]], batch)
    joined = torch.cat([t, g * p * seen], -1)
    return joined, spans @ spread, {"spans": 0.5 * loss}


class MAF(nn.ModuleDict):
  parts = 2

  def __init__(self, config):
    width = config.model.text.hidden_size
    sizes = {"regions": (scene_width(config), width), "match": (2 * width, 1)}
    sizes |= dict.fromkeys(("gate_words", "gate_seen"), (width, width))
    super().__init__({name: nn.Linear(*size) for name, size in sizes.items()})
    self["see"] = Layer(config)

  def forward(self, words, images, batch):
    rows = batch["has_image"] & (batch["weight"] > 0)
    v = self["regions"](images["resnet"])[self.partner]  # of other rows
    a = self["see"](words, v)
    mask = inside(batch["tags"], batch["num_words"])[:, :, None]
    mean = (torch.cat([words, a], -1) * mask).sum(1) / mask.sum(1)
    logit = self["match"](mean)[:, 0]
    a = (torch.sigmoid(logit) * rows)[:, None, None] * a
    gate = torch.sigmoid(self["gate_words"](words) + self["gate_seen"](a))
    own = (batch["image_id"][self.partner] == batch["image_id"]).float()
    loss = F.binary_cross_entropy_with_logits(logit[rows], own[rows])
    return torch.cat([words, gate * a], -1), None, {"match": loss}


LOSS = {
  UMT: dict(contrastive="none"),
  MAF: dict(contrastive="clip", alpha=0.62, temperature=0.179, text_share=0.7),
}


@pytest.fixture(scope="module", params=LOSS, ids=lambda x: x.__name__)
def pair(request, tiny, random_batch, tmp_path_factory):
  kind, folder = request.param, tmp_path_factory.mktemp("weights")
  fields = {"model.vit.enabled": False, "model.resnet.stages": (1,)}
  fields |= {"model.text.num_layers": 1, "model.fusion": kind.__name__.lower()}
  fields |= {f"loss.{name}": value for name, value in LOSS[kind].items()}
  config = replace(tiny, fields)
  return whole.make_pair(config, random_batch, folder, fusion=kind)


def test_values_and_gradients(pair, tmp_path):
  """In training, where MAF swaps pictures; dropout is 0."""
  fusion, partner = pair[2].fusion, np.arange(8)
  found, kept, grads = whole.training(pair)
  # A key's bias moves all of a query's scores alike: no gradient.
  unused, zero = [], [r"(text/layers|fusion/\w+)/attention/key/bias"]
  if isinstance(fusion, UMT):  # has no use for the pooled sentence
    unused, zero = ["text.pooler.dense"], [*zero, r"text/pooler/.*"]
  else:
    own = np.array(kept["intermediates"]["fusion"]["own"][0])
    swapped = np.flatnonzero(~own)
    assert len(swapped) == 2 and not {5, 7} & {*swapped}
    partner[swapped] = swapped[::-1]
  fusion.partner = partner
  loss = whole.assert_same_values(pair, found)
  whole.assert_same_gradients(pair, loss, grads, tmp_path, unused, zero)


def test_an_evaluation(pair):
  """Every sentence sees its own picture."""
  pair[2].fusion.partner = np.arange(8)
  whole.assert_same_values(pair, whole.evaluation(pair))

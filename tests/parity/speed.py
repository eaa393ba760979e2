"""PyTorch's side of each suite of `mner_jax.benchmark --compare=torch`."""

import functools

import numpy as np
import torch
import torchcrf
from PIL import Image

from mner_jax.data import batches, images
from tests.parity import reference

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def train_step(config, batch, *, fast):
  """The train step of the reference in tests/parity, on a random model.

  Args:
    config: the experiment.
    batch: arrays as our step takes them.
    fast: whether to use torch.compile, bf16 autocast and a fused optimizer;
      otherwise eager fp32.

  Returns:
    A function that makes one update and returns the loss.
  """
  torch.manual_seed(0)
  model = reference.Reference(config, attention="sdpa").to(_DEVICE).train()
  trained = [p for p in model.parameters() if p.requires_grad]
  rate = config.optim.learning_rate
  optimizer = torch.optim.Adam(trained, lr=rate, fused=fast or None)
  if fast:
    model = torch.compile(model)
  tensors = reference.tensors(batch, _DEVICE)

  def update():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(_DEVICE, torch.bfloat16, enabled=fast):
      _, losses = model(tensors)
    losses["loss"].backward()
    optimizer.step()
    return losses["loss"].detach()

  return update


def crf(num_tags, emissions, tags, lengths):
  """pytorch-crf's {"loss and gradient", "viterbi"}, as benchmark.crf's own."""
  to = functools.partial(torch.tensor, device=_DEVICE)
  emissions, tags = to(emissions, requires_grad=True), to(tags).long()
  mask = reference.inside(tags, to(lengths))
  model = torchcrf.CRF(num_tags, batch_first=True).to(_DEVICE)

  def loss_and_gradient():
    emissions.grad = None
    model.zero_grad()
    (-model(emissions, tags, mask=mask, reduction="mean")).backward()
    return emissions.grad[0, 0, 0]

  def viterbi():
    with torch.no_grad():
      model.decode(emissions, mask=mask)

  return {"loss and gradient": loss_and_gradient, "viterbi": viterbi}


def loader(examples, folder, workers):
  """A DataLoader of a batches.Examples in shuffled batches, by processes."""
  images_folder = folder / "data" / "images"
  paths = [images_folder / name for name in examples.split.image_names]
  pieces = [window.pieces for window in examples.windows]
  return torch.utils.data.DataLoader(
    list(zip(pieces, paths, strict=True)),
    batch_size=examples.config.train.batch_size,
    shuffle=True,
    num_workers=workers,
    collate_fn=functools.partial(make_batch, examples.config),
    persistent_workers=True,
    # A fork of a process in which JAX has threads may hang.
    multiprocessing_context="spawn",
  )


def make_batch(config, rows):
  """The tensors of [(pieces, path of a picture)], decoded by PIL."""
  batch = batches.empty(config, len(rows), config.data.buckets[0])
  vit, resnet = config.model.vit.image_size, config.model.resnet.image_size
  for i, (pieces, path) in enumerate(rows):
    image = Image.open(path).convert("RGB")
    batch["input_ids"][i, : len(pieces)] = pieces
    batch["pixels"][i] = images.vit_pixels(image, vit, "clip")
    rng = np.random.default_rng()
    batch["scene_pixels"][i] = images.scene_pixels(image, resnet, rng)
  return {name: torch.from_numpy(x) for name, x in batch.items()}

"""Input pipeline: examples a second, beside a torch DataLoader with PIL.

Both make the same arrays from the same files: text cut into pieces before,
pictures decoded, resized and cropped for the two image encoders. Ours is the
loader of training, threads and draft-mode decoding included; torch's workers
are processes, which are started before the clock is.
"""

import pathlib
import statistics
import tempfile
import time

import numpy as np
from PIL import Image

from mner_jax import config as config_lib
from mner_jax.config import UserError
from mner_jax.data import batches, builders, formats, images, wordpiece

SIZES = {(4000, 3000): (64, 8), (500, 375): (1024, 32)}  # examples, batch
_PICTURES = 8


def run(sizes=None, workers=(1, 2, 4), *, compare="", repeats=5):
  """Rows of a table: median and spread of examples a second.

  Args:
    sizes: {(width, height): (examples, batch size)}; None = `SIZES`.
    workers: numbers of threads, and of torch's processes.
    compare: "torch" = a torch DataLoader beside it.
    repeats: passes over the data; the two loaders take turns.

  Returns:
    A dict for each size and number of workers: medians and ranges.
  """
  rows = []
  for size, (count, batch_size) in (sizes or SIZES).items():
    with tempfile.TemporaryDirectory() as folder:
      examples = _examples(pathlib.Path(folder), size, count, batch_size)
      for number in workers:
        rows.append(
          {"image": "x".join(map(str, size)), "workers": number}
          | _measure(examples, folder, number, compare, repeats)
        )
  return rows


def _examples(folder, size, count, batch_size):
  """A data set of pictures of a size, four sentences or more for each."""
  (folder / "data" / "images").mkdir(parents=True)
  for i in range(_PICTURES):
    path = folder / "data" / "images" / f"{i}.jpg"
    _photograph(size, seed=i).save(path, quality=85)
  rng = np.random.default_rng(0)
  sentences = [
    formats.Sentence(
      tuple(map(str, rng.integers(0, 500, 16))), ("O",) * 16, f"{i % _PICTURES}"
    )
    for i in range(count)
  ]
  for split in ("train", "valid", "test"):
    part = sentences if split == "train" else sentences[:1]
    formats.write_conll(folder / "data" / f"{split}.txt", part)
  config = config_lib.Config(
    data=config_lib.DataConfig(
      path=str(folder / "data"),
      languages=("en",),
      labels=("X",),
      cache_dir=str(folder / "cache"),
    ),
    model=config_lib.ModelConfig(vit=config_lib.VitConfig(image_size=224)),
    train=config_lib.TrainConfig(batch_size=batch_size),
  )
  split = builders.load(config.data, ("train",))["train"]
  vocabulary = wordpiece.count_vocabulary(split.sentences, 2000)
  return batches.Examples(split, wordpiece.bert_tokenizer(vocabulary), config)


def _photograph(size, seed):
  """Colours that change slowly, edges and some noise: about 1 bit a pixel."""
  rng = np.random.default_rng(seed)
  small = Image.fromarray(rng.integers(0, 256, (24, 32, 3)).astype(np.uint8))
  pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.int16)
  edges = np.asarray(small.resize(size, Image.Resampling.NEAREST), np.int16)
  noise = rng.normal(0, 6, (size[1], size[0], 1)).astype(np.int16)
  pixels = (3 * pixels + edges) // 4 + noise
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _measure(examples, folder, workers, compare, repeats):
  loaders = {"examples_per_second": _OurLoader(examples, workers)}
  if compare == "torch":
    loaders["torch_examples_per_second"] = _torch_loader(
      examples, folder, workers
    )
  rates = {name: [] for name in loaders}
  for loader in loaders.values():
    for _ in loader:  # starts torch's processes, fills the page cache
      pass
  for _ in range(repeats):
    for name, loader in loaders.items():
      start = time.perf_counter()
      for _ in loader:
        pass
      seconds = time.perf_counter() - start
      rates[name].append(len(examples.windows) / seconds)
  row = {}
  for name, values in rates.items():
    row[name] = round(statistics.median(values), 1)
    row[f"{name}_range"] = (round(min(values), 1), round(max(values), 1))
  if len(rates) > 1:
    row["ratio"] = round(
      row["examples_per_second"] / row["torch_examples_per_second"], 2
    )
  return row


class _OurLoader:
  """Epochs of the loader that training uses."""

  def __init__(self, examples, workers):
    self._examples, self._workers = examples, workers
    self._plan = examples.plan(seed=0)

  def __iter__(self):
    steps = (0, self._plan.steps_per_epoch)
    return batches.load(
      self._examples, self._plan, steps, workers=self._workers
    )


def _torch_loader(examples, folder, workers):
  try:
    import torch.utils.data
  except ImportError as error:
    raise UserError(
      f"--compare=torch: {error}; it needs the extra [parity]"
    ) from None
  return torch.utils.data.DataLoader(
    _TorchExamples(examples, folder),
    batch_size=examples.config.train.batch_size,
    shuffle=True,
    num_workers=workers,
    persistent_workers=True,
    # A fork of a process in which JAX has threads may hang.
    multiprocessing_context="spawn",
  )


class _TorchExamples:
  """The same examples as a torch data set of the usual kind."""

  def __init__(self, examples, folder):
    config = examples.config.model
    self._side, self._scene = config.vit.image_size, config.resnet.image_size
    self._length = examples.config.data.buckets[0]
    self._pieces = [w.pieces for w in examples.windows]
    self._paths = [
      f"{folder}/data/images/{name}" for name in examples.split.image_names
    ]

  def __len__(self):
    return len(self._paths)

  def __getitem__(self, index):
    image = Image.open(self._paths[index]).convert("RGB")
    pieces = self._pieces[index]
    input_ids = np.zeros(self._length, np.int32)
    input_ids[: len(pieces)] = pieces
    scene = images.scene_pixels(image, self._scene, np.random.default_rng())
    return {
      "input_ids": input_ids,
      # Copied, as torch warns of arrays that cannot be written to.
      "pixels": np.array(images.vit_pixels(image, self._side, "clip")),
      "scene_pixels": np.array(scene),
    }

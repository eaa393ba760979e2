"""The input pipeline: examples per second, beside a torch DataLoader with PIL.

Both make the same arrays from the same files: text cut into pieces beforehand,
pictures decoded, resized and cropped for the two image encoders. Ours is the
loader that training uses, with its threads and draft-mode decoding; torch's
workers are processes, which the warm-up round starts.
"""

import pathlib
import tempfile

import numpy as np
from PIL import Image

from mner_jax.benchmark import timing
from mner_jax.config import Config, replace
from mner_jax.data import batches, builders, formats, wordpiece

# (width, height), examples, batch size
SIZES = (((4000, 3000), 64, 8), ((500, 375), 1024, 32))
_PICTURES = 8


def run(sizes=SIZES, workers=(1, 2, 4), *, repeats, pytorch=None):
  """Measures the loader for every size of picture and number of workers.

  Args:
    sizes: as `SIZES`.
    workers: numbers of threads, and of torch's processes.
    repeats: passes over the data; the two loaders take turns.
    pytorch: the module tests/parity/speed.py, to run its DataLoader in turns
      with ours.

  Returns:
    Rows {"image", "workers", "examples_per_second", ...}, with the fields of
    `timing.compare` for a pass over the data.
  """
  rows = []
  for (width, height), count, batch_size in sizes:
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      examples = make_examples(folder, (width, height), count, batch_size)
      for number in workers:
        row = {"image": f"{width}x{height}", "workers": number}
        rows.append(row | _measure(examples, folder, number, repeats, pytorch))
  return rows


def make_examples(folder, size, count, batch_size):
  """Examples with pictures of a size in `folder`; each picture has several."""
  (folder / "data" / "images").mkdir(parents=True)
  for i in range(_PICTURES):
    path = folder / "data" / "images" / f"{i}.jpg"
    _photograph(size, seed=i).save(path, quality=85)
  sentences = [
    formats.Sentence(("word",) * 16, ("O",) * 16, str(i % _PICTURES))
    for i in range(count)
  ]
  formats.write_jsonl(folder / "data" / "train.jsonl", sentences)
  fields = {
    "data.path": str(folder / "data"),
    "data.cache_dir": str(folder / "cache"),
    "data.languages": ("en",),
    "model.vit.image_size": 224,
    "train.batch_size": batch_size,
  }
  config = replace(Config(), fields)
  split = builders.load(config.data, ("train",))["train"]
  vocabulary = wordpiece.count_vocabulary(split.sentences, 2000)
  return batches.Examples(split, wordpiece.bert_tokenizer(vocabulary), config)


def _photograph(size, seed):
  """Slowly changing colours and some noise: about 2 bits per pixel."""
  rng = np.random.default_rng(seed)
  small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
  noise = Image.effect_noise(size, 20).convert("RGB")
  return Image.blend(small.resize(size, Image.Resampling.BICUBIC), noise, 0.3)


def _measure(examples, folder, workers, repeats, pytorch):
  plan = examples.plan(seed=0)
  steps = (0, plan.steps_per_epoch)

  def ours():
    for _ in batches.load(examples, plan, steps, workers=workers):
      pass

  def theirs():
    for _ in loader:
      pass

  if pytorch:
    loader = pytorch.loader(examples, folder, workers)
  row = timing.compare(ours, theirs if pytorch else None, repeats=repeats)
  row["examples_per_second"] = 1e3 * len(examples.windows) / row["ms"]
  return row

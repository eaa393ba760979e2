"""Batches as a pure function of seed and step, and their loading.

The plan lists the windows of batch `step`. It is the same in every process, and
each process loads the rows that its devices hold. The position in the data is
therefore one integer: the step.
"""

import functools

import grain
import numpy as np

from mner_jax.data import images, schemes, wordpiece

PADDING = -1  # in a batch's ids: a row that counts in no mean


class Plan:
  """The windows of each batch, each batch from one length bucket.

  At temperature 1 an epoch is a permutation of all windows: every window
  comes once, and PADDING fills a bucket's last batch. Otherwise an epoch has
  as many windows, and language l has as nearly as possible the share
  n_l^(1/T) / sum_k n_k^(1/T) of them, where n is its number of windows: some
  windows come more than once, others not at all. The number of batches is the
  same in every epoch.
  """

  def __init__(
    self, sizes, buckets, batch_size, seed=None, *, languages=(), temperature=1
  ):
    """Plans batches.

    Args:
      sizes: pieces of each window.
      buckets: increasing lengths; the last holds the longest window.
      batch_size: rows of a batch, over all processes.
      seed: of the shuffling; None keeps the order (evaluation).
      languages: of each window; needed where `temperature` is not 1.
      temperature: T, above 0.
    """
    self.batch_size, self.seed = batch_size, seed
    bucket = np.searchsorted(buckets, sizes)
    if temperature == 1:
      languages = [""] * len(sizes)
    _, language, counts = np.unique(
      languages, return_inverse=True, return_counts=True
    )
    weights = (counts / counts.max(initial=1)) ** (1 / temperature)
    # {bucket length: [(ids of a language, how many an epoch draws)]}
    self._draws = {length: [] for length in buckets}
    for i, count in enumerate(_shares(len(sizes), weights)):
      parts = [
        np.flatnonzero((language == i) & (bucket == b))
        for b in range(len(buckets))
      ]
      shares = _shares(count, [len(ids) for ids in parts])
      for length, *draw in zip(buckets, parts, shares, strict=True):
        self._draws[length].append(draw)
    self.steps_per_epoch = sum(
      -(-sum(count for _, count in draws) // batch_size)
      for draws in self._draws.values()
    )
    # Prefetching can span an epoch boundary.
    self._epoch = functools.lru_cache(maxsize=2)(self._shuffle)

  def _shuffle(self, epoch):
    """Makes the batches of an epoch: [(bucket length, ids [B])]."""
    rng = np.random.default_rng([self.seed or 0, epoch])
    shuffle = np.asarray if self.seed is None else rng.permutation
    batches = []
    for length, draws in self._draws.items():
      ids = shuffle(np.concatenate([_draw(rng, *draw) for draw in draws]))
      padding = np.full(-len(ids) % self.batch_size, PADDING)
      rows = np.concatenate([ids, padding]).reshape(-1, self.batch_size)
      batches += [(length, row) for row in rows]
    return [batches[i] for i in shuffle(np.arange(len(batches)))]

  def batch(self, step):
    """Returns (bucket length, ids [B]) of batch `step`, counted from 0."""
    epoch, index = divmod(step, self.steps_per_epoch)
    return self._epoch(epoch)[index]


def _shares(total, weights):
  """Splits `total` into whole numbers that are nearly proportional."""
  weights = np.asarray(weights, np.float64)
  exact = total * weights / max(weights.sum(), 1e-9)
  counts = np.floor(exact).astype(int)
  missing = total - counts.sum()
  counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
  # A bucket of few windows must not be left out of every epoch.
  for i in np.flatnonzero((counts == 0) & (weights > 0)):
    counts[i] += 1
    counts[np.argmax(counts)] -= 1
  return counts.tolist()


def _draw(rng, ids, count):
  """Draws `count` of the ids; how often two of them come differs by 1."""
  if count == len(ids):
    return ids
  whole, rest = divmod(count, len(ids))
  return np.concatenate([np.tile(ids, whole), rng.choice(ids, rest, False)])


def empty(config, size, length):
  """Makes the arrays of a batch, see `Examples.rows`; no row counts."""
  model = config.model
  batch = {
    "input_ids": np.zeros((size, length), np.int32),
    "num_pieces": np.ones(size, np.int32),
    "first_piece": np.ones((size, length), np.int32),
    "tags": np.zeros((size, length), np.int32),
    "num_words": np.ones(size, np.int32),
    "weight": np.zeros(size, np.float32),
  }
  if model.multimodal:
    batch["image_id"] = np.full(size, PADDING, np.int32)
    batch["has_image"] = np.zeros(size, bool)
  for name, encoder in (("pixels", model.vit), ("scene_pixels", model.resnet)):
    if encoder.enabled:
      side = encoder.image_size
      batch[name] = np.zeros((size, side, side, 3), np.uint8)
  return batch


class Examples:
  """A split, cut into windows, of which it makes the rows of batches."""

  def __init__(self, split, tokenizer, config, *, picture_of=None):
    """Cuts the sentences of `split` (a dataset.Split) into windows.

    Args:
      split: the sentences and their pictures.
      tokenizer: of the `tokenizers` library.
      config: the experiment's Config, labels filled in.
      picture_of: for each sentence the index of the one whose picture it
        gets, to measure what pictures are worth; None = its own.
    """
    self.split = split
    self.config = config
    self.windows = wordpiece.windows(
      tokenizer, split.sentences, config.data.buckets[-1]
    )
    self._tag_ids = {tag: i for i, tag in enumerate(config.tags)}
    self._picture_of = picture_of
    # By the file, since several names in the data may lead to one.
    ids = {}
    self._image_ids = [
      ids.setdefault(name or i, len(ids))
      for i, name in enumerate(split.image_names)
    ]
    model = config.model
    self._shortest = max(
      model.vit.image_size * model.vit.enabled,
      images.scene_side(model.resnet.image_size) * model.resnet.enabled,
    )

  def plan(self, *, seed=None, batch_size=None):
    """Plans batches of these windows; with a seed, those of training."""
    sentences, data = self.split.sentences, self.config.data
    return Plan(
      sizes=[len(w.pieces) for w in self.windows],
      buckets=data.buckets,
      batch_size=batch_size or self.config.train.batch_size,
      seed=seed,
      languages=[sentences[w.sentence].language for w in self.windows],
      temperature=1 if seed is None else data.language_temperature,
    )

  def rows(self, length, ids, seed=None):
    """Makes the arrays of a batch: B rows, T = W = `length`.

    Args:
      length: T, pieces, and W, words, that each row is padded to.
      ids: windows, or PADDING.
      seed: of the random crops; None = centre crops (evaluation).

    Returns:
      input_ids [B, T] and num_pieces [B]; first_piece and tags [B, W] and
      num_words [B]; weight [B], 0 for PADDING; image_id [B], equal for equal
      pictures, and has_image [B]; pixels and scene_pixels [B, S, S, 3] uint8
      where the model has that encoder.
    """
    batch = empty(self.config, len(ids), length)
    for row, i in enumerate(ids):
      if i != PADDING:
        self._text(batch, row, self.windows[i])
        if self.config.model.multimodal:
          rng = None if seed is None else np.random.default_rng([*seed, i])
          self._picture(batch, row, self.windows[i].sentence, rng)
    return batch

  def _text(self, batch, row, window):
    pieces, words = len(window.pieces), len(window.first_piece)
    # Train on repaired tags; the file's own are what is scored.
    tags, _ = schemes.repair(self.split.sentences[window.sentence].tags)
    batch["input_ids"][row, :pieces] = window.pieces
    batch["num_pieces"][row] = pieces
    batch["first_piece"][row, :words] = window.first_piece
    batch["num_words"][row] = words
    batch["tags"][row, :words] = [
      # A type that only an evaluated file has is O: it is not predicted.
      self._tag_ids.get(tag, 0)
      for tag in tags[window.start : window.stop]
    ]
    batch["weight"][row] = 1

  def _picture(self, batch, row, sentence, rng):
    if self._picture_of is not None:
      sentence = int(self._picture_of[sentence])
    if self.split.image_status[sentence] != "ok":
      return
    model = self.config.model
    image = images.decode(self.split.image(sentence), self._shortest)
    if model.vit.enabled:
      batch["pixels"][row] = images.vit_pixels(
        image, model.vit.image_size, model.vit.style
      )
    if model.resnet.enabled:
      batch["scene_pixels"][row] = images.scene_pixels(
        image, model.resnet.image_size, rng
      )
    batch["has_image"][row] = True
    batch["image_id"][row] = self._image_ids[sentence]


def load(examples, plan, steps, *, rows=slice(None), workers=None):
  """Iterates over batches `steps`, read ahead by threads.

  Args:
    examples: Examples.
    plan: its Plan.
    steps: (first, one past the last) batch.
    rows: indices of the rows of each batch to load; all by default.
    workers: threads; None = `data.workers`.
  """

  def read(step):
    length, ids = plan.batch(step)
    seed = None if plan.seed is None else (plan.seed, step)
    return examples.rows(length, ids[rows], seed)

  workers = workers or examples.config.data.workers
  dataset = grain.MapDataset.range(*steps).map(read)
  options = grain.ReadOptions(
    num_threads=workers, prefetch_buffer_size=2 * workers
  )
  return iter(dataset.to_iter_dataset(options))

"""Batches as a pure function of seed and step, and their loading.

The plan says which windows make up batch `step`; it is the same on every
host, and each host loads its own rows of it. The position in the data is
therefore one integer, the step.
"""

import functools

import grain
import numpy as np

from mner_jax.config import UserError
from mner_jax.data import images, schemes, wordpiece

PADDING = -1  # in a batch's ids: a row that counts in no mean


class Plan:
  """Which windows make up each batch, each batch from one length bucket.

  At temperature 1 an epoch is a permutation of all windows: every window
  comes once, and a bucket's last batch is filled up with PADDING. Otherwise
  an epoch has as many windows, and language l as near as can be to the share
  n_l^(1/T) / sum_k n_k^(1/T) of them, n its windows: some come twice or more,
  others not at all. The number of batches is the same in every epoch.
  """

  def __init__(
    self,
    sizes,
    buckets,
    batch_size,
    seed=None,
    *,
    languages=None,
    temperature=1,
  ):
    """Plans batches.

    Args:
      sizes: pieces of each window.
      buckets: increasing lengths; the last holds the longest window.
      batch_size: rows of a batch, over all hosts.
      seed: of the shuffling; None keeps the order (evaluation).
      languages: of each window; needed where `temperature` is not 1.
      temperature: T, above 0.
    """
    bucket = np.searchsorted(buckets, sizes)
    groups = {None: np.arange(len(bucket))}
    counts = [len(bucket)]
    if temperature != 1:
      names, members = np.unique(languages, return_inverse=True)
      groups = {
        name: np.flatnonzero(members == i) for i, name in enumerate(names)
      }
      sizes = np.array([len(ids) for ids in groups.values()], np.float64)
      counts = _shares(len(bucket), (sizes / max(sizes)) ** (1 / temperature))
    # [(bucket length, [(ids, how many of them an epoch has)])]
    self._buckets = [(length, []) for length in buckets]
    for ids, count in zip(groups.values(), counts, strict=True):
      parts = [ids[bucket[ids] == b] for b in range(len(buckets))]
      shares = _shares(count, [len(part) for part in parts])
      for (_, drawn), part, share in zip(
        self._buckets, parts, shares, strict=True
      ):
        drawn.append((part, share))
    self.batch_size = batch_size
    self.seed = seed
    self.steps_per_epoch = sum(
      -(-sum(count for _, count in parts) // batch_size)
      for _, parts in self._buckets
    )
    # Loader threads may stand in two epochs at once.
    self._epoch = functools.lru_cache(maxsize=2)(self._shuffle)

  def _shuffle(self, epoch):
    """The batches of an epoch: [(bucket length, ids [B])]."""
    shuffled = self.seed is not None
    rng = np.random.default_rng([self.seed or 0, epoch])
    batches = []
    for length, parts in self._buckets:
      ids = np.concatenate([_draw(rng, *part) for part in parts])
      ids = rng.permutation(ids) if shuffled else ids
      rows = -(-len(ids) // self.batch_size) * self.batch_size
      padded = np.full(rows, PADDING)
      padded[: len(ids)] = ids
      batches += [(length, b) for b in padded.reshape(-1, self.batch_size)]
    if shuffled:
      batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches

  def batch(self, step):
    """(bucket length, ids [B]) of batch `step`, counted from 0."""
    epoch, index = divmod(step, self.steps_per_epoch)
    return self._epoch(epoch)[index]


def _shares(total, weights):
  """Whole numbers near `total` times the weights' shares; their sum is it."""
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
  """`count` of the ids, none more than once oftener than another."""
  if count == len(ids):
    return ids
  whole, rest = divmod(count, len(ids))
  return np.concatenate([np.tile(ids, whole), rng.choice(ids, rest, False)])


def empty(config, size, length):
  """The arrays of a batch, see `Examples.rows`, in which no row counts."""
  model = config.model
  batch = {
    "input_ids": np.zeros((size, length), np.int32),
    "num_pieces": np.ones(size, np.int32),
    "first_piece": np.ones((size, length), np.int32),
    "tags": np.zeros((size, length), np.int32),
    "num_words": np.ones(size, np.int32),
    "weight": np.zeros(size, np.float32),
    "window": np.full(size, PADDING, np.int32),
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
  """A split, cut into windows, from which rows of batches are made."""

  def __init__(self, split, tokenizer, config, *, picture_of=None):
    """Cuts the sentences of `split` (a builders.Split) into windows.

    Args:
      split: the sentences and their pictures.
      tokenizer: of the `tokenizers` library.
      config: the experiment's Config, labels filled in.
      picture_of: index of the example whose picture stands for that of
        example i, to show what the pictures are worth; None = its own.
    """
    self.split = split
    self.config = config
    self.windows = wordpiece.windows(
      tokenizer, split.sentences, config.data.buckets[-1]
    )
    self._tag_ids = {tag: i for i, tag in enumerate(config.tags)}
    self._picture_of = picture_of
    # By the files, since several ids may lead to one.
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

  def plan(self, *, seed=None):
    """The batch plan over these windows; with a seed that of training."""
    sentences, data = self.split.sentences, self.config.data
    return Plan(
      sizes=[len(w.pieces) for w in self.windows],
      buckets=data.buckets,
      batch_size=self.config.train.batch_size,
      seed=seed,
      languages=[sentences[w.sentence].language for w in self.windows],
      temperature=1 if seed is None else data.language_temperature,
    )

  def rows(self, length, ids, seed=None):
    """The arrays of a batch: B rows, T = W = `length`.

    Args:
      length: T, pieces, and W, words, that each row is padded to.
      ids: windows, or PADDING.
      seed: of the random crops; None = centre crops (evaluation).

    Returns:
      input_ids [B, T] and num_pieces [B]; first_piece and tags [B, W] and
      num_words [B]; weight [B], 0 for PADDING; window [B], the ids;
      image_id [B], equal for equal pictures, and has_image [B]; pixels and
      scene_pixels [B, S, S, 3] uint8 where the model has that encoder.
    """
    batch = empty(self.config, len(ids), length)
    batch["window"][:] = ids
    for row, i in enumerate(ids):
      if i != PADDING:
        self._text(batch, row, self.windows[i])
        if self.config.model.multimodal:
          rng = None if seed is None else np.random.default_rng([*seed, i])
          self._picture(batch, row, self.windows[i].sentence, rng)
    return batch

  def _text(self, batch, row, window):
    pieces, words = len(window.pieces), len(window.first_piece)
    # What is learnt is well-formed; what is scored is the file's tags.
    tags, _ = schemes.repair(self.split.sentences[window.sentence].tags)
    batch["input_ids"][row, :pieces] = window.pieces
    batch["num_pieces"][row] = pieces
    batch["first_piece"][row, :words] = window.first_piece
    batch["num_words"][row] = words
    batch["tags"][row, :words] = [
      # Training has checked the labels; a type that is only in the file that
      # is evaluated does not enter the prediction.
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


class _Batches:
  """Batches as the random-access source that grain reads from."""

  def __init__(self, examples, plan, num_steps, process):
    self._examples, self._plan = examples, plan
    self._num_steps = num_steps
    self._index, self._count = process

  def __len__(self):
    return self._num_steps

  def __getitem__(self, step):
    length, ids = self._plan.batch(step)
    share = len(ids) // self._count
    ids = ids[self._index * share : (self._index + 1) * share]
    seed = None if self._plan.seed is None else (self._plan.seed, step)
    return self._examples.rows(length, ids, seed)


def load(examples, plan, steps, *, process=(0, 1), workers=None):
  """Iterates over this host's rows of batches `steps`, read ahead by threads.

  Args:
    examples: Examples.
    plan: its Plan.
    steps: (first, one past the last) batch.
    process: (index, count) of this host.
    workers: threads; None = `data.workers`.
  """
  if plan.batch_size % process[1]:
    raise UserError(
      f"config: train.batch_size {plan.batch_size} is not a multiple of the"
      f" {process[1]} processes"
    )
  first, last = steps
  source = _Batches(examples, plan, last, process)
  workers = workers or examples.config.data.workers
  dataset = grain.MapDataset.source(source)[first:last]
  return iter(
    dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
    )
  )

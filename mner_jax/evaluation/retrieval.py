"""Do sentences find their pictures, and pictures their sentences?

Recall at k of the space that the contrastive loss shapes: all pictures are
ranked by how a sentence sees them; its own is among the first k, or not. The
similarity is that of the loss: see `contrastive.similarities`. Whether that
could be chance is tested by exchanging the pictures among the sentences.
"""

import json
import math
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from mner_jax import files, sharding
from mner_jax.data import batches
from mner_jax.models.contrastive import normalise
from mner_jax.models.mner import MultimodalNER

RANKS = (1, 5, 10)


class Pairs(NamedTuple):
  """N sentences that have a picture, as unit vectors."""

  text: list[np.ndarray]  # [W, D] each; W = 1 where sentences are aligned
  images: dict[str, np.ndarray]  # of each branch, [N, P, D]
  picture: np.ndarray  # [N], equal for equal pictures
  language: np.ndarray  # [N]


def aligns(config):
  """Whether a Config's model has a space of sentences and pictures."""
  return config.model.multimodal and config.loss.contrastive != "none"


def embed(params, examples):
  """The Pairs of a split; of a long sentence its first window.

  Args:
    params: of the model of `examples.config`, which `aligns`.
    examples: batches.Examples.
  """
  config = examples.config
  mesh = sharding.make_mesh(config.mesh)
  model = MultimodalNER(config)
  by_word = config.loss.alignment == "word"

  def vectors(params, batch):
    output = model.apply({"params": params}, batch)
    text, images = normalise(output.text), output.images
    images = {name: normalise(x) for name, x in images.items()}
    if not by_word:
      text, images = jax.tree.map(lambda x: x[:, None], (text, images))
    kept = {k: batch[k] for k in ("has_image", "image_id", "num_words")}
    return text, images, kept

  compute = jax.jit(vectors, out_shardings=sharding.replicated(mesh))
  plan = examples.plan()
  process = (jax.process_index(), jax.process_count())
  steps = (0, plan.steps_per_epoch)
  text, images, picture, language = [], [], [], []
  for step, batch in enumerate(
    batches.load(examples, plan, steps, process=process)
  ):
    on_device = sharding.put_batch(batch, mesh)
    words, tokens, kept = jax.device_get(compute(params, on_device))
    for row, i in enumerate(plan.batch(step)[1]):
      if i == batches.PADDING or not kept["has_image"][row]:
        continue
      window = examples.windows[i]
      if window.start == 0:
        count = kept["num_words"][row] if by_word else 1
        text.append(words[row, :count])
        images.append({name: x[row] for name, x in tokens.items()})
        picture.append(kept["image_id"][row])
        language.append(examples.split.sentences[window.sentence].language)
  images = {name: np.stack([x[name] for x in images]) for name in images[0]}
  return Pairs(text, images, np.array(picture), np.array(language))


def similarities(text, images):
  """How each sees the other: (text_to_image [N, M], image_to_text [M, N]).

  The mean over one's own tokens of the best cosine among those of the other,
  summed over the branches; with one token each it is their cosine.

  Args:
    text: N arrays [W, D] of unit vectors.
    images: {branch: [M, P, D]}, unit vectors.
  """
  to_image, to_text = [], []
  for words in text:
    cosines = [
      (words @ x.reshape(-1, x.shape[-1]).T).reshape(-1, *x.shape[:2])
      for x in images.values()
    ]  # [W, M, P] each
    to_image.append(sum(c.max(axis=2).mean(axis=0) for c in cosines))
    to_text.append(sum(c.max(axis=0).mean(axis=1) for c in cosines))
  return np.stack(to_image), np.stack(to_text, axis=1)


def recalls(to_image, to_text, text_picture, pictures, *, replicates=9_999):
  """Recall at RANKS both ways; ties count against.

  Args:
    to_image: [N, M], how N sentences see M pictures.
    to_text: [M, N], how the pictures see them.
    text_picture: [N], the picture of each sentence.
    pictures: [M], their numbers in ascending order; each has a sentence.
    replicates: permutations that p is counted from.

  Returns:
    {"text_to_image": {"1": recall, ..., "mean_rank": from 1}, "image_to_text":
    ..., "chance": {the same of random ranks}, "p": `_chance_of`, "sentences":
    N, "pictures": M}. A picture with several sentences has found one if the
    best of them is among the first k.
  """
  own = text_picture[:, None] == pictures[None, :]  # [N, M]
  ways = {
    "text_to_image": (to_image, own),
    "image_to_text": (to_text, own.T),
  }
  found, chance = {}, {}
  for way, (similarity, own) in ways.items():
    best = np.max(np.where(own, similarity, -np.inf), axis=1, keepdims=True)
    before = np.sum((similarity >= best) & ~own, axis=1)  # of the others
    found[way] = {str(k): float(np.mean(before < k)) for k in RANKS}
    found[way]["mean_rank"] = float(np.mean(before)) + 1
    counts = own.sum(axis=1).tolist()
    chance[way] = {
      str(k): float(np.mean([_chance(k, n, own.shape[1]) for n in counts]))
      for k in RANKS
    }
    # The first of n among T in random order.
    total = own.shape[1]
    first = [(total + 1) / (n + 1) for n in counts]
    chance[way]["mean_rank"] = float(np.mean(first))
  column = np.searchsorted(pictures, text_picture)
  p = _chance_of(to_image, to_text, column, replicates)
  sizes = {"sentences": len(text_picture), "pictures": len(pictures)}
  return {**found, "chance": chance, "p": p, **sizes}


def _chance_of(to_image, to_text, own, replicates):
  """How often exchanged pictures rank as well: p of a permutation test.

  The statistic is the mean rank of one's own, both ways; a replicate permutes
  the pictures, so that sentences of one picture keep one picture. Mean ranks
  tell more than recalls, which see the first k only.

  Args:
    to_image, to_text: as `recalls` takes them.
    own: [N], the column of each sentence's picture.
    replicates: how many.
  """
  rng = np.random.default_rng(0)
  sentences = np.argsort(own, kind="stable")
  own = own[sentences]
  firsts = np.flatnonzero(np.diff(own, prepend=-1))  # of each picture
  places = _places(to_image)[sentences], _places(to_text)[:, sentences]

  def mean_rank(picture):  # [N], the column that each sentence has now
    rows = np.arange(len(picture))
    ours = places[0][rows, picture]
    theirs = np.minimum.reduceat(places[1][picture, rows], firsts)
    return np.mean(ours) + np.mean(theirs)

  observed = mean_rank(own)
  exchanged = [
    mean_rank(rng.permutation(len(firsts))[own]) for _ in range(replicates)
  ]
  as_good = np.sum(np.array(exchanged) <= observed + 1e-9)
  return float((1 + as_good) / (1 + replicates))


def _places(similarity):
  """[R, C] -> how many of the row's others are at least as similar."""
  places = [
    len(row) - 1 - np.searchsorted(np.sort(row), row) for row in similarity
  ]
  return np.array(places, np.int32)


def _chance(k, own, total):
  """That one of `own` among `total` is in a random choice of k."""
  k = min(k, total)
  return 1 - math.comb(total - own, k) / math.comb(total, k)


def score(params, examples):
  """`recalls` of each language's sentences and of all, {name: recalls}."""
  pairs = embed(params, examples)
  groups = {"all": np.full(len(pairs.text), True)}
  groups |= {name: pairs.language == name for name in np.unique(pairs.language)}
  scores = {}
  for name, members in groups.items():
    ids = np.flatnonzero(members)
    pictures, first = np.unique(pairs.picture[ids], return_index=True)
    text = [pairs.text[i] for i in ids]
    images = {branch: x[ids[first]] for branch, x in pairs.images.items()}
    scores[str(name)] = recalls(
      *similarities(text, images), pairs.picture[ids], pictures
    )
  return scores


def write(scores, workdir, split):
  """Writes `<split>_retrieval.json`; process 0 only."""
  if jax.process_index() == 0:
    path = epath.Path(workdir) / f"{split}_retrieval.json"
    files.write(path, json.dumps(scores, indent=2) + "\n")

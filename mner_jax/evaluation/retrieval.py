"""Do sentences find their pictures, and pictures their sentences?

Recall at k in the space that the contrastive loss shapes: all pictures are
ranked by their similarity to a sentence, and its own is among the first k or
not. The similarity is that of the loss: see `contrastive.similarities`. A
permutation test, which exchanges pictures among sentences, shows whether the
result could be chance.

N sentences, M pictures, W words, P image tokens, D width.
"""

import math

import jax
import numpy as np

from mner_jax.data import batches
from mner_jax.models.contrastive import normalise

RANKS = (1, 5, 10)
_REPLICATES = 9_999  # of the permutation test


def _vectors(model, params, batch):
  """([B, W, D], {branch: [B, P, D]}, [B] numbers of pictures)."""
  output = model.apply({"params": params}, batch)
  vectors = jax.tree.map(normalise, (output.text, output.images))
  if model.config.loss.alignment != "word":
    vectors = jax.tree.map(lambda x: x[:, None], vectors)
  return *vectors, batch["image_id"]


def embed(evaluated):
  """The sentences of a split that have a picture, as unit vectors.

  A long sentence is represented by its first window.

  Args:
    evaluated: evaluate.Evaluation, of a model that aligns.

  Returns:
    text, N arrays [W, D]; images, {branch: [N, P, D]}; picture [N], equal for
    equal pictures; language [N]. Where whole sentences are aligned W = P = 1.
  """
  examples, found = evaluated.examples, []
  rows = evaluated.evaluator.rows(_vectors, evaluated.params, examples)
  for i, (text, images, picture) in rows:
    window = examples.windows[i]
    if window.start == 0 and picture != batches.PADDING:
      text = text[: len(window.first_piece)]
      language = examples.split.sentences[window.sentence].language
      found.append((text, images, picture, language))
  text, images, picture, language = zip(*found, strict=True)
  images = jax.tree.map(lambda *x: np.stack(x), *images)
  return text, images, np.array(picture), np.array(language)


def similarities(text, images):
  """(text_to_image [N, M], image_to_text [M, N]), which are not symmetric.

  The mean over one's own tokens of the best cosine among those of the other,
  summed over the branches; with one token each, simply their cosine.

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


def recalls(to_image, to_text, text_picture, pictures):
  """Recall at RANKS both ways; ties count against.

  Args:
    to_image: [N, M] similarities of sentences to pictures.
    to_text: [M, N] similarities of pictures to sentences.
    text_picture: [N], the picture of each sentence.
    pictures: [M], their numbers in ascending order; each has a sentence.

  Returns:
    {"text_to_image": {"1": recall, ...}, "image_to_text": ..., "chance": {the
    same, expected of random ranks}, "p": see `_permutation_p`,
    "sentences": N, "pictures": M}. A picture with several sentences has found
    one if the best of them is among the first k.
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
    chance[way] = _chance(own.sum(axis=1).tolist(), own.shape[1])
  column = np.searchsorted(pictures, text_picture)
  p = _permutation_p(to_image, to_text, column)
  sizes = {"sentences": len(text_picture), "pictures": len(pictures)}
  return {**found, "chance": chance, "p": p, **sizes}


def _chance(counts, total):
  """The expected recalls in random order.

  Args:
    counts: how many of the `total` ranked are the right ones, for each query.
    total: how many are ranked.
  """

  def recall(k, n):  # one of n among the first k
    return 1 - math.comb(total - n, k) / math.comb(total, k)

  return {
    str(k): float(np.mean([recall(min(k, total), n) for n in counts]))
    for k in RANKS
  }


def _permutation_p(to_image, to_text, own):
  """How often exchanged pictures rank as well: p of a permutation test.

  The statistic is the mean rank of one's own, both ways; a replicate permutes
  the pictures, so that sentences of one picture keep one picture. Mean ranks
  carry more information than recalls, which see the first k only.

  Args:
    to_image, to_text: as `recalls` takes them.
    own: [N], the column of each sentence's picture.
  """
  rng = np.random.default_rng(0)
  sentences = np.argsort(own, kind="stable")
  own = own[sentences]
  firsts = np.flatnonzero(np.diff(own, prepend=-1))  # of each picture
  places = _places(to_image)[sentences], _places(to_text)[:, sentences]
  rows = np.arange(len(own))

  def mean_rank(picture):  # [N], the column that each sentence has now
    ours = places[0][rows, picture]
    theirs = np.minimum.reduceat(places[1][picture, rows], firsts)
    return np.mean(ours) + np.mean(theirs)

  limit = mean_rank(own) + 1e-9
  draws = (rng.permutation(len(firsts))[own] for _ in range(_REPLICATES))
  as_good = sum(mean_rank(picture) <= limit for picture in draws)
  return float((1 + as_good) / (1 + _REPLICATES))


def _places(similarity):
  """[R, C] -> how many others in the row are at least as similar, [R, C]."""
  ranks = [np.searchsorted(np.sort(row), row) for row in similarity]
  return similarity.shape[1] - 1 - np.array(ranks, np.int32)


def score(evaluated):
  """{name: `recalls`} of all sentences and those of each language.

  {} where no sentence has a picture, or the model does not align them.
  """
  config, split = evaluated.examples.config, evaluated.examples.split
  aligns = config.model.multimodal and config.loss.contrastive != "none"
  if not aligns or "ok" not in split.image_status:
    return {}
  text, images, picture, language = embed(evaluated)
  scores = {}
  for name in ("all", *np.unique(language).tolist()):
    ids = np.flatnonzero((language == name) | (name == "all"))
    pictures, first = np.unique(picture[ids], return_index=True)
    seen = {branch: x[ids[first]] for branch, x in images.items()}
    found = similarities([text[i] for i in ids], seen)
    scores[name] = recalls(*found, picture[ids], pictures)
  return scores

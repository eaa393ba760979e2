"""Do sentences find their pictures, and pictures their sentences?

Recall at k of the space that the contrastive loss shapes: rank all pictures by
their similarity to a sentence; its own is among the first k, or not.
"""

import json
import math

import jax
import numpy as np
from etils import epath

from mner_jax import files, sharding
from mner_jax.data import batches
from mner_jax.models.contrastive import normalise
from mner_jax.models.mner import MultimodalNER

RANKS = (1, 5, 10)


def aligns(config):
  """Whether a Config's model has a space of sentences and pictures."""
  return config.model.multimodal and config.loss.contrastive != "none"


def embed(params, examples):
  """Unit vectors of the sentences that have a picture, and of the pictures.

  Long sentences stand for themselves by their first window. With two image
  branches both are compared: the vectors stand side by side, so that the
  product is the sum of the cosines.

  Args:
    params: of the model of `examples.config`.
    examples: batches.Examples.

  Returns:
    (text [N, D], image [N, D], sentence [N], picture [N]); equal numbers in
    `picture` are the same picture.
  """
  config = examples.config
  mesh = sharding.make_mesh(config.mesh)
  model = MultimodalNER(config)

  def vectors(params, batch):
    output = model.apply({"params": params}, batch)
    text = normalise(output.text)
    images = [normalise(x) for x in output.images.values()]
    return (
      jax.numpy.concatenate([text] * len(images), axis=-1),
      jax.numpy.concatenate(images, axis=-1),
    )

  compute = jax.jit(vectors, out_shardings=sharding.replicated(mesh))
  plan = examples.plan()
  process = (jax.process_index(), jax.process_count())
  found = []
  for step, batch in enumerate(
    batches.load(examples, plan, (0, plan.steps_per_epoch), process=process)
  ):
    on_device = sharding.put_batch(batch, mesh)
    text, image = jax.device_get(compute(params, on_device))
    replicate = jax.jit(lambda x: x, out_shardings=sharding.replicated(mesh))
    has_image = jax.device_get(replicate(on_device["has_image"]))
    picture = jax.device_get(replicate(on_device["image_id"]))
    for row, i in enumerate(plan.batch(step)[1]):
      if i != batches.PADDING and has_image[row]:
        window = examples.windows[i]
        if window.start == 0:
          found.append((text[row], image[row], window.sentence, picture[row]))
  return tuple(np.array(x) for x in zip(*found, strict=True))


def recalls(similarity, text_picture, pictures):
  """Recall at RANKS both ways; ties count against.

  Args:
    similarity: [N, M], of N sentences and M pictures.
    text_picture: [N], the picture of each sentence.
    pictures: [M], their numbers; each has a sentence.

  Returns:
    {"text_to_image": {"1": recall, ...}, "image_to_text": ..., "chance":
    {the same}, "sentences": N, "pictures": M}. A picture with several
    sentences has found one if the best of them is among the first k.
  """
  own = text_picture[:, None] == pictures[None, :]  # [N, M]
  found = {
    "text_to_image": _ranks(similarity, own),
    "image_to_text": _ranks(similarity.T, own.T),
  }
  sizes = {"text_to_image": own.sum(1), "image_to_text": own.sum(0)}
  total = {"text_to_image": len(pictures), "image_to_text": len(text_picture)}
  return {
    **{
      way: {str(k): float(np.mean(ranks < k)) for k in RANKS}
      for way, ranks in found.items()
    },
    "chance": {
      way: {
        str(k): float(np.mean([_chance(k, n, total[way]) for n in sizes[way]]))
        for k in RANKS
      }
      for way in found
    },
    "sentences": len(text_picture),
    "pictures": len(pictures),
  }


def _ranks(similarity, own):
  """[N, M] -> [N]: how many others come before, or equal, the best own."""
  best = np.max(np.where(own, similarity, -np.inf), axis=1, keepdims=True)
  return np.sum((similarity >= best) & ~own, axis=1)


def _chance(k, own, total):
  """That one of `own` among `total` is in a random choice of k."""
  k = min(k, total)
  return 1 - math.comb(total - own, k) / math.comb(total, k)


def score(params, examples):
  """`recalls` of each language's sentences and of all, {name: recalls}."""
  text, image, sentence, picture = embed(params, examples)
  languages = np.array([examples.split.sentences[i].language for i in sentence])
  groups = {"all": np.ones(len(text), bool)}
  groups |= {name: languages == name for name in sorted(set(languages))}
  scores = {}
  for name, members in groups.items():
    pictures, first = np.unique(picture[members], return_index=True)
    scores[name] = recalls(
      text[members] @ image[members][first].T, picture[members], pictures
    )
  return scores


def write(scores, workdir, split):
  """Writes `<split>_retrieval.json`; process 0 only."""
  if jax.process_index() == 0:
    path = epath.Path(workdir) / f"{split}_retrieval.json"
    files.write(path, json.dumps(scores, indent=2) + "\n")

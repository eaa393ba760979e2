"""Data folders that tables train on: the first sentences, or captions.

The same source gives the same bytes.
"""

import collections

from etils import epath

from mner_jax.config import UserError
from mner_jax.data import folders, formats

_CAPTIONED = ("en", "de", "fr")  # the fourth has 74 pictures only
_DEV_PICTURES = 72


def subset(source, target, data, sizes):
  """Writes the first sentences of each file of a data folder.

  Args:
    source: a folder as in `data.path`. Without a train file, the train split
      is what follows in the valid file after the valid split.
    target: the folder to write, with a subfolder for each language.
    data: DataConfig; its languages, and how the files are read.
    sizes: {split: sentences per language}; a split without is taken whole.
  """
  found = folders.find(epath.Path(source).expanduser(), data.languages)

  def read(split, language):
    if language not in found.get(split, {}):
      raise UserError(f"--data: {source} has no {split} file of {language!r}")
    file = found[split][language]
    # To its end: only there is it known which column has the tags.
    return [*formats.read(file, language, data.scheme, data.tag_column)]

  for language in data.languages:
    valid, test = read("valid", language), read("test", language)
    rest = valid[len(valid[: sizes.get("valid")]) :]
    train = read("train", language) if "train" in found else rest
    files = {"train": train, "valid": valid, "test": test}
    if not train:
      raise UserError(f"--data: {source} has no train sentence in {language!r}")
    for split, sentences in files.items():
      part = sentences[: sizes.get(split)]
      formats.write_jsonl(target / language / f"{split}.jsonl", part)


def captions(source, target):
  """Writes the captions of `aligned.jsonl` as sentences tagged O throughout.

  Its `val` and `test` become test; the last pictures of train become valid.
  """
  path = epath.Path(source).expanduser() / "aligned.jsonl"
  found = collections.defaultdict(list)
  for number, record in formats.records(path):
    try:
      image = record["image"].rpartition("/")[2]
      texts = {x: record["captions"][x] for x in _CAPTIONED}
      captions = [(x, tuple(y.split())) for x in texts for y in texts[x]]
      # A string in place of a list would be read letter by letter.
      if str in map(type, texts.values()) or not all(y for _, y in captions):
        raise TypeError
      split = {"val": "test"}.get(record["split"], record["split"])
      found[split].append((image, captions))
    except (KeyError, TypeError, AttributeError):
      needs = f"split, image, and lists of sentences in {_CAPTIONED}"
      raise UserError(f"{path}:{number}: needs {needs}") from None
  splits = {
    "train": found["train"][:-_DEV_PICTURES],
    "valid": found["train"][-_DEV_PICTURES:],
    "test": found["test"],
  }
  for split, part in splits.items():
    sentences = []
    for image, captions in part:
      for language, words in captions:
        tags = ("O",) * len(words)
        sentences.append(formats.Sentence(words, tags, image, language))
    formats.write_jsonl(target / f"{split}.jsonl", sentences)

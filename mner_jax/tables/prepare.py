"""Folders that tables read: stated subsets, and captions as sentences.

The same source gives the same bytes.
"""

import contextlib
import itertools
import json
import shutil

from etils import epath

from mner_jax.config import UserError
from mner_jax.data import folders, formats

_CAPTIONED = ("en", "de", "fr")  # the fourth has 74 pictures only
_DEV_PICTURES = 72


def subset(source, target, languages, sizes):
  """Writes the first sentences of each file of a data folder.

  Args:
    source: folder as `data.path` has it. Without a train file, the sentences
      of valid that follow those for valid are the train split.
    target: folder to write, a subfolder for each language.
    languages: whose.
    sizes: sentences of (train, valid, test); None = all.
  """
  target = epath.Path(target)
  found = folders.find(epath.Path(source).expanduser(), languages)
  for split in ("valid", "test"):
    if split not in found:
      raise UserError(f"--data: {source} has no {split} file")
  sizes = dict(zip(("train", "valid", "test"), sizes, strict=True))
  with _whole(target) as folder:
    for language in languages:

      def sentences(split, language=language):
        path = found[split].get(language)
        if path is None:
          raise UserError(f"--data: {source} has no {split} of {language!r}")
        return formats.read(path, language)

      valid = sentences("valid")
      parts = {"valid": list(itertools.islice(valid, sizes["valid"]))}
      rest = sentences("train") if "train" in found else valid
      parts["train"] = list(itertools.islice(rest, sizes["train"]))
      test = sentences("test")
      parts["test"] = list(itertools.islice(test, sizes["test"]))
      (folder / language).mkdir()
      for split, part in parts.items():
        if not part:
          raise UserError(f"--data: {source}: no {split} sentence is left")
        formats.write_conll(folder / language / f"{split}.conllu", part)
  return target


def captions(source, target):
  """Writes the captions of `aligned.jsonl` as sentences of O, one a language.

  `val` and `test` become test; the last pictures of train become valid.
  """
  target = epath.Path(target)
  path = epath.Path(source).expanduser() / "aligned.jsonl"
  if not path.exists():
    raise UserError(f"--data: {path} is not there; see configs/flickr8k.py")
  records = [json.loads(line) for line in path.read_text().splitlines()]
  train = [r for r in records if r["split"] == "train"]
  splits = {
    "train": train[:-_DEV_PICTURES],
    "valid": train[-_DEV_PICTURES:],
    "test": [r for r in records if r["split"] in ("val", "test")],
  }
  with _whole(target) as folder:
    for split, part in splits.items():
      sentences = []
      for record, language in itertools.product(part, _CAPTIONED):
        for caption in record["captions"][language]:
          words = tuple(caption.split())
          image = record["image"].rpartition("/")[2]
          sentences.append(
            formats.Sentence(words, ("O",) * len(words), image, language)
          )
      formats.write_jsonl(folder / f"{split}.jsonl", sentences)
  return target


@contextlib.contextmanager
def _whole(target):
  """Around the writing of a folder: it has its name when all is in it."""
  temporary = target.with_name(target.name + ".tmp")
  for old in (temporary, target):
    if old.exists():
      shutil.rmtree(old)
  temporary.mkdir(parents=True)
  yield temporary
  temporary.rename(target)

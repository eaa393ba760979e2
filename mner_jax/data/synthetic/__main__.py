"""Prints the numbers of the synthetic corpus, or writes it to a folder."""

import argparse
import collections
import pathlib

from mner_jax.data import formats
from mner_jax.data.synthetic import corpus, names


def _f1(train: list[corpus.Example], test: list[corpus.Example]) -> float:
  from seqeval.metrics import f1_score

  truth = [list(example.sentence.tags) for example in test]
  return f1_score(truth, corpus.lookup_baseline(train, test))


def _entities(example: corpus.Example) -> list[list[str]]:
  """The words of each entity, its type first."""
  words, tags = example.sentence.words, example.sentence.tags
  found = []
  for word, tag in zip(words, tags, strict=True):
    if tag.startswith("B-"):
      found.append([tag[2:]])
    if tag != "O":
      found[-1].append(word)
  return found


def _describe(title: str, split: list[corpus.Example], seen: set[str]) -> None:
  entities = [entity for example in split for entity in _entities(example)]
  types = collections.Counter(entity[0] for entity in entities)
  unseen = sum(seen.isdisjoint(entity[1:]) for entity in entities)
  tokens = sum(len(example.sentence.words) for example in split)
  ambiguous = sum(e.sentence.source == "ambiguous" for e in split)
  counts = " ".join(f"{kind} {types[kind]}" for kind in names.TYPES)
  print(
    f"{title:9} {len(split)} sentences, {tokens} tokens, {counts}; "
    f"ambiguous {ambiguous / len(split):.1%}, "
    f"names held out {unseen / len(entities):.1%}, "
    f"ceiling {corpus.ceiling(split, pictures=False):.3f} for the text "
    f"alone, {corpus.ceiling(split, pictures=True):.3f} with the pictures"
  )


def _report(splits: dict[str, list[corpus.Example]]) -> None:
  for language in (*names.LANGUAGES, "all"):
    parts = {
      split: [e for e in drawn if language in (e.sentence.language, "all")]
      for split, drawn in splits.items()
    }
    seen = {word for e in parts["train"] for word in e.sentence.words}
    for split, part in parts.items():
      _describe(f"{language} {split}", part, seen)
    print(f"look-up F1 on test {_f1(parts['train'], parts['test']):.3f}")
    if language != "all":
      for example in parts["test"][:3]:
        words, tags = example.sentence.words, example.sentence.tags
        pairs = zip(words, tags, strict=True)
        text = " ".join(w if t == "O" else f"{w}/{t}" for w, t in pairs)
        print(f"  [picture: {example.scene or 'none'}] {text}")


def _write(
  folder: pathlib.Path, splits: dict[str, list[corpus.Example]], seed: int
) -> None:
  from mner_jax.data.synthetic.pictures import draw

  (folder / "images").mkdir(parents=True, exist_ok=True)
  for split, drawn in splits.items():
    sentences = collections.defaultdict(list)
    for sentence, scene, _ in drawn:
      sentences[sentence.language].append(sentence)
      if scene:
        picture = draw(scene, corpus.picture_rng(seed, sentence.image))
        picture.save(folder / "images" / f"{sentence.image}.png")
    for language, members in sentences.items():
      (folder / language).mkdir(exist_ok=True)
      formats.write_conll(folder / language / f"{split}.txt", members)


def main() -> None:
  """Reads the arguments, then prints and writes."""
  parser = argparse.ArgumentParser(
    prog="python -m mner_jax.data.synthetic", description=__doc__
  )
  parser.add_argument("--seed", type=int, default=0, help="0 or larger")
  parser.add_argument(
    "--output", type=pathlib.Path, metavar="DIR", help="write the corpus here"
  )
  args = parser.parse_args()
  if args.seed < 0:
    parser.error("--seed must be 0 or larger")
  splits = {s: corpus.examples(s, seed=args.seed) for s in corpus.SPLITS}
  _report(splits)
  if args.output:
    _write(args.output, splits, args.seed)


if __name__ == "__main__":
  main()

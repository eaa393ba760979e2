"""Prints the ceilings of the synthetic corpus; with --output, writes it."""

import pathlib

from seqeval.metrics import f1_score

from mner_jax import cli
from mner_jax.config import UserError
from mner_jax.data import formats
from mner_jax.data.synthetic import corpus, pictures


def _report(title, splits):
  for split, drawn in splits.items():
    text, both = (corpus.ceiling(drawn, pictures=x) for x in (False, True))
    print(
      f"{title} {split}: {len(drawn)} sentences, ceiling {text:.3f} for the"
      f" text alone, {both:.3f} with the pictures"
    )
  predicted = corpus.lookup_baseline(splits["train"], splits["test"])
  truth = [list(example.sentence.tags) for example in splits["test"]]
  print(f"{title} look-up F1 on test: {f1_score(truth, predicted):.3f}")


def _write(folder, splits, seed):
  """Writes <language>/<split>.txt and images/, as `data.path` reads them."""
  for name in (*corpus.LANGUAGES, "images"):
    (folder / name).mkdir(parents=True)
  for split, drawn in splits.items():
    for language in corpus.LANGUAGES:
      sentences = [x.sentence for x in drawn if x.sentence.language == language]
      formats.write_conll(folder / language / f"{split}.txt", sentences)
    for sentence, scene in drawn:
      if scene:
        picture = pictures.draw(scene, corpus.picture_rng(seed, sentence.image))
        picture.save(folder / "images" / f"{sentence.image}.png")


def arguments(parser):
  """Defines the command's flags."""
  parser.add_argument("--seed", type=int, default=0, help="0 or larger")
  parser.add_argument("--output", type=pathlib.Path, help="a new folder")


def main(args):
  """Prints and writes."""
  if args.seed < 0:
    raise UserError("--seed must be 0 or larger")
  if args.output and args.output.exists() and any(args.output.iterdir()):
    raise UserError(f"--output: {args.output} is not empty; name a new folder")
  for languages in (*((x,) for x in corpus.LANGUAGES), corpus.LANGUAGES):
    splits = {
      split: corpus.examples(split, seed=args.seed, languages=languages)
      for split in corpus.SPLITS
    }
    _report("+".join(languages), splits)
  if args.output:
    _write(args.output, splits, args.seed)


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__)

"""Writes the synthetic corpus to a folder, as `data.path` reads it."""

import pathlib

from mner_jax import cli
from mner_jax.data import builders, formats
from mner_jax.data.synthetic import corpus


def arguments(parser):
  """Defines the command's flags."""
  parser.add_argument(
    "--output", type=pathlib.Path, required=True, help="a new folder"
  )


def main(args):
  """Writes a file for each split, of all languages, and images/."""
  args.output.mkdir(parents=True)
  images = args.output / "images"
  images.mkdir()
  for split in corpus.SPLITS:
    sentences = []
    for sentence, name, _, picture in builders.synthetic_examples(split):
      sentences.append(sentence)
      if name:
        (images / f"{name}.png").write_bytes(picture)
    formats.write_jsonl(args.output / f"{split}.jsonl", sentences)


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__)

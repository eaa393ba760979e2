"""Scores a trained model: the checkpoint that is best on dev, on one split.

  python eval.py --workdir=DIR --split=test

Settings of the run may be changed, as --config.data.path=DIR2 or
--config.data.languages="('de',)". Scores of other data, or in another dtype,
go to --output alone, not into the run's folder.
"""

import dataclasses

from etils import epath

from mner_jax import cli
from mner_jax.config import UserError, differences
from mner_jax.evaluation import evaluate, report


def arguments(parser):
  add = parser.add_argument
  add("--workdir", required=True, help="folder of a train.py run")
  add("--split", default="test", choices=("train", "valid", "test"))
  add("--output", type=cli.output, metavar="FILE", help="the scores, as JSON")
  page = "also write DIR/report.html: scores, learning curves, and sentences to"
  page += " look at, with where in its picture each word looks"
  add("--report", action="store_true", help=page)
  control = "give each sentence another one's picture: a control"
  add("--shuffle_images", action="store_true", help=control)


def main(args):
  trained = cli.read_workdir(args.workdir)
  texts = dict(args.overrides)
  if args.split != "test" and "data.eval_languages" in texts:
    raise UserError(
      "--config.data.eval_languages: only the test split is of these; with"
      f" --split={args.split} give --config.data.languages"
    )
  if "data.languages" in texts:
    # Whoever names languages here means those to score.
    texts.setdefault("data.eval_languages", "()")
  config = cli.override(trained, texts)
  for line in differences(trained, config):
    if line.startswith(("model.", "data.labels")):
      raise UserError(f"config: {line}: the model is the one that was trained")
  if args.shuffle_images and not config.model.multimodal:
    raise UserError("--shuffle_images: this model sees no pictures")
  # How data are read does not make them others.
  how = ("cache_dir", "strict", "workers")
  how = {name: getattr(trained.data, name) for name in how}
  data = dataclasses.replace(config.data, **how)
  same = (data, config.dtype) == (trained.data, trained.dtype)
  own = same and not args.shuffle_images
  if args.report and not own:
    raise UserError(
      "--report shows the run's own data and pictures: give it without"
      " --shuffle_images, --config.data settings and --config.dtype"
    )
  evaluated = evaluate.evaluate(
    config, args.workdir, args.split, shuffle_images=args.shuffle_images
  )
  if own:
    path = epath.Path(args.workdir) / f"{args.split}_metrics.json"
    evaluate.write(evaluated.scores, path)
  else:  # it is of the run's own data
    evaluated.scores.pop("best_test_epoch", None)
  if args.output:
    evaluate.write(evaluated.scores, args.output)
  print(evaluate.table(evaluated.scores))
  if args.report:
    print("\n" + report.write(evaluated, args.workdir, args.split))


if __name__ == "__main__":
  cli.launch(main, arguments, __doc__, overrides=True)

"""Scores a trained model: the checkpoint that is best on dev, on one split.

  python eval.py --workdir=DIR --split=test

Fields of the run's config may be changed for it: --config.data.path=DIR2,
--config.data.languages="('de',)".
"""

from absl import flags

from mner_jax.cli import launch
from mner_jax.config import (
  UserError,
  differences,
  from_config_dict,
  read_workdir,
)
from mner_jax.evaluation import evaluate as evaluation
from mner_jax.evaluation import report

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of a train.py run.", required=True
)
_SPLIT = flags.DEFINE_enum(
  "split", "test", ["train", "valid", "test"], "What to score."
)
_SHUFFLE_IMAGES = flags.DEFINE_bool(
  "shuffle_images",
  False,
  "Give each sentence another one's picture: a control; nothing is written.",
)
_REPORT = flags.DEFINE_bool(
  "report",
  False,
  "Write DIR/report.html too: scores, learning curves, and the sentences to"
  " look at, with where in its picture each word looks.",
)
_LANGUAGES = ("languages", "eval_languages")


def main():
  config = flags.FLAGS.config
  # Who names languages here means those to score.
  given = [f"config.data.{x}" in flags.FLAGS for x in _LANGUAGES]
  if given == [True, False]:
    config.data.eval_languages = ()
  if _REPORT.value and _SHUFFLE_IMAGES.value:
    raise UserError(
      "--report and --shuffle_images: a report shows each sentence with its"
      " own picture; give one of them"
    )
  config = from_config_dict(config)
  for line in differences(read_workdir(_WORKDIR.value), config):
    if line.startswith("model."):
      raise UserError(f"config: {line}: the model is the one that was trained")
  evaluated = evaluation.evaluate(
    config,
    _WORKDIR.value,
    _SPLIT.value,
    shuffle_images=_SHUFFLE_IMAGES.value,
  )
  if not _SHUFFLE_IMAGES.value:
    evaluation.write(evaluated.scores, _WORKDIR.value, _SPLIT.value)
  print(evaluation.table(evaluated.scores))
  if _REPORT.value:
    print("\n" + report.write(evaluated, _WORKDIR.value, _SPLIT.value))


if __name__ == "__main__":
  launch(main, config_from_workdir=True)

"""The tables as data: a row is a name and the fields in which it differs.

All rows of a table share a config and a budget: none is tuned alone.
"""

from typing import NamedTuple


class Table(NamedTuple):
  """One table of the paper, or beside it.

  Attributes:
    title: what it shows.
    configs: {scale: name of a file in mner_jax/configs/}.
    rows: {name: {field: value}} against that config.
    reference: the row that the others are tested against; "" = no test.
    columns: {heading: path in a run's scores}, shown beside F1.
    budget: {scale: {field: value}}, of every row alike.
    subset: {scale: sentences of (train, valid, test) per language}; None =
      all of a split.
    notes: lines under the table.
    paper_only: rows that the mini scale leaves out.
  """

  title: str
  configs: dict[str, str]
  rows: dict[str, dict]
  reference: str
  columns: dict[str, str] = {}
  budget: dict[str, dict] = {}
  subset: dict[str, tuple] = {}
  notes: tuple[str, ...] = ()
  paper_only: tuple[str, ...] = ()


_TEXT = {
  "model.vit.enabled": False,
  "model.resnet.enabled": False,
  "loss.contrastive": "none",
}
# From scratch in any table, and so with the settings of configs/bilstm.py.
_BILSTM = _TEXT | {
  "model.text.encoder": "bilstm",
  "model.text.weights": "",
  "model.text.vocab_size": 30000,
  "model.text.hidden_size": 400,
  "model.text.num_layers": 1,
  "model.text.dropout": 0.5,
  "optim.learning_rate": 1e-3,
}
_NO_ALIGNMENT = {"loss.contrastive": "none"}
_CONCATENATION = _NO_ALIGNMENT | {"model.fusion": "concatenation"}
_LANGUAGES = ("en", "fr", "de", "es")
_BY_LANGUAGE = {name: f"per_language.{name}.f1" for name in _LANGUAGES}
_RECALLS = {
  f"{arrow} R@{k}": f"retrieval.all.{direction}.{k}"
  for arrow, direction in (("t→i", "text_to_image"), ("i→t", "image_to_text"))
  for k in (1, 5, 10)
}
# Three of the seven epochs of configs/synthetic.py.
_MINI = {"train.epochs": 3}


def _pairs():
  for i, first in enumerate(_LANGUAGES):
    for second in _LANGUAGES[i + 1 :]:
      yield first, second


# Beside 2M-NER, at their authors' settings; the budget is the table's.
_UMT = _NO_ALIGNMENT | {
  "model.fusion": "umt",
  "model.vit.enabled": False,
  "optim.warmup_steps": 0,
  "optim.warmup_share": 0.1,
  "optim.weight_decay": 0.01,
}
_MAF = {
  "model.fusion": "maf",
  "model.vit.enabled": False,
  "loss.contrastive": "clip",
  "loss.temperature": 0.179,
  "loss.text_share": 0.7,
  "loss.alpha": 0.62,
}


TABLES = {
  "main": Table(
    "2M-NER and what it is compared with",
    configs={"mini": "synthetic", "paper": "mmnerd"},
    rows={
      "BiLSTM-CRF": _BILSTM,
      "BERT + softmax": _TEXT | {"model.decoder": "softmax"},
      "BERT-CRF": _TEXT,
      "BERT-CRF + ViT + ResNet, concatenated": _CONCATENATION,
      "UMT": _UMT,
      "MAF": _MAF,
      "2M-NER": {},
    },
    reference="2M-NER",
    columns=_BY_LANGUAGE,
    budget={"mini": _MINI},
  ),
  "ablation": Table(
    "2M-NER without each of its parts",
    configs={"mini": "synthetic", "paper": "mmnerd"},
    rows={
      "2M-NER": {},
      "2M-NER, released": {"model.released": True},
      "without contrastive loss": _NO_ALIGNMENT,
      "without collaboration": {"model.fusion": "none"},
      "concatenation, no contrastive loss": _CONCATENATION,
      "text only (BERT-CRF)": _TEXT,
      "ViT only": {"model.resnet.enabled": False},
      "ResNet only": {"model.vit.enabled": False},
      "CLIP form": {"loss.contrastive": "clip"},
      "word-level alignment": {"loss.alignment": "word"},
      "softmax for the CRF": {"model.decoder": "softmax"},
    },
    reference="2M-NER",
    columns=_BY_LANGUAGE,
    budget={"mini": _MINI},
    # Its queries take the keys' projection: words and pictures as wide.
    paper_only=("2M-NER, released",),
  ),
  "languages": Table(
    "Trained on each language, on pairs, on all; scored on all",
    configs={"mini": "wikineural", "paper": "mmnerd"},
    rows={
      " + ".join(names): {
        "data.languages": names,
        "data.eval_languages": _LANGUAGES,
      }
      for names in (*((x,) for x in _LANGUAGES), *_pairs(), _LANGUAGES)
    },
    reference=" + ".join(_LANGUAGES),
    columns=_BY_LANGUAGE,
    # Rows differ in updates: the warm-up is the same share of them.
    budget={
      "mini": {
        "train.epochs": 3,
        "optim.warmup_steps": 0,
        "optim.warmup_share": 0.1,
      }
    },
    subset={"mini": (5000, 500, 1000)},
    notes=(
      "* zero-shot: the language was not trained on; from scratch its words"
      " are not in the vocabulary either",
      "rows differ in sentences, and so in updates; epochs are the same",
    ),
  ),
  "alignment": Table(
    "Alignment: F1, and whether a sentence finds its picture",
    configs={"mini": "synthetic", "paper": "mmnerd"},
    rows={
      "none": _NO_ALIGNMENT,
      "word": {"loss.alignment": "word"},
      "sentence": {},
    },
    reference="sentence",
    columns=_RECALLS,
    budget={"mini": _MINI},
  ),
  "text": Table(
    "MMNERD-EN, text only",
    configs={"mini": "mmnerd_text", "paper": "mmnerd_text"},
    rows={
      "BiLSTM-CRF": _BILSTM,
      "BERT + softmax": {"model.decoder": "softmax"},
      "BERT-CRF": {},
      "BERT-CRF, released": {"model.released": True},
    },
    reference="BERT-CRF",
    columns={
      "tweets": "per_source.tweet.f1",
      "captions": "per_source.caption.f1",
      "best test epoch": "best_test_epoch.f1",
    },
    budget={
      "mini": {
        "data.languages": ("en",),
        "data.buckets": (16, 24, 32, 48, 128),  # a third less to compute
        "train.epochs": 3,
      },
      "paper": {"data.languages": ("en",)},
    },
    subset={"mini": (5000, None, None)},
    notes=(
      "F1 is of the epoch best on dev; best test epoch is selected on test, as"
      " the authors' code does, and no fair score",
    ),
  ),
  "paintings": Table(
    "CP-MNER, real pictures, small models from scratch",
    configs={"mini": "cp_mner", "paper": "cp_mner"},
    rows={
      "BERT-CRF": _TEXT,
      "UMT": _UMT,
      "MAF": _MAF,
      "2M-NER": {},
    },
    reference="2M-NER",
  ),
  "retrieval": Table(
    "The contrastive part alone: captions find their pictures",
    configs={"mini": "flickr8k", "paper": "flickr8k"},
    rows={"NT-Xent": {}, "CLIP form": {"loss.contrastive": "clip"}},
    reference="",
    columns={},
    notes=(
      "chance: of random ranks, exact; p: 9,999 permutations of the pictures"
      " among the sentences, on the mean rank of both ways; the largest of the"
      " seeds stands here",
      "the last step is scored; nothing was selected on these pictures",
    ),
  ),
}

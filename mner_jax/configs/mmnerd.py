"""2M-NER at the authors' sizes and settings: mBERT, CLIP ViT-B/32, ResNet-152.

Reads MMNERD from the folder of TFDS for data that it cannot download (without
it, the command says where and what), or from --config.data.path=DIR as its
authors pack it. Other encoders are one flag each:
  --config.model.text.weights=FacebookAI/xlm-roberta-base
  --config.model.vit.weights=google/vit-base-patch16-224

Measured: not measured.
Command:
  python train.py --config=mner_jax/configs/mmnerd.py
"""

from mner_jax.config import Config, replace

SETTINGS = {
  "data.path": "mmnerd",
  "model.text.weights": "google-bert/bert-base-multilingual-cased",
  "model.vit.weights": "openai/clip-vit-base-patch32",
  "model.resnet.weights": "timm/resnet152.tv_in1k",
}


def get_config():
  """Returns the experiment's Config."""
  return replace(Config(), SETTINGS)

"""Folders in the Hub's layout: where they are, and the arrays in them."""

import functools
import json
import re
import zipfile

import huggingface_hub
import safetensors
from etils import epath

from mner_jax.config import UserError


def folder(weights):
  """The local folder of published weights, from the Hub where it is a name."""
  path = epath.Path(weights).expanduser()
  if path.is_dir():
    return path
  if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", weights):
    raise UserError(f"weights: {weights} is neither a folder nor a Hub name")

  def download(*patterns):
    return epath.Path(
      huggingface_hub.snapshot_download(weights, allow_patterns=patterns)
    )

  try:
    path = download("*.json", "*.txt", "*.safetensors")
    if not any(path.glob("*.safetensors")):
      path = download("*.json", "*.txt", "*.bin", "*.pth")
    return path
  except Exception as error:  # of the network, the Hub or the cache
    reason = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(
      f"weights: {weights} is no folder, and the Hub did not give it"
      f" ({reason[0]})"
    ) from None


def read_json(path):
  """The content of a JSON file."""
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(f"{path}: not found") from None
  except ValueError as error:
    raise UserError(f"{path}: not valid JSON ({error})") from None


class _Arrays(dict):
  """name -> function that reads the array; reads on access."""

  def __getitem__(self, name):
    return super().__getitem__(name)(name)


def open_arrays(path):
  """{name: array} of a folder: of safetensors files, else of PyTorch files."""
  files = [path / "model.safetensors"]
  if not files[0].exists():  # sharded, or named by someone else
    files = sorted(path.glob("*.safetensors"))
  arrays = _Arrays()
  for file in files:
    try:
      with safetensors.safe_open(file, "numpy") as opened:
        arrays |= dict.fromkeys(opened.keys(), functools.partial(_read, file))
    except Exception as error:  # the library has an error type of its own
      raise UserError(f"{file}: cannot be read ({error})") from None
  if not files:
    files = sorted(path.glob("*.bin")) or sorted(path.glob("*.pth"))
    for file in files:
      tensors = _load_pytorch(file)
      arrays.update((n, lambda n, t=tensors: _numpy(t[n])) for n in tensors)
  if not files:
    raise UserError(f"{path}: no *.safetensors, *.bin or *.pth file in it")
  return arrays


def _read(file, name):
  # Opened anew for each array: what was read of a mapped file stays in memory
  # until it is closed.
  with safetensors.safe_open(file, "numpy") as opened:
    return opened.get_tensor(name)


def _load_pytorch(file):
  """{name: tensor} of a PyTorch file, without executing its pickle."""
  try:
    import torch

    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
      raise ImportError  # weights_only could be got around before
  except ImportError:
    raise UserError(
      f"{file}: reading it needs torch >= 2.6; install it, or use a"
      " safetensors file"
    ) from None
  try:
    return torch.load(
      file, map_location="cpu", weights_only=True,
      mmap=zipfile.is_zipfile(file),
    )  # fmt: skip
  except Exception as error:  # of the unpickler, the archive, the file system
    reason = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(f"{file}: cannot be read ({reason[0]})") from None


def _numpy(tensor):
  return tensor.float().numpy()

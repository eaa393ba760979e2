"""Folders of published weights in the Hub's layout, and the arrays in them."""

import functools
import zipfile

import huggingface_hub
import safetensors
from etils import epath

from mner_jax.config import UserError

_TORCH = "*pytorch_model*.bin"  # not training_args.bin, optimizer.bin


def folder(name, *, safe=False):
  """Returns the local folder of a model; downloads what is a Hub name.

  With `safe`, nothing but safetensors and JSON.
  """
  path = epath.Path(name).expanduser()
  if path.is_dir():
    return path
  download = functools.partial(huggingface_hub.snapshot_download, name)
  texts = ["*.json"] if safe else ["*.json", "*.txt"]
  try:
    path = epath.Path(download(allow_patterns=[*texts, "*.safetensors"]))
    if not safe and not any(path.glob("*.safetensors")):
      path = epath.Path(download(allow_patterns=[*texts, _TORCH, "*.pth"]))
    return path
  except Exception as error:  # of the name, the network or the cache
    raise UserError(
      f"{name} is not a folder, and the Hub did not provide it"
      f" ({_first_line(error)})"
    ) from None


def open_arrays(path):
  """Opens the safetensors files of a folder, or else its PyTorch files.

  Returns:
    {name: function that reads the array}.
  """
  whole = path / "model.safetensors"
  # Sharded weights have other names.
  files = [whole] if whole.exists() else sorted(path.glob("*.safetensors"))
  files = files or sorted(path.glob(_TORCH)) or sorted(path.glob("*.pth"))
  if not files:
    raise UserError(f"{path}: no *.safetensors, {_TORCH} or *.pth file in it")
  arrays = {}
  for file in files:
    safe = file.suffix == ".safetensors"
    try:
      arrays |= _open_safetensors(file) if safe else _open_pytorch(file)
    except ImportError:
      raise UserError(
        f"{file}: reading it needs torch >= 2.6; install it, or use a"
        " safetensors file"
      ) from None
    except Exception as error:  # each library has error types of its own
      raise UserError(
        f"{file}: cannot be read ({_first_line(error)})"
      ) from None
  return arrays


def _open_safetensors(file):
  def read(name):
    # Reopened for each array: pages of a mapped file stay in memory until it
    # is closed.
    with safetensors.safe_open(file, "numpy") as opened:
      return opened.get_tensor(name)

  with safetensors.safe_open(file, "numpy") as opened:
    return {name: functools.partial(read, name) for name in opened.keys()}


def _open_pytorch(file):
  """Opens a PyTorch file without executing its pickle."""
  import torch

  if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
    raise ImportError  # weights_only could be circumvented before
  mmap = zipfile.is_zipfile(file)  # files of old versions are no archives
  tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
  return {name: lambda x=x: x.float().numpy() for name, x in tensors.items()}


def _first_line(error):
  return (str(error).strip() or type(error).__name__).splitlines()[0]

"""Pictures: decode, and bring to the inputs of the two image encoders.

Pixels stay 8-bit integers here, as Hugging Face's image processors have them
after resizing; the models scale and normalise them on the device, so that a
quarter of the bytes travels.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

# More than nearly any camera's picture; above it a small file may fill the
# memory. Pillow itself refuses 179 million.
MAX_PIXELS = 100_000_000
# Thinner pictures keep their middle only: 1 x 10,000 resized to a shortest
# side of 224 would be 224 x 2,240,000.
_MAX_RATIO = 20


class BrokenImageError(Exception):
  """The bytes are no picture that can be shown."""


def decode(data, shortest=None):
  """The picture in `data` (bytes) as an upright RGB PIL image.

  Transparent parts become white, the first frame stands for an animation.
  Raises BrokenImageError.

  Args:
    data: the file.
    shortest: shortest side of what will be made of it. A JPEG of at least
      four times this is decoded at a half, quarter or eighth of its size (the
      decoder's draft mode), but never below twice `shortest`; any other
      picture is the same as without.
  """
  try:
    with warnings.catch_warnings():
      # Our own limit stands in for Pillow's; EXIF oddities are not errors.
      warnings.simplefilter("ignore")
      image = Image.open(io.BytesIO(data))
      if image.width * image.height > MAX_PIXELS:
        raise BrokenImageError(f"{image.width}x{image.height} pixels")
      if shortest:
        image.draft(None, (2 * shortest, 2 * shortest))
      image = _upright(image)
      if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
      if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
      return image if image.mode == "RGB" else image.convert("RGB")
  except BrokenImageError:
    raise
  except Exception as error:  # Pillow's decoders raise nearly anything
    raise BrokenImageError(f"{type(error).__name__}: {error}") from None


def shrink(data, size):
  """The file to store for a picture; raises BrokenImageError.

  `data` itself if `size` is 0 or the shortest side is not above `size`;
  otherwise the upright picture with that shortest side (bicubic), as a JPEG
  of quality 95 if it was a JPEG, else as a PNG.
  """
  image = decode(data)
  if not size or min(image.size) <= size:
    return data
  with Image.open(io.BytesIO(data)) as original:
    form = "JPEG" if original.format == "JPEG" else "PNG"
  buffer = io.BytesIO()
  image = _resize_shortest(image, size, Image.Resampling.BICUBIC)
  image.save(buffer, form, quality=95)
  return buffer.getvalue()


def _upright(image):
  try:
    ImageOps.exif_transpose(image, in_place=True)
  except Exception:  # malformed EXIF data; the picture itself may be fine
    pass
  image.load()
  return image


def _resize_shortest(image, size, resample):
  """The shortest side becomes `size`; the other is rounded down."""
  width, height = image.size
  longest = _MAX_RATIO * min(width, height)
  if max(width, height) > longest:
    width, height = min(width, longest), min(height, longest)
    image = ImageOps.fit(image, (width, height), Image.Resampling.NEAREST)
  short, long = min(width, height), max(width, height)
  other = max(size, int(size * long / short))
  new = (size, other) if width <= height else (other, size)
  return image if new == image.size else image.resize(new, resample)


def _centre_crop(image, size):
  left, top = (image.width - size) // 2, (image.height - size) // 2
  return image.crop((left, top, left + size, top + size))


def vit_pixels(image, size, style):
  """[size, size, 3] uint8, as the ViT of this style was trained.

  "clip": shortest side to `size` (bicubic), centre crop; "google": resized to
  a square (bilinear).
  """
  if style == "google":
    image = image.resize((size, size), Image.Resampling.BILINEAR)
  else:
    image = _resize_shortest(image, size, Image.Resampling.BICUBIC)
    image = _centre_crop(image, size)
  return np.asarray(image)


def scene_side(size):
  """The shortest side that a picture is brought to before a crop of `size`."""
  return round(size * 256 / 224)


def scene_pixels(image, size, rng=None):
  """[size, size, 3] uint8 for the ResNet.

  Shortest side to 256/224 of `size` (bilinear); then a random crop and flip
  drawn from `rng` in training, the centre otherwise.
  """
  image = _resize_shortest(image, scene_side(size), Image.Resampling.BILINEAR)
  if rng is None:
    return np.asarray(_centre_crop(image, size))
  left = int(rng.integers(image.width - size + 1))
  top = int(rng.integers(image.height - size + 1))
  pixels = np.asarray(image.crop((left, top, left + size, top + size)))
  return pixels[:, ::-1] if rng.integers(2) else pixels

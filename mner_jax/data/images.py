"""Pictures: decode them and make the inputs of the two image encoders.

Pixels are still 8-bit integers here, like the output of Hugging Face's image
processors after resizing. The models scale and normalise them on the device, so
that a quarter of the bytes is transferred.
"""

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps
from PIL.Image import Resampling

# Larger than almost any camera's picture; above it, a small file could exhaust
# the memory. Pillow itself refuses 179 million.
MAX_PIXELS = 100_000_000
# Only the middle of thinner pictures is kept: 1 x 10,000 resized to a shortest
# side of 224 would be 224 x 2,240,000.
_MAX_RATIO = 20


class BrokenImageError(Exception):
  """The bytes are not a picture that can be shown."""


def decode(data, shortest=None):
  """Decodes the picture in `data` (bytes) to an upright RGB PIL image.

  Transparent parts become white; of an animation, the first frame is used.
  Raises BrokenImageError.

  Args:
    data: the file.
    shortest: shortest side of what will be made of it. A JPEG of at least
      four times this is decoded at a half, quarter or eighth of its size (the
      decoder's draft mode), but never below twice `shortest`; any other
      picture is the same as without.
  """
  try:
    image = Image.open(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
      raise ValueError(f"{image.width}x{image.height} pixels")
    if shortest:
      image.draft(None, (2 * shortest, 2 * shortest))
    # The EXIF data may be malformed where the picture itself is fine.
    with contextlib.suppress(Exception):
      ImageOps.exif_transpose(image, in_place=True)
    image.load()
    if image.mode.startswith("I;16"):
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
      image = image.convert("RGBA")
      white = Image.new("RGBA", image.size, "white")
      image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")
  except Exception as error:  # Pillow's decoders raise nearly anything
    raise BrokenImageError(f"{type(error).__name__}: {error}") from None


def shrink(data, size):
  """Returns the file to store for a picture; raises BrokenImageError.

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
  image = _resize_shortest(image, size, Resampling.BICUBIC)
  image.save(buffer, form, quality=95)
  return buffer.getvalue()


def _resize_shortest(image, size, resample):
  """Resizes the shortest side to `size`; the other is rounded down."""
  longest = _MAX_RATIO * min(image.size)
  if max(image.size) > longest:
    middle = tuple(min(side, longest) for side in image.size)
    image = ImageOps.fit(image, middle, Resampling.NEAREST)
  short = min(image.size)
  new = tuple(int(size * side / short) for side in image.size)
  return image.resize(new, resample)


def _crop(image, size, left, top):
  return np.asarray(image.crop((left, top, left + size, top + size)))


def _centre_crop(image, size):
  left, top = ((side - size) // 2 for side in image.size)
  return _crop(image, size, left, top)


def vit_pixels(image, size, style):
  """Makes [size, size, 3] uint8 as the ViT of this style was trained.

  "clip": shortest side to `size` (bicubic), centre crop; "google": resized to
  a square (bilinear).
  """
  if style == "google":
    return np.asarray(image.resize((size, size), Resampling.BILINEAR))
  image = _resize_shortest(image, size, Resampling.BICUBIC)
  return _centre_crop(image, size)


def scene_side(size):
  """Returns the shortest side of a picture before a crop of `size`."""
  return round(size * 256 / 224)


def scene_pixels(image, size, rng=None):
  """Makes [size, size, 3] uint8 for the ResNet.

  Shortest side to 256/224 of `size` (bilinear); then a random crop and flip
  drawn from `rng` in training, the centre crop otherwise.
  """
  image = _resize_shortest(image, scene_side(size), Resampling.BILINEAR)
  if rng is None:
    return _centre_crop(image, size)
  left = int(rng.integers(image.width - size + 1))
  top = int(rng.integers(image.height - size + 1))
  pixels = _crop(image, size, left, top)
  return pixels[:, ::-1] if rng.integers(2) else pixels

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mner_jax.data import images

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)
FORMS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")


def turned(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return {"exif": exif}


def encode(image, form, **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def decode(image, form, **options):
  return images.decode(encode(image, form, **options))


def random_image(size=(9, 7), mode="RGB", seed=0):
  shape = (size[1], size[0], len(Image.new(mode, (1, 1)).getbands()))
  values = np.random.default_rng(seed).integers(0, 256, shape)
  return Image.fromarray(values.astype(np.uint8), mode=mode)


def pair(mode, left, right, palette=()):
  """A picture of two pixels."""
  image = Image.new(mode, (2, 1), left)
  if palette:
    image.putpalette(palette)
  image.putpixel((1, 0), right)
  return image


def close(image, other, atol):
  image, other = (np.asarray(x).astype(int) for x in (image, other))
  np.testing.assert_allclose(image, other, atol=atol)


def png_of_size(width, height):
  """A PNG whose header gives a size; it has no pixels."""
  data = bytearray(encode(Image.new("1", (1, 1)), "PNG"))
  data[16:24] = struct.pack(">II", width, height)
  data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
  return bytes(data)


BLUE_RED, BLACK_RED = (0, 0, 255, *RED), (*BLACK, *RED)
HALF = bytes([128, 255])
# A picture, its format, what is transparent (a palette's colour or alphas, an
# RGB picture's colour), and the colours it is decoded to.
COLOURS = [
  (pair("RGBA", (*RED, 128), (*RED, 0)), "PNG", None, [(255, 127, 127), WHITE]),
  (pair("LA", (0, 128), (0, 0)), "PNG", None, [(127,) * 3, WHITE]),
  (pair("RGB", (1, 2, 3), RED), "PNG", None, [(1, 2, 3), RED]),
  (pair("P", 0, 1, BLUE_RED), "PNG", 0, [WHITE, RED]),
  (pair("P", 0, 1, BLUE_RED), "GIF", 0, [WHITE, RED]),
  (pair("P", 0, 1, BLACK_RED), "PNG", HALF, [(127,) * 3, RED]),
  (pair("RGB", (1, 2, 3), RED), "PNG", (1, 2, 3), [WHITE, RED]),
  (pair("L", 128, 128), "PNG", None, [(128,) * 3] * 2),
  (pair("L", 128, 128), "JPEG", None, [(128,) * 3] * 2),
  (pair("1", 0, 1), "PNG", None, [BLACK, WHITE]),
  (pair("I;16", 0x4000, 0xFFFF), "PNG", None, [(64,) * 3, WHITE]),
  # No cyan, all of magenta and yellow: red.
  (pair("CMYK", *[(0, 255, 255, 0)] * 2), "JPEG", None, [RED, RED]),
]


@pytest.mark.parametrize(("image", "form", "clear", "expected"), COLOURS)
def test_colours(image, form, clear, expected):
  decoded = decode(image, form, transparency=clear)
  assert (decoded.mode, decoded.size) == ("RGB", (2, 1))
  close(decoded, [expected], atol=6 if image.mode == "CMYK" else 1)


def test_exif_rotated_pictures_are_upright():
  corners = np.array([[0, 80, 160], [240, 120, 40]], np.uint8)
  stored = corners.repeat(16, axis=0).repeat(16, axis=1)
  image = Image.fromarray(stored).convert("RGB")
  flipped = stored[:, ::-1]
  upright = [stored, flipped, np.rot90(stored, 2), stored[::-1], stored.T]
  upright += [np.rot90(stored, -1), np.rot90(stored, 2).T, np.rot90(stored)]
  for orientation, expected in enumerate(upright, 1):
    for form in ("PNG", "JPEG", "WEBP", "TIFF"):
      decoded = np.asarray(decode(image, form, **turned(orientation)))
      close(decoded[8::16, 8::16, 0], expected[8::16, 8::16], atol=8)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_unreadable_exif_does_not_break_a_picture(form):
  image = Image.new("RGB", (8, 8), RED)
  close(decode(image, form, exif=b"neither II nor MM"), image, atol=8)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation(form):
  first, *more = (Image.new("RGB", (8, 6), c) for c in ("red", "blue", "green"))
  close(decode(first, form, save_all=True, append_images=more), first, atol=4)


@pytest.mark.parametrize("form", FORMS)
def test_one_pixel_and_truncated_files(form):
  close(decode(Image.new("RGB", (1, 1), RED), form), [[RED]], atol=4)
  data = encode(random_image((100, 100)), form)
  for share in (0, 0.1, 0.5, 0.9):
    for shortest in (None, 20):
      with pytest.raises(images.BrokenImageError):
        images.decode(data[: int(len(data) * share)], shortest)


TOO_LARGE = (11_000, 10_000), (2**31 - 1, 2**31 - 1), (200_000_001, 1)
BROKEN = [(b"\0", None), (b"<html>404 Not Found</html>", None)]
BROKEN += [(png_of_size(0, 5), None)]
BROKEN += [(png_of_size(*size), "pixels") for size in TOO_LARGE]


@pytest.mark.parametrize(("data", "reason"), BROKEN)
def test_what_is_no_picture_or_too_large_is_broken(data, reason):
  for read in (images.decode, lambda data: images.shrink(data, 0)):
    with pytest.raises(images.BrokenImageError, match=reason):
      read(data)


def smooth(size):
  """A picture whose shrunk versions can be compared."""
  x, y = np.meshgrid(*(np.linspace(0, 1, n) for n in size))
  values = np.stack([x, y, (x + y) / 2], -1) * 255
  return Image.fromarray(values.astype(np.uint8))


DRAFTS = [  # size, shortest, size that is decoded
  ((127, 200), 32, (127, 200)),
  ((128, 200), 32, (64, 100)),
  ((511, 512), 64, (256, 256)),
  ((512, 1030), 64, (128, 258)),
  ((1024, 1024), 64, (128, 128)),
  ((1040, 1040), 64, (130, 130)),
]


@pytest.mark.parametrize(("size", "shortest", "expected"), DRAFTS)
def test_large_jpegs_are_decoded_smaller(size, shortest, expected):
  data = encode(smooth(size), "JPEG", quality=95)
  small, whole = images.decode(data, shortest), images.decode(data)
  assert small.size == expected and min(small.size) >= 2 * shortest
  pixels = [images.vit_pixels(x, shortest, "clip") for x in (small, whole)]
  close(*pixels, atol=4)
  data = encode(smooth(size), "JPEG", **turned(6))
  assert images.decode(data, shortest).size == expected[::-1]


def test_shrunk_pictures():
  data = encode(smooth((80, 40)), "JPEG", **turned(6))
  assert images.shrink(data, 0) == images.shrink(data, 40) == data
  stored = images.decode(images.shrink(data, 20))
  assert stored.size == (20, 40)  # upright, and not turned again
  whole = images.decode(data).resize((20, 40), Image.Resampling.BOX)
  close(stored, whole, atol=10)


ORIGINALS = [
  encode(random_image(), "PNG"),
  encode(random_image(mode="RGBA"), "PNG"),
  encode(random_image().quantize(), "PNG", transparency=3),
  encode(random_image((40, 40)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
  encode(random_image((20, 20), "CMYK"), "JPEG", progressive=True),
  encode(random_image().quantize(), "GIF"),
  encode(random_image(), "BMP"),
  encode(random_image(), "TIFF", compression="tiff_lzw"),
  encode(random_image(), "WEBP"),
]
changes = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)))


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(ORIGINALS), changes, st.floats(0, 2))
def test_any_bytes_are_decoded_or_broken(data, changes, kept):
  data = bytearray(data)
  for place, value in changes:
    data[place % len(data)] = value
  try:
    image = images.decode(bytes(data[: int(kept * len(data))]), shortest=2)
  except images.BrokenImageError:
    return
  assert np.asarray(image).shape == (image.height, image.width, 3)


@pytest.mark.parametrize("upright", [True, False])
def test_clip_style_keeps_the_centre_and_google_style_all(upright):
  # Red, green and blue in equal parts, from left to right or from the top.
  colours = np.eye(3, dtype=np.uint8)[:, None].repeat(100, axis=0) * 255
  stripes = colours.repeat(100, axis=1)
  flag = Image.fromarray(stripes if upright else stripes.transpose(1, 0, 2))
  pixels = images.vit_pixels(flag, 20, "clip")
  np.testing.assert_array_equal(pixels[2:-2, 2:-2], [[[0, 255, 0]] * 16] * 16)
  pixels = images.vit_pixels(flag, 30, "google")
  line = pixels[5::10, 15] if upright else pixels[15, 5::10]
  np.testing.assert_array_equal(line, np.eye(3) * 255)


def test_scene_pixels_draw_every_crop_and_flip():
  image = random_image((17, 16))
  whole = np.asarray(image)
  crops = {
    whole[top : top + 14, left : left + 14][:, ::step].tobytes()
    for top, left, step in itertools.product(range(3), range(4), (1, -1))
  }

  rng = np.random.default_rng(0)
  drawn = [images.scene_pixels(image, 14, rng).tobytes() for _ in range(400)]
  assert set(drawn) == crops


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (1, 8_000), (8_000, 1)])
def test_a_tiny_or_thin_picture_does_not_fill_the_memory(size):
  image = Image.new("RGB", size)
  resized = images._resize_shortest(image, 224, Image.Resampling.BICUBIC)
  assert min(resized.size) == 224 and max(resized.size) <= 20 * 224
  made = [images.vit_pixels(image, 224, x) for x in ("clip", "google")]
  made += [images.scene_pixels(image, 224, np.random.default_rng(0))]
  for pixels in made:
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)

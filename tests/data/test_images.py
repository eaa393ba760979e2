import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mner_jax.data import images

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)
SIZES = [(64, 3), (3, 64), (33, 32), (1, 1), (2, 5), (16, 16), (40, 40)]
FORMS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
TURNED = Image.Exif()
TURNED[0x0112] = 6


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
  """A PNG of one bit per pixel whose header gives a size; it has no pixels."""

  def chunk(kind, data):
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

  header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
  data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
  return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_white(mode):
  image = random_image(mode=mode)
  values = np.asarray(image).astype(float)
  colour, alpha = values[..., :-1], values[..., -1:] / 255
  expected = colour * alpha + 255 * (1 - alpha)
  expected = np.broadcast_to(expected, (7, 9, 3))
  np.testing.assert_allclose(decode(image, "PNG"), expected, atol=1.01)


BLUE_RED, BLACK_RED = (0, 0, 255, *RED), (*BLACK, *RED)
# The transparent colour of a palette, its alpha, that of an RGB picture.
FIRST, HALF, KEY = (
  {"transparency": value} for value in (0, bytes([128, 255]), (1, 2, 3))
)


@pytest.mark.parametrize(
  ("image", "form", "options", "expected"),
  [
    (pair("RGB", (1, 2, 3), RED), "PNG", {}, [(1, 2, 3), RED]),
    (pair("P", 0, 1, BLUE_RED), "PNG", FIRST, [WHITE, RED]),
    (pair("P", 0, 1, BLUE_RED), "GIF", FIRST, [WHITE, RED]),
    (pair("P", 0, 1, BLACK_RED), "PNG", HALF, [(127,) * 3, RED]),
    (pair("RGB", (1, 2, 3), RED), "PNG", KEY, [WHITE, RED]),
    (pair("L", 128, 128), "PNG", {}, [(128,) * 3] * 2),
    (pair("L", 128, 128), "JPEG", {}, [(128,) * 3] * 2),
    (pair("1", 0, 1), "PNG", {}, [BLACK, WHITE]),
    (pair("I;16", 0x4000, 0xFFFF), "PNG", {}, [(64,) * 3, WHITE]),
    # No cyan, all of magenta and yellow: red.
    (pair("CMYK", *[(0, 255, 255, 0)] * 2), "JPEG", {}, [RED, RED]),
  ],
)
def test_colours(image, form, options, expected):
  decoded = decode(image, form, **options)
  assert (decoded.mode, decoded.size) == ("RGB", (2, 1))
  close(decoded, [expected], atol=6 if image.mode == "CMYK" else 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotated_pictures_are_upright(orientation):
  corners = np.array([[0, 80, 160], [240, 120, 40]], np.uint8)
  stored = corners.repeat(16, axis=0).repeat(16, axis=1)
  upright = {
    1: stored,
    2: stored[:, ::-1],
    3: stored[::-1, ::-1],
    4: stored[::-1],
    5: stored.T,
    6: np.rot90(stored, -1),
    7: np.rot90(stored, 2).T,
    8: np.rot90(stored),
  }[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  for form in ("PNG", "JPEG", "WEBP", "TIFF"):
    decoded = decode(Image.fromarray(stored).convert("RGB"), form, exif=exif)
    assert decoded.size == upright.shape[::-1]
    close(np.asarray(decoded)[8::16, 8::16, 0], upright[8::16, 8::16], atol=8)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_unreadable_exif_does_not_break_a_picture(form):
  image = Image.new("RGB", (8, 8), RED)
  close(decode(image, form, exif=b"neither II nor MM"), image, atol=8)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation(form):
  frames = [Image.new("RGB", (8, 6), c) for c in ("red", "blue", "green")]
  data = encode(frames[0], form, save_all=True, append_images=frames[1:])
  assert Image.open(io.BytesIO(data)).n_frames == 3
  close(images.decode(data), frames[0], atol=4)


@pytest.mark.parametrize("form", FORMS)
def test_one_pixel_and_truncated_files(form):
  close(decode(Image.new("RGB", (1, 1), RED), form), [[RED]], atol=4)
  data = encode(random_image((400, 400)), form)
  for share in (0, 0.1, 0.5, 0.9):
    for shortest in (None, 20):
      with pytest.raises(images.BrokenImageError):
        images.decode(data[: int(len(data) * share)], shortest)


@pytest.mark.parametrize(
  "data",
  [
    b"\0",
    b"<html>404 Not Found</html>",
    png_of_size(15_000, 15_000),
    png_of_size(2**31 - 1, 2**31 - 1),
    png_of_size(200_000_001, 1),
    png_of_size(0, 5),
  ],
)
def test_what_is_no_picture_or_too_large_is_broken(data):
  with pytest.raises(images.BrokenImageError):
    images.decode(data)
  with pytest.raises(images.BrokenImageError):
    images.shrink(data, 0)


def smooth(size):
  """A picture whose shrunk versions can be compared."""
  x, y = np.meshgrid(*(np.linspace(0, 1, n) for n in size))
  values = np.stack([x, y, (x + y) / 2], -1) * 255
  return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(40, 127), (127, 100), (60, 64)])
def test_small_pictures_are_decoded_as_they_are(size, form):
  data = encode(random_image(size), form)
  decoded = images.decode(data, shortest=32)
  np.testing.assert_array_equal(decoded, images.decode(data))


@pytest.mark.parametrize(
  ("size", "shortest", "expected"),
  [
    ((128, 200), 32, (64, 100)),
    ((511, 512), 64, (256, 256)),
    ((512, 1030), 64, (128, 258)),
    ((1024, 1024), 64, (128, 128)),
    ((1040, 1040), 64, (130, 130)),
  ],
)
def test_large_jpegs_are_decoded_smaller(size, shortest, expected):
  data = encode(smooth(size), "JPEG", quality=95)
  decoded = images.decode(data, shortest=shortest)
  assert decoded.size == expected
  assert min(decoded.size) >= 2 * shortest
  small, whole = (
    images.vit_pixels(image, shortest, "clip")
    for image in (decoded, images.decode(data))
  )
  close(small, whole, atol=4)


def test_large_jpegs_are_upright():
  data = encode(smooth((800, 400)), "JPEG", exif=TURNED)
  decoded = images.decode(data, shortest=50)
  assert decoded.size == (100, 200)
  whole = images.decode(data).resize((100, 200), Image.Resampling.BOX)
  close(decoded, whole, atol=4)


def test_shrunk_pictures():
  data = encode(smooth((80, 40)), "JPEG", exif=TURNED)
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
HEADERS = [b"", b"GIF89a", b"BM", b"II*\0", b"\xff\xd8\xff", ORIGINALS[0][:33]]


@st.composite
def mutated(draw):
  data = bytearray(draw(st.sampled_from(ORIGINALS)))
  for _ in range(draw(st.integers(1, 8))):
    data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
  cut = draw(st.integers(0, len(data)))
  return bytes(data[:cut] if draw(st.booleans()) else data)


noise = st.builds(bytes.__add__, st.sampled_from(HEADERS), st.binary())


@settings(deadline=None)
@given(st.one_of(mutated(), mutated(), noise), st.sampled_from([None, 2]))
def test_any_bytes_are_decoded_or_broken(data, shortest):
  try:
    image = images.decode(data, shortest)
  except images.BrokenImageError:
    return
  assert image.mode == "RGB"
  assert np.asarray(image).shape == (image.height, image.width, 3)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_square(size):
  image = random_image(size)
  for style in ("clip", "google"):
    pixels = images.vit_pixels(image, 16, style)
    assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
  for rng in (None, np.random.default_rng(0), np.random.default_rng(1)):
    pixels = images.scene_pixels(image, 14, rng)
    assert (pixels.shape, pixels.dtype) == ((14, 14, 3), np.uint8)


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


def test_a_picture_of_the_right_size_is_not_resampled():
  image = random_image((16, 16))
  for style in ("clip", "google"):
    np.testing.assert_array_equal(images.vit_pixels(image, 16, style), image)
  for size, left in (((16, 16), 1), ((22, 16), 4)):
    whole = np.asarray(random_image(size))[1:15, left : left + 14]
    pixels = images.scene_pixels(random_image(size), 14)
    np.testing.assert_array_equal(pixels, whole)


def test_scene_pixels_draw_every_crop_and_flip():
  image = random_image((17, 16))
  whole = np.asarray(image)
  crops = {
    whole[top : top + 14, left : left + 14][:, ::step].tobytes()
    for top in range(3)
    for left in range(4)
    for step in (1, -1)
  }

  def draw(seed):
    rng = np.random.default_rng(seed)
    return images.scene_pixels(image, 14, rng).tobytes()

  drawn = [draw(seed) for seed in range(400)]
  assert set(drawn) == crops
  assert drawn[:20] == [draw(seed) for seed in range(20)]


@pytest.mark.parametrize("size", [(1, 8_000), (8_000, 1)])
def test_a_thin_picture_does_not_fill_the_memory(size):
  image = Image.new("RGB", size)
  resized = images._resize_shortest(image, 224, Image.Resampling.BICUBIC)
  assert sorted(resized.size) == [224, 20 * 224]
  assert images.vit_pixels(image, 224, "clip").shape == (224, 224, 3)
  assert images.scene_pixels(image, 224).shape == (224, 224, 3)

import io
import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mner_jax.data import images

RED, WHITE = (255, 0, 0), (255, 255, 255)
SIZES = [(64, 3), (3, 64), (33, 32), (1, 1), (2, 5), (16, 16), (40, 40)]


def encode(image, form, **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def decode(image, form, **options):
  return images.decode(encode(image, form, **options))


def random_image(size=(9, 7), mode="RGB", seed=0):
  channels = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}
  shape = (size[1], size[0], *channels[mode])
  values = np.random.default_rng(seed).integers(0, 256, shape)
  return Image.fromarray(values.astype(np.uint8), mode=mode)


def png_of_size(width, height):
  """A PNG of one bit per pixel that says how large it is, and no more."""

  def chunk(kind, data):
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

  header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
  return b"".join(
    [
      b"\x89PNG\r\n\x1a\n",
      chunk(b"IHDR", header),
      chunk(b"IDAT", zlib.compress(b"")),
      chunk(b"IEND", b""),
    ]
  )


def test_rgb_stays_as_it_is():
  image = random_image()
  decoded = decode(image, "PNG")
  assert (decoded.mode, decoded.size) == ("RGB", (9, 7))
  np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_white(mode):
  image = random_image(mode=mode)
  values = np.asarray(image).astype(float)
  colour, alpha = values[..., :-1], values[..., -1:] / 255
  expected = colour * alpha + 255 * (1 - alpha)
  expected = np.broadcast_to(expected, (7, 9, 3))
  np.testing.assert_allclose(decode(image, "PNG"), expected, atol=1.01)


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_transparent_colour_of_a_palette_is_white(form):
  image = Image.new("P", (4, 2), 0)
  image.putpalette([0, 0, 255, 255, 0, 0])
  image.putpixel((3, 1), 1)
  decoded = decode(image, form, transparency=0)
  assert decoded.getpixel((0, 0)) == WHITE
  assert decoded.getpixel((3, 1)) == RED


def test_palette_with_alpha():
  image = Image.new("P", (2, 1), 0)
  image.putpalette([0, 0, 0, 255, 0, 0])
  image.putpixel((1, 0), 1)
  decoded = decode(image, "PNG", transparency=bytes([128, 255]))
  assert decoded.getpixel((0, 0)) == pytest.approx((127,) * 3, abs=1)
  assert decoded.getpixel((1, 0)) == RED


def test_transparent_colour_of_an_rgb_picture_is_white():
  image = Image.new("RGB", (2, 1), (1, 2, 3))
  image.putpixel((1, 0), RED)
  decoded = decode(image, "PNG", transparency=(1, 2, 3))
  assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, RED]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_grey(form):
  image = Image.new("L", (8, 8), 128)
  np.testing.assert_allclose(
    decode(image, form), np.full((8, 8, 3), 128), atol=1
  )


def test_black_and_white():
  image = Image.new("1", (2, 1))
  image.putpixel((1, 0), 1)
  decoded = decode(image, "PNG")
  assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), WHITE]


def test_grey_of_16_bits():
  values = np.array([[0, 0x4000, 0x8000, 0xFFFF]], np.uint16)
  decoded = decode(Image.fromarray(values), "PNG")
  np.testing.assert_allclose(
    np.asarray(decoded)[0, :, 0], [0, 64, 128, 255], atol=1
  )


def test_cmyk_jpeg():
  # No cyan, all of magenta and yellow: red.
  decoded = decode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
  assert decoded.mode == "RGB"
  np.testing.assert_allclose(decoded, np.full((8, 8, 3), RED), atol=6)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotated_pictures_stand_upright(orientation, form):
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
  decoded = decode(Image.fromarray(stored).convert("RGB"), form, exif=exif)
  assert decoded.size == upright.shape[::-1]
  np.testing.assert_allclose(
    np.asarray(decoded)[8::16, 8::16, 0], upright[8::16, 8::16], atol=8
  )


@pytest.mark.parametrize(
  "form",
  [
    "JPEG",
    "PNG",
    "WEBP",
  ],
)
def test_unreadable_exif_does_not_break_a_picture(form):
  image = Image.new("RGB", (8, 8), RED)
  decoded = decode(image, form, exif=b"neither II nor MM")
  np.testing.assert_allclose(decoded, image, atol=8)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation(form):
  frames = [Image.new("RGB", (8, 6), c) for c in ("red", "blue", "green")]
  data = encode(frames[0], form, save_all=True, append_images=frames[1:])
  assert Image.open(io.BytesIO(data)).n_frames == 3
  decoded = images.decode(data)
  assert decoded.size == (8, 6)
  np.testing.assert_allclose(decoded, frames[0], atol=4)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_one_pixel(form):
  decoded = decode(Image.new("RGB", (1, 1), RED), form)
  np.testing.assert_allclose(decoded, [[RED]], atol=4)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_files_are_broken(form):
  data = encode(random_image((40, 40)), form)
  for share in (0, 0.1, 0.5, 0.9):
    with pytest.raises(images.BrokenImageError):
      images.decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(
  "data",
  [b"", b"\0", b"<html>404 Not Found</html>", "no picture".encode("utf-16")],
)
def test_what_is_no_picture_is_broken(data):
  with pytest.raises(images.BrokenImageError):
    images.decode(data)


@pytest.mark.parametrize(
  "size", [(15_000, 15_000), (2**31 - 1, 2**31 - 1), (200_000_001, 1), (0, 5)]
)
def test_pixel_bombs_are_broken(size):
  with pytest.raises(images.BrokenImageError):
    images.decode(png_of_size(*size))


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
    ((4096, 4096), 64, (512, 512)),
  ],
)
def test_large_jpegs_are_decoded_smaller(size, shortest, expected):
  data = encode(smooth(size), "JPEG", quality=95)
  decoded = images.decode(data, shortest=shortest)
  assert decoded.size == expected
  assert min(decoded.size) >= 2 * shortest
  np.testing.assert_allclose(
    images.vit_pixels(decoded, shortest, "clip").astype(int),
    images.vit_pixels(images.decode(data), shortest, "clip").astype(int),
    atol=4,
  )


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_large_jpegs_of_other_modes(mode):
  data = encode(Image.new(mode, (800, 600), 0), "JPEG")
  decoded = images.decode(data, shortest=64)
  assert (decoded.mode, decoded.size) == ("RGB", (200, 150))
  np.testing.assert_allclose(
    np.asarray(decoded)[0, 0], np.asarray(images.decode(data))[0, 0], atol=1
  )


def test_large_jpegs_stand_upright():
  exif = Image.Exif()
  exif[0x0112] = 6
  data = encode(smooth((800, 400)), "JPEG", exif=exif)
  decoded = images.decode(data, shortest=50)
  assert decoded.size == (100, 200)
  full = images.decode(data).resize((100, 200), Image.Resampling.BOX)
  np.testing.assert_allclose(
    np.asarray(decoded).astype(int), np.asarray(full).astype(int), atol=4
  )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_large_truncated_jpegs_are_broken(share):
  data = encode(random_image((400, 400)), "JPEG")
  with pytest.raises(images.BrokenImageError):
    images.decode(data[: int(len(data) * share)], shortest=20)


def test_shrunk_pictures():
  exif = Image.Exif()
  exif[0x0112] = 6
  data = encode(smooth((80, 40)), "JPEG", exif=exif)
  assert images.shrink(data, 0) == images.shrink(data, 40) == data
  stored = images.decode(images.shrink(data, 20))
  assert stored.size == (20, 40)  # upright, and not turned again
  full = images.decode(data).resize((20, 40), Image.Resampling.BOX)
  np.testing.assert_allclose(
    np.asarray(stored).astype(int), np.asarray(full).astype(int), atol=10
  )
  with pytest.raises(images.BrokenImageError):
    images.shrink(b"<html>", 0)


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


@settings(deadline=None, max_examples=300)
@given(st.one_of(mutated(), mutated(), noise), st.sampled_from([None, 2]))
def test_any_bytes_are_decoded_or_broken(data, shortest):
  try:
    image = images.decode(data, shortest)
  except images.BrokenImageError:
    return
  assert image.mode == "RGB"
  assert np.asarray(image).shape == (image.height, image.width, 3)


def test_originals_of_the_fuzz_are_pictures():
  for data in ORIGINALS:
    assert images.decode(data).mode == "RGB"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("style", ["clip", "google"])
def test_vit_pixels_are_square(size, style):
  pixels = images.vit_pixels(random_image(size), 16, style)
  assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_scene_pixels_are_square(size, seed):
  rng = None if seed is None else np.random.default_rng(seed)
  pixels = images.scene_pixels(random_image(size), 14, rng)
  assert (pixels.shape, pixels.dtype) == ((14, 14, 3), np.uint8)


def flag(upright):
  """Red, green and blue in equal parts, from left to right or from the top."""
  colours = np.eye(3, dtype=np.uint8)[:, None].repeat(100, axis=0) * 255
  stripes = colours.repeat(100, axis=1)
  return Image.fromarray(stripes if upright else stripes.transpose(1, 0, 2))


@pytest.mark.parametrize("upright", [True, False])
def test_clip_style_keeps_the_centre(upright):
  pixels = images.vit_pixels(flag(upright), 20, "clip")
  np.testing.assert_array_equal(pixels[2:-2, 2:-2], [[[0, 255, 0]] * 16] * 16)


@pytest.mark.parametrize("upright", [True, False])
def test_google_style_squeezes_all_in(upright):
  pixels = images.vit_pixels(flag(upright), 30, "google")
  line = pixels[5::10, 15] if upright else pixels[15, 5::10]
  np.testing.assert_array_equal(line, np.eye(3) * 255)


def test_a_picture_of_the_right_size_is_not_resampled():
  image = random_image((16, 16))
  for style in ("clip", "google"):
    np.testing.assert_array_equal(images.vit_pixels(image, 16, style), image)


def test_scene_pixels_without_rng_are_the_centre():
  image = random_image((16, 16))
  pixels = images.scene_pixels(image, 14)
  np.testing.assert_array_equal(pixels, np.asarray(image)[1:15, 1:15])
  pixels = images.scene_pixels(random_image((22, 16)), 14)
  whole = np.asarray(random_image((22, 16)))
  np.testing.assert_array_equal(pixels, whole[1:15, 4:18])


def test_scene_pixels_follow_the_rng():
  image = random_image((50, 30))
  for seed in range(10):
    first, again = (
      images.scene_pixels(image, 14, np.random.default_rng(seed))
      for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)


def test_scene_pixels_draw_every_crop_and_flip():
  image = random_image((17, 16))
  whole = np.asarray(image)
  crops = {
    whole[top : top + 14, left : left + 14][:, ::step].tobytes()
    for top in range(3)
    for left in range(4)
    for step in (1, -1)
  }
  rng = np.random.default_rng(0)
  drawn = {images.scene_pixels(image, 14, rng).tobytes() for _ in range(400)}
  assert drawn == crops


THIN_PICTURE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from PIL import Image
from mner_jax.data import images
for size in ((1, 8_000), (8_000, 1)):
  image = Image.new("RGB", size)
  pixels = eval(sys.argv[1])
  assert pixels.shape == (224, 224, 3)
"""


@pytest.mark.parametrize(
  "call",
  ["images.vit_pixels(image, 224, 'clip')", "images.scene_pixels(image, 224)"],
)
def test_a_thin_picture_does_not_fill_the_memory(call):
  subprocess.run(
    [sys.executable, "-c", THIN_PICTURE, call],
    cwd=pathlib.Path(images.__file__).parents[2],
    env={"OPENBLAS_NUM_THREADS": "1"},
    check=True,
    capture_output=True,
  )

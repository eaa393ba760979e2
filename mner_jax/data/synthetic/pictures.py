"""Draws the pictures of the synthetic corpus: people, places, signs, things.

`drawings.json` holds colours, letters and drawings. A drawing is a list of
parts, one a line: an ink, a shape and that shape's numbers (see Pen). A letter
is one stroke over a 3 x 3 grid, its nine points numbered by row: without a
font file, the bytes do not depend on the FreeType Pillow was built with.
"""

import cmath
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from mner_jax.data.synthetic.lexicon import load, pick

SUPERSAMPLE = 2
CIRCLE = [cmath.exp(1j * math.tau * k / 24) for k in range(24)]
DATA = load("drawings.json")
INKS = DATA["inks"]


class Pen(NamedTuple):
  """Draws in a frame with its own origin, scale and tilt."""

  canvas: ImageDraw.ImageDraw
  back: list[float]  # the background's mean colour
  origin: complex
  turn: complex

  def at(self, x, y, scale=1.0, tilt=0.0):
    """Returns a pen whose frame sits at (x, y) of this one."""
    origin = self.origin + self.turn * complex(x, y)
    turn = self.turn * scale * cmath.exp(1j * tilt)
    return self._replace(origin=origin, turn=turn)

  def draw(self, name, **inks):
    """Draws one of the drawings; `inks` are the colours it leaves open."""
    for ink, shape, *numbers in DATA["drawings"][name]:
      getattr(self, shape)((INKS | inks)[ink], *numbers)

  def poly(self, fill, *numbers):
    """Fills the polygon x y x y ...."""
    self.canvas.polygon(self._map(numbers), fill=tuple(fill))

  def line(self, fill, width, *numbers):
    """Draws the bent line x y x y ...."""
    fill, width = tuple(fill), max(1, round(width * abs(self.turn)))
    self.canvas.line(self._map(numbers), fill=fill, width=width, joint="curve")

  def box(self, fill, x0, y0, x1, y1):
    self.poly(fill, x0, y0, x1, y0, x1, y1, x0, y1)

  def oval(self, fill, x, y, rx, ry, start=0, stop=23):
    """Fills an ellipse, or its segment, clockwise in 24ths from the right."""
    rim = CIRCLE[start : stop + 1]
    points = [(x + rx * z.real, y + ry * z.imag) for z in rim]
    self.poly(fill, *(number for point in points for number in point))

  def word(self, rng, fill, y, width, height, count):
    """Writes random letters, centred on (0, y)."""
    pitch = width / count
    for k in range(count):
      left, stroke = (k + 0.14) * pitch - width / 2, []
      for point in pick(rng, DATA["letters"]):
        row, column = divmod(int(point), 3)
        stroke += left + 0.36 * pitch * column, y + height * (row - 1) / 2
      self.line(fill, height * 0.22, *stroke)

  def _map(self, numbers):
    spots = zip(numbers[::2], numbers[1::2], strict=True)
    mapped = [self.origin + self.turn * complex(x, y) for x, y in spots]
    return [(z.real, z.imag) for z in mapped]


def draw(scene: str, rng: np.random.Generator, size: int = 64) -> Image.Image:
  """Draws a picture of the scene: PER, LOC, ORG or MISC."""
  # A sky of two given colours, or of any two.
  start, end = pick(rng, DATA["skies"]) or (_colour(rng), _colour(rng))
  corners = np.array(start) + np.subtract(end, start) * rng.random((2, 2, 1))
  side = size * SUPERSAMPLE
  image = Image.fromarray(corners.astype(np.uint8)).resize((side, side))
  canvas, back = ImageDraw.Draw(image, "RGBA"), corners.mean((0, 1)).tolist()
  pen = Pen(canvas, back, complex(side, side) / 2, complex(side) / 2)
  _clutter(pen, rng, rng.integers(3, 9), 0.08)
  SCENES[scene](pen, rng)
  _clutter(pen, rng, rng.integers(0, 4), 0.05)
  # One random light over all, so that a mean colour says little of the type.
  light = rng.uniform((0.8, 0.8, 0.8, -20), (1.15, 1.15, 1.15, 20))
  noise = 5 * rng.standard_normal((size, size, 3), dtype=np.float32)
  pixels = image.reduce(SUPERSAMPLE) * light[:3] + light[3] + noise
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _colour(rng, *others):
  """Returns a random colour, one that stands out from the others if any."""

  def distance(colour):
    return min((math.dist(colour, other) for other in others), default=0)

  return max(rng.integers(16, 256, (6, 3)).tolist(), key=distance)


def _clutter(pen, rng, count, reach):
  """Strews small shapes that mean nothing."""
  for _ in range(count):
    bit = pen.at(*rng.uniform((-1, -1, reach / 3, 0), (1, 1, reach, 6.3)))
    bit.draw(pick(rng, ("dot", "bar", "triangle")), any=_colour(rng))


def _people(pen, rng):
  """Draws one to three people, head and shoulders."""
  count = pick(rng, (1, 1, 1, 2, 3))
  for k in range(count):
    low, high = (-0.25, -0.15, 0.68, -0.12), (0.25, 0.2, 0.95, 0.12)
    x, y, scale, tilt = rng.uniform(low, high)
    one = pen.at((2 * k + 1 + x) / count - 1, y, scale / count**0.35, tilt)
    skin = pick(rng, DATA["skins"])
    style = pick(rng, ("long hair", "curly hair", "short hair", "bald"))
    shirt = _colour(rng, pen.back, skin)
    hair = pick(rng, (*DATA["hairs"], INKS["steel"], _colour(rng)))
    inks = {"skin": skin, "shirt": shirt, "hair": hair}
    one.draw(style, **inks)
    one.draw("bust", **inks)
    for extra in ("collar", "beard", "glasses", "hat", *["fringe"] * 3):
      if rng.random() < 0.25:
        one.draw(extra, **inks)
    one.draw("face")
    one.oval(INKS["lips"], 0, 0.28, 0.2, rng.uniform(0.04, 0.16), 0, 12)


def _place(pen, rng):
  """Draws a sun or moon and clouds, then a city or open country."""
  for name in ("sun", "cloud", "cloud"):
    one = pen.at(*rng.uniform((-0.8, -1.3), (0.8, -0.4)), 0.2)
    one.draw(name, sun=pick(rng, (INKS["gold"], INKS["white"], _colour(rng))))
  pick(rng, (_city, _country))(pen, rng)


def _city(pen, rng):
  x, walls = -1.1, [_colour(rng, pen.back) for _ in range(3)]
  while x < 1:
    width, top, rise = rng.uniform((0.25, -0.6, -0.2), (0.5, 0.2, 0)).tolist()
    wall = pick(rng, walls)
    light = _colour(rng, wall)
    right, ridge = x + width, (x + width / 2, top + rise)
    pen.poly(wall, x, 1, x, top, *ridge, right, top, right, 1)
    for y in np.arange(top + 0.08, 1, 0.17).tolist():
      for left in np.arange(x + 0.05, right - 0.09, 0.12).tolist():
        pen.box(light, left, y, left + 0.06, y + 0.09)
    x += width + 0.03


def _country(pen, rng):
  """Draws mountains behind a sea, or behind fields with a river and trees."""
  horizon, rock = rng.uniform(0, 0.4), _colour(rng, pen.back)
  ground = _colour(rng, rock)
  mark = _colour(rng, ground)
  for _ in range(rng.integers(2, 5)):
    peak = pen.at(rng.uniform(-1, 1), horizon, rng.uniform(0.5, 0.9))
    peak.draw("peak", rock=rock)
  pen.box(ground, -1, horizon, 1, 1)
  growth = pick(rng, ("tree", "wave"))
  if growth == "tree":
    pen.poly(mark, 0, horizon, 0.06, horizon, 0.3, 0.6, 0.7, 1, -0.3, 1)
  for _ in range(rng.integers(3, 8)):
    pen.at(*rng.uniform((-1, horizon), (1, 0.9)), 0.25).draw(growth, mark=mark)


def _sign(pen, rng):
  """Draws a badge, a lettered board, a shop front or a flag."""
  plate = _colour(rng, pen.back)
  trim = _colour(rng, plate)
  inks = {"plate": plate, "trim": trim, "wall": _colour(rng, plate)}
  kind = pick(rng, ("board", "shop", "flag", "badge"))
  shape = pick(rng, ("disc", "shield", "square", "diamond"))
  emblems = ("moon", "star", "cross", "chevron")
  pen = pen.at(*rng.uniform((-0.1, -0.1, 0.7, -0.1), (0.1, 0.1, 0.95, 0.1)))
  if kind == "badge":
    pen.draw(shape, plate=trim)
    pen.at(0, 0, 0.86).draw(shape, plate=plate)
    pen.at(0, -0.2, 0.65).draw(pick(rng, emblems), **inks)
    pen.word(rng, trim, 0.36, 0.9, 0.3, pick(rng, (2, 3)))
    return
  pen.draw(kind, **inks)
  if kind == "flag":
    pen.draw(pick(rng, ("horizontal stripes", "vertical stripes")), **inks)
    pen.at(0.05, -0.25, 0.5).draw(pick(rng, emblems), **inks)
  else:
    y, height = (0, 0.5) if kind == "board" else (-0.52, 0.32)
    pen.word(rng, trim, y, 1.7, height, pick(rng, (3, 4, 5)))


def _thing(pen, rng):
  main = _colour(rng, pen.back)
  pen = pen.at(*rng.uniform((-0.1, -0.1, 0.65, -0.3), (0.1, 0.1, 0.95, 0.3)))
  thing = pick(rng, ("cup", "phone", "book", "ball", "bottle", "guitar", "car"))
  pen.draw(thing, main=main, trim=_colour(rng, main))


SCENES = {"PER": _people, "LOC": _place, "ORG": _sign, "MISC": _thing}

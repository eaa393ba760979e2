"""Draws the pictures of the synthetic corpus: people, places, signs, things."""

import cmath
import math

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLE = 2
CIRCLE = [cmath.exp(1j * math.tau * k / 24) for k in range(24)]
INKS = {
  "white": (244, 242, 236),
  "dark": (28, 26, 30),
  "steel": (140, 138, 144),
  "lips": (168, 44, 52),
  "shade": (0, 0, 0, 64),
}
SKINS = (250, 220, 196), (226, 178, 142), (170, 112, 78), (104, 66, 44)
HAIRS = (24, 20, 20), (84, 50, 30), (206, 164, 92), (164, 70, 34)
SKIES = (((110, 170, 240), (225, 235, 245)), ((10, 14, 44), (60, 50, 100)))
# A letter is one stroke over a 3 x 3 grid, its nine points numbered by row:
# no font file, so the same bytes whatever FreeType Pillow was built with.
LETTERS = (
  "068 6082 60428 072 06482 0268 0682 2068 203586 02860 2034368 206854"
  " 60253 602853 0217 063528 203436 602538"
).split()

# Drawings are parts, each an ink, a shape and that shape's numbers (see Pen).
STYLES = (  # Long, curly, short and no hair.
  "hair oval 0 -.1 .6 .62; hair box -.6 -.1 .6 .7",
  "hair oval -.4 -.1 .28 .4; hair oval .4 -.1 .28 .4; hair oval 0 -.5 .4 .25",
  "hair oval 0 -.15 .5 .5",
  "hair oval 0 0 .5 .2",
)
BUST = """shirt oval 0 1.2 .9 .52; shirt box -.9 1.2 .9 4; skin box -.17 .3 .17
  .8; skin oval 0 0 .53 .14; shade box -.17 .3 .17 .8; skin oval 0 0 .45 .56"""
FRINGE = "hair poly -.48 -.1 -.4 -.45 0 -.62 .4 -.45 .48 -.1 .2 -.36 -.3 -.36"
EXTRAS = (  # A collar, a beard, glasses and a hat.
  "white poly -.25 .7 .25 .7 0 1.1",
  "hair oval 0 .1 .44 .48 0 12",
  "dark line .05 -.45 -.1 .45 -.1; dark oval -.2 -.08 .17 .16; dark oval .2 "
  "-.08 .17 .16",
  "shirt box -.42 -.9 .42 -.34; dark box -.7 -.42 .7 -.32",
)
FACE = """white oval -.19 -.08 .12 .09; white oval .19 -.08 .12 .09; dark oval
  -.19 -.08 .06 .07; dark oval .19 -.08 .06 .07; shade line .06 0 0 0 .15"""
CLOUD = "white oval 0 0 1 .4; white oval -.3 -.3 .5 .4; white oval .5 0 .8 .3"
PEAK = """rock poly -.9 0 0 -1 .9 0; shade poly 0 -1 .9 0 .2 0; white poly 0 -1
  .27 -.7 .1 -.75 0 -.62 -.12 -.75 -.27 -.7"""
TREE = "dark box -.1 0 .1 .6; mark poly -.5 .2 0 -1 .5 .2"
WAVE = "mark line .2 -1 0 -.5 -.2 0 0 .5 -.2 1 0"
PLATES = (
  "oval 0 0 .95 .95",
  "poly -.8 -.9 .8 -.9 .75 .2 0 1 -.75 .2",
  "box -.85 -.85 .85 .85",
  "poly 0 -1.1 1.1 0 0 1.1 -1.1 0",
)
EMBLEMS = (  # A moon, a star, a cross and a chevron.
  "trim oval 0 0 .5 .5; plate oval .2 -.1 .42 .42",
  "trim poly 0 -.6 .17 -.2 .6 -.2 .27 .07 .4 .5 0 .25 -.4 .5 -.27 .07 -.6 -.2 "
  "-.17 -.2",
  "trim box -.14 -.55 .14 .55; trim box -.55 -.14 .55 .14",
  "trim line .2 -.5 0 0 -.4 .5 0; trim line .2 -.5 .4 0 0 .5 .4",
)
BOARD = """steel box -.7 0 -.58 3; steel box .58 0 .7 3; trim box -1 -.5 1 .5;
  plate box -.94 -.44 .94 .44"""
SHOP = """wall box -1 -.9 1 1; plate box -1 -.8 1 -.25; steel box -.85 .2 .3 .8;
  dark box .45 .2 .85 1; white box -1 -.2 1 .12; plate box -.9 -.2 -.6 .12;
  plate box -.4 -.2 -.1 .12; plate box .1 -.2 .4 .12; plate box .6 -.2 .9 .12"""
FLAG = "steel line .1 -.9 -.95 -.9 3; plate box -.85 -.9 .95 .4; "
FLAGS = (
  FLAG + "wall box -.85 -.9 .95 -.47; trim box -.85 -.03 .95 .4",
  FLAG + "wall box -.85 -.9 -.25 .4; trim box .35 -.9 .95 .4",
)
THINGS = (  # A cup, a phone, a book, a ball, a bottle, a guitar and a car.
  """trim line .12 -.4 -.6 -.8 -.5 -.6 0 -.3 .1; trim line .12 .4 -.6 .8 -.5 .6
  0 .3 .1; main oval 0 -.7 .55 .95 0 12; trim oval 0 -.7 .55 .12;
  main box -.1 .2 .1 .6; dark box -.4 .6 .4 .9""",
  """dark box -.52 -.95 .52 .95; main box -.42 -.78 .42 .65; trim box -.3 -.6 .3
  -.2; white box -.3 0 .3 .1; white box -.3 .3 .3 .4; white oval 0 .8 .1 .1""",
  """main poly -1 -.6 0 -.4 1 -.6 1 .65 0 .85 -1 .65; white poly -.9 -.68 0 -.5
  .9 -.68 .9 .5 0 .68 -.9 .5; dark line .06 0 -.5 0 .7; trim box .2 -.2 .7 .35;
  steel line .06 -.75 -.4 -.15 -.28; steel line .06 -.75 -.1 -.15 .02""",
  """main oval 0 0 .9 .9; trim line .07 -.9 0 .9 0; trim line .07 0 -.9 0 .9;
  trim line .07 -.6 -.65 -.4 0 -.6 .65; trim line .07 .6 -.65 .4 0 .6 .65""",
  """dark box -.16 -.95 .16 -.7; main poly -.13 -.75 .13 -.75 .13 -.35 .34 -.05
  .34 .95 -.34 .95 -.34 -.05 -.13 -.35; trim box -.34 .2 .34 .65""",
  """main oval 0 .5 .6 .46; main oval 0 0 .43 .36; dark oval 0 .2 .18 .18; trim
  box -.1 -.9 .1 .1; dark box -.18 -1.1 .18 -.8; dark box -.25 .6 .25 .7""",
  """main poly -.65 0 -.35 -.5 .35 -.5 .65 0; main box -1 -.02 1 .4; white poly
  -.47 0 -.27 -.4 .27 -.4 .47 0; dark oval -.55 .42 .28 .28; dark oval .55 .42
  .28 .28; steel oval -.55 .42 .11 .11; steel oval .55 .42 .11 .11""",
)


class Pen:
  """Draws in a frame with its own origin, scale and tilt."""

  def __init__(self, canvas, back, origin, turn):
    self.canvas, self.back, self.origin, self.turn = canvas, back, origin, turn

  def at(self, x, y, scale=1.0, tilt=0.0):
    """Returns a pen whose frame sits at (x, y) of this one."""
    return Pen(
      self.canvas,
      self.back,
      self.origin + self.turn * complex(x, y),
      self.turn * scale * cmath.exp(1j * tilt),
    )

  def parts(self, text, **inks):
    """Draws "ink shape numbers; ink shape numbers; ..."."""
    for part in text.split(";"):
      ink, shape, *numbers = part.split()
      getattr(self, shape)(inks.get(ink) or INKS[ink], *map(float, numbers))

  def poly(self, fill, *numbers):
    """Fills the polygon x y x y ...."""
    self.canvas.polygon(self._map(numbers), fill=fill)

  def line(self, fill, width, *numbers):
    """Draws the bent line x y x y ...."""
    pixels = max(1, round(width * abs(self.turn)))
    self.canvas.line(self._map(numbers), fill=fill, width=pixels, joint="curve")

  def box(self, fill, x0, y0, x1, y1):
    self.poly(fill, x0, y0, x1, y0, x1, y1, x0, y1)

  def oval(self, fill, x, y, rx, ry, start=0, stop=23):
    """Fills an ellipse, or its segment, clockwise in 24ths from the right."""
    rim = CIRCLE[int(start) : int(stop) + 1]
    self.poly(
      fill, *(n for z in rim for n in (x + rx * z.real, y + ry * z.imag))
    )

  def word(self, rng, fill, y, width, height, count):
    """Writes random letters, centred on (0, y)."""
    pitch = width / count
    for k in range(count):
      left = (k + 0.14) * pitch - width / 2
      self.line(
        fill,
        height * 0.22,
        *(
          number
          for point in _pick(rng, LETTERS)
          for number in (
            left + 0.36 * pitch * (int(point) % 3),
            y + height * (int(point) // 3 - 1) / 2,
          )
        ),
      )

  def _map(self, numbers):
    spots = zip(numbers[::2], numbers[1::2], strict=True)
    mapped = [self.origin + self.turn * complex(x, y) for x, y in spots]
    return [(z.real, z.imag) for z in mapped]


def draw(scene: str, rng: np.random.Generator, size: int = 64) -> Image.Image:
  """Draws a picture of the scene: PER, LOC, ORG or MISC."""
  if scene not in SCENES:
    raise ValueError(f"unknown scene {scene!r}: not one of {sorted(SCENES)}")
  ends = _pick(rng, (*SKIES, None, None)) or (_colour(rng), _colour(rng))
  corners = np.array(ends[0]) + np.subtract(*ends[::-1]) * rng.random((2, 2, 1))
  side = size * SUPERSAMPLE
  image = Image.fromarray(corners.astype(np.uint8)).resize((side, side))
  pen = Pen(
    ImageDraw.Draw(image, "RGBA"),
    corners.mean((0, 1)).tolist(),
    complex(side, side) / 2,
    complex(side) / 2,
  )
  _clutter(pen, rng, rng.integers(3, 9), 0.08)
  SCENES[scene](pen, rng)
  _clutter(pen, rng, rng.integers(0, 4), 0.05)
  # One random light over all, so that a mean colour says little of the type.
  light = rng.uniform((0.8, 0.8, 0.8, -20), (1.15, 1.15, 1.15, 20))
  noise = 5 * rng.standard_normal((size, size, 3), dtype=np.float32)
  pixels = image.reduce(SUPERSAMPLE) * light[:3] + light[3] + noise
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _pick(rng, options):
  return options[int(rng.integers(len(options)))]


def _colour(rng, *others):
  """Returns a random colour, one that stands out from the others if any."""
  colours = map(tuple, rng.integers(16, 256, (6, 3)).tolist())
  return max(
    colours,
    key=lambda colour: min(
      (math.dist(colour, other) for other in others), default=0
    ),
  )


def _clutter(pen, rng, count, reach):
  """Strews small shapes that mean nothing."""
  for _ in range(count):
    bit = pen.at(*rng.uniform((-1, -1, reach / 3, 0), (1, 1, reach, 6.3)))
    bit.parts(
      _pick(
        rng,
        ("any oval 0 0 1 1", "any box -2 -.3 2 .3", "any poly -1 1 1 1 0 -1"),
      ),
      any=_colour(rng),
    )


def _people(pen, rng):
  """Draws one to three people, head and shoulders."""
  count = _pick(rng, (1, 1, 1, 2, 3))
  for k in range(count):
    x, y, scale, tilt = rng.uniform(
      (-0.25, -0.15, 0.68, -0.12), (0.25, 0.2, 0.95, 0.12)
    )
    one = pen.at((2 * k + 1 + x) / count - 1, y, scale / count**0.35, tilt)
    skin, style = _pick(rng, SKINS), _pick(rng, STYLES)
    inks = {
      "skin": skin,
      "shirt": _colour(rng, pen.back, skin),
      "hair": _pick(rng, (*HAIRS, INKS["steel"], _colour(rng))),
    }
    one.parts(f"{style}; {BUST}", **inks)
    for extra in (*EXTRAS, FRINGE, FRINGE, FRINGE):
      if rng.random() < 0.25:
        one.parts(extra, **inks)
    one.parts(FACE, **inks)
    one.oval(INKS["lips"], 0, 0.28, 0.2, rng.uniform(0.04, 0.16), 0, 12)


def _place(pen, rng):
  """Draws a sun or moon and clouds, then a city or open country."""
  for shape in ("sun oval 0 0 .8 .8", CLOUD, CLOUD):
    pen.at(*rng.uniform((-0.8, -1.3), (0.8, -0.4)), 0.2).parts(
      shape, sun=_pick(rng, ((255, 226, 120), INKS["white"], _colour(rng)))
    )
  _pick(rng, (_city, _country))(pen, rng)


def _city(pen, rng):
  x, walls = -1.1, [_colour(rng, pen.back) for _ in range(3)]
  while x < 1:
    width, top, roof = rng.uniform((0.25, -0.6, -0.2), (0.5, 0.2, 0)).tolist()
    wall = _pick(rng, walls)
    light = _colour(rng, wall)
    pen.poly(
      wall,
      x,
      1,
      x,
      top,
      x + width / 2,
      top + roof,
      x + width,
      top,
      x + width,
      1,
    )
    for y in np.arange(top + 0.08, 1, 0.17).tolist():
      for left in np.arange(x + 0.05, x + width - 0.09, 0.12).tolist():
        pen.box(light, left, y, left + 0.06, y + 0.09)
    x += width + 0.03


def _country(pen, rng):
  """Draws mountains behind a sea, or behind fields with a river and trees."""
  horizon, rock = rng.uniform(0, 0.4), _colour(rng, pen.back)
  ground = _colour(rng, rock)
  mark = _colour(rng, ground)
  for _ in range(rng.integers(2, 5)):
    peak = pen.at(rng.uniform(-1, 1), horizon, rng.uniform(0.5, 0.9))
    peak.parts(PEAK, rock=rock)
  pen.box(ground, -1, horizon, 1, 1)
  growth = _pick(rng, (TREE, WAVE))
  if growth == TREE:
    pen.poly(mark, 0, horizon, 0.06, horizon, 0.3, 0.6, 0.7, 1, -0.3, 1)
  for _ in range(rng.integers(3, 8)):
    pen.at(*rng.uniform((-1, horizon), (1, 0.9)), 0.25).parts(growth, mark=mark)


def _sign(pen, rng):
  """Draws a badge, a lettered board, a shop front or a flag."""
  plate = _colour(rng, pen.back)
  trim = _colour(rng, plate)
  inks = {"plate": plate, "trim": trim, "wall": _colour(rng, plate)}
  kind, shape = _pick(rng, (BOARD, SHOP, FLAGS, PLATES)), _pick(rng, PLATES)
  pen = pen.at(*rng.uniform((-0.1, -0.1, 0.7, -0.1), (0.1, 0.1, 0.95, 0.1)))
  if kind is FLAGS:
    pen.parts(_pick(rng, FLAGS), **inks)
    pen.at(0.05, -0.25, 0.5).parts(_pick(rng, EMBLEMS), **inks)
  elif kind is PLATES:
    pen.parts(f"trim {shape}", **inks)
    pen.at(0, 0, 0.86).parts(f"plate {shape}", **inks)
    pen.at(0, -0.2, 0.65).parts(_pick(rng, EMBLEMS), **inks)
    pen.word(rng, trim, 0.36, 0.9, 0.3, _pick(rng, (2, 3)))
  else:
    pen.parts(kind, **inks)
    y, height = (0, 0.5) if kind is BOARD else (-0.52, 0.32)
    pen.word(rng, trim, y, 1.7, height, _pick(rng, (3, 4, 5)))


def _thing(pen, rng):
  main = _colour(rng, pen.back)
  pen = pen.at(*rng.uniform((-0.1, -0.1, 0.65, -0.3), (0.1, 0.1, 0.95, 0.3)))
  pen.parts(_pick(rng, THINGS), main=main, trim=_colour(rng, main))


SCENES = {"PER": _people, "LOC": _place, "ORG": _sign, "MISC": _thing}

"""The names and templates of the synthetic corpus, and how to fill them in.

`names.json` lists names by type and kind, a concept a line: a form for each of
LANGUAGES, or one for all. Where the language wants an article, it precedes the
name and a bar, as in "la|France"; it is not part of the entity. Of the kinds,
LAST is for a name after a title, which has to fit any first name, LAND for
countries, regions and rivers, BODY for institutions and parties, WORK for
films, books and the like, and THING for products.

`shared_names.json` lists names spelled the same for several types, with a kind
for each type: those of all four languages, then those of one. In each
language, every pair of types shares five names and every triple four, so no
type is likelier than another.

`templates.json` lists templates, tokenised by spaces, under the type that
their words give away, and under ANY those whose words say nothing about it.
{PER}, {CITY}, ... ask for a name of that kind, {ANY} for a shared one, {day},
{number}, ... for a filler, listed below the templates. As a name may bring its
article, no French or Spanish template puts a word before it that would
contract ("de", "à", "a"), no German one a dative.

Names and templates under "held_out" never occur in train. The words that tell
the type of a held-out template also occur in templates that are not.
"""

import json
from importlib import resources


def load(name):
  """The content of a JSON file of this package."""
  return json.loads((resources.files(__package__) / name).read_bytes())


LANGUAGES = ("en", "fr", "de", "es")
_NAMES, _TEMPLATES = load("names.json"), load("templates.json")
_SHARED = load("shared_names.json")
TYPES = tuple(_NAMES)
TYPE_OF = {k: t for t, kinds in _NAMES.items() for k in kinds} | {"PER": "PER"}
PARTS = ("train", "held_out")  # the index is `held_out`


def pick(rng, items):
  """One of the items, drawn uniformly."""
  return items[int(rng.integers(len(items)))]


def names(kind, language, held_out=False):
  """The names of one kind ("FIRST" and "LAST" for PER), held out or not."""
  concepts = _NAMES[TYPE_OF[kind]][kind][PARTS[held_out]]
  column = LANGUAGES.index(language)
  return [x if isinstance(x, str) else x[column] for x in concepts]


def shared(language):
  """{name: kinds} of the names of several types, with a kind for each type."""
  return _SHARED["all"] | _SHARED[language]


def templates(language, kind, held_out=False):
  """The templates of one of TYPES or of "ANY", held out or not."""
  return _TEMPLATES[language][kind][PARTS[held_out]]


def draw_name(rng, kind, language, held_out):
  """A name of one kind that has no other type, held out or not."""
  shapes = ("FIRST LAST", "FIRST LAST", "FIRST LAST", "LAST", "FIRST")
  parts = pick(rng, shapes).split() if kind == "PER" else [kind]
  return " ".join(pick(rng, names(part, language, held_out)) for part in parts)


def fill(template, language, rng, choose):
  """Fills a template in.

  Args:
    template: its text, see above.
    language: one of LANGUAGES.
    rng: draws the fillers.
    choose: a function kind -> (name, type), called for each name.

  Returns:
    The words and their tags, tuples of strings.
  """
  words, tags = [], []
  for token in template.split():
    slot, outside, name = token[1:-1], [token], []
    if token.startswith("{") and slot.islower():
      outside = pick(rng, _TEMPLATES[language][slot]).split()
    elif token.startswith("{"):
      text, entity_type = choose(slot)
      article, _, name = text.rpartition("|")
      outside, name = article.split(), name.split()
      vowel = language == "fr" and text[0] in "AEIOUÀÂÉÈÊÎÔi"
      if vowel and words[-1:] == ["de"]:
        words[-1] = "d'"
    words += outside + name
    tags += ["O"] * len(outside)
    tags += [f"{'I' if i else 'B'}-{entity_type}" for i in range(len(name))]
  if tags[0] == "O":
    words[0] = words[0][0].upper() + words[0][1:]
  return tuple(words), tuple(tags)

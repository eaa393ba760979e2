import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax.config import UserError
from mner_jax.data import schemes


def sequences(prefixes, types=("A", "B", "A-B")):
  tags = ["O", *(f"{p}-{t}" for p in prefixes for t in types)]
  return st.lists(st.sampled_from(tags), max_size=12)


def entities(tags):
  return get_entities(list(tags))


@given(sequences("BI"))
def test_repair(raw):
  repaired, count = schemes.repair(raw)
  assert schemes.repair(repaired) == (repaired, 0)
  changed = [(a, b) for a, b in zip(raw, repaired, strict=True) if a != b]
  assert all((a[0], b) == ("I", f"B{a[1:]}") for a, b in changed)
  assert count == len(changed)
  # An I- goes on with the tag before it.
  pairs = zip(("O", *repaired), repaired, strict=False)
  assert all(a[1:] == b[1:] for a, b in pairs if b[0] == "I")


@pytest.mark.parametrize("scheme", schemes.SCHEMES)
@given(st.data())
def test_conversion_keeps_the_entities(scheme, data):
  tags = data.draw(sequences(schemes.SCHEMES[scheme]))
  converted = schemes.to_iob2(tags, scheme)
  assert entities(converted) == entities(tags)
  assert {tag[0] for tag in converted} <= set("OBI")
  assert scheme != "iob2" or converted == tuple(tags)
  assert scheme != "iob1" or converted == schemes.repair(tags)[0]


TAGS = [  # scheme, its tags, others
  ("iob2", "O B-A I-A-B", "S-A,E-A,B-,A,o,,B-A B,BA"),
  ("iob1", "O B-A I-A", "S-A,L-A"),
  ("bioes", "O I-A E-A S-A", "U-A,E,S-"),
]


@pytest.mark.parametrize(("scheme", "good", "bad"), TAGS)
def test_unknown_tags_name_the_scheme(scheme, good, bad):
  for tag in good.split():
    schemes.check(tag, scheme, "f:1")
  for tag in bad.split(","):
    with pytest.raises(UserError, match=f"^f:1: .*{scheme}.*data.scheme"):
      schemes.check(tag, scheme, "f:1")


@given(
  sequences("BI", "ABCD"),
  st.dictionaries(st.sampled_from("ABC"), st.sampled_from("ADO")),
)
def test_renaming_keeps_the_borders_of_entities(tags, names):
  renamed = schemes.rename(tags, names)
  expected = [(names.get(t, t), *span) for t, *span in entities(tags)]
  assert entities(renamed) == [e for e in expected if e[0] != "O"]
  assert schemes.repair(renamed)[1] <= schemes.repair(tags)[1]


def test_label_map():
  assert schemes.label_map((), ["A", "C"]) == {}
  assert schemes.label_map(("A=B", "C=O"), ["A", "C"]) == {"A": "B", "C": "O"}
  for pairs in (("A",), ("=B",), ("A=",), ("A=B", "A=C"), ("A= B",), ("B=C",)):
    with pytest.raises(UserError, match="data.label_map: '.*none of A, C$"):
      schemes.label_map(pairs, ["A", "C"])

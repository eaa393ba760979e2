import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from mner_jax.config import UserError
from mner_jax.data import schemes


def sequences(prefixes, types=("A", "B", "A-B")):
  tags = ["O", *(f"{p}-{t}" for p in prefixes for t in types)]
  return st.lists(st.sampled_from(tags), max_size=12)


def well_formed(tags):
  before = "O"
  for tag in tags:
    if tag.startswith("I-") and before[1:] != tag[1:]:
      return False
    before = tag
  return True


def entities(tags):
  return get_entities(list(tags))


@given(sequences("BI"))
def test_repair(raw):
  repaired, count = schemes.repair(raw)
  assert well_formed(repaired)
  assert schemes.repair(repaired) == (repaired, 0)
  changed = [(a, b) for a, b in zip(raw, repaired, strict=True) if a != b]
  assert all((a[0], b) == ("I", f"B{a[1:]}") for a, b in changed)
  assert count == len(changed)
  assert entities(raw) == entities(repaired)


@given(sequences("BI"))
def test_iob1_keeps_its_entities_and_has_no_orphans(tags):
  assert schemes.to_iob2(tags, "iob2") == tuple(tags)
  converted = schemes.to_iob2(tags, "iob1")
  assert entities(converted) == entities(tags)
  assert well_formed(converted)


@given(sequences("BIES"))
def test_bioes_keeps_its_entities(tags):
  converted = schemes.to_iob2(tags, "bioes")
  assert entities(converted) == entities(tags)
  assert {tag[0] for tag in converted} <= set("OBI")


def test_bioes():
  tags = "S-A S-A B-A E-A E-A B-A I-A E-A O I-B E-A".split()
  expected = "B-A B-A B-A I-A B-A B-A I-A I-A O I-B I-A".split()
  assert schemes.to_iob2(tags, "bioes") == tuple(expected)


@pytest.mark.parametrize(
  ("scheme", "good", "bad"),
  [
    ("iob2", "O B-A I-A-B", ("S-A", "E-A", "B-", "A", "o", "", "B-A B", "BA")),
    ("iob1", "O B-A I-A", ("S-A", "L-A")),
    ("bioes", "O B-A I-A E-A S-A", ("U-A", "L-A", "M-A", "E", "S-")),
  ],
)
def test_unknown_tags_name_the_scheme(scheme, good, bad):
  for tag in good.split():
    schemes.check(tag, scheme, "f:1")
  for tag in bad:
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
  orphans = schemes.repair(tags)[1]
  assert schemes.repair(renamed)[1] <= orphans


def test_label_map():
  assert schemes.label_map((), ["A", "C"]) == {}
  assert schemes.label_map(("A=B", "C=O"), ["A", "C"]) == {"A": "B", "C": "O"}
  for pairs in (("A",), ("=B",), ("A=",), ("A=B", "A=C"), ("A= B",), ("B=C",)):
    with pytest.raises(UserError, match="data.label_map: '.*none of A, C$"):
      schemes.label_map(pairs, ["A", "C"])

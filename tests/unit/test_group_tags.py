"""Group tags: which spellings are one tag, and which tag a device gets."""

import pytest

from app.domain.batch import Cutting
from app.domain.group_tag import Spellings, tag_key, tag_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sales", "SALES"),
        ("Großkunden", "GROSSKUNDEN"),
        ("Cafe\u0301", "CAF\u00c9"),
        ("\u039f\u03b4\u03cc\u03c2", "\u039f\u0394\u038c\u03a3"),
    ],
)
def test_spellings_of_one_tag_have_one_key(one: str, other: str) -> None:
    assert tag_key(one) == tag_key(other)


@pytest.mark.parametrize(("one", "other"), [("Sales", "Sale"), ("Cafe", "Café"), ("A B", "AB")])
def test_different_tags_have_different_keys(one: str, other: str) -> None:
    assert tag_key(one) != tag_key(other)


def test_a_customer_has_one_spelling_of_each_tag() -> None:
    spellings = Spellings({tag_key("GROSSKUNDEN"): "GROSSKUNDEN"})
    assert spellings.conflict("GROSSKUNDEN") is None
    found = spellings.conflict("Großkunden")
    assert found is not None
    assert (found.code, found.is_error) == ("group_tag_case_conflict", True)
    assert "GROSSKUNDEN" in found.detail
    assert spellings.conflict("New") is None
    assert spellings.conflict("NEW") is not None, "the first spelling counts"


def test_the_nearest_tag_that_is_given_is_a_devices() -> None:
    assert tag_of(None, "order", "customer", "connection") == "order"
    assert tag_of("", None, "customer", "connection") == "customer"
    assert tag_of(None, None) == ""


def test_a_tags_next_batch_begins_when_the_last_one_is_full() -> None:
    cutting = Cutting(2)
    assert [cutting.place("A") for _ in range(5)] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert cutting.place("B") == (0, 0)

"""Pages by key: whole, without repetition, and deaf to made-up tokens."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.db.paging import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    InvalidPageToken,
    Page,
    PageRequest,
    bind,
    cut,
    request,
)


def read_all(values: list[int], size: int) -> list[list[int]]:
    """As a caller reads: page after page, each asked for with the token of the one before."""
    pages: list[list[int]] = []
    token: str | None = None
    while True:
        asked = request(size, token)
        after = -1 if asked.after is None else int(asked.after)
        rows = [value for value in values if value > after][: asked.size + 1]
        page = cut(rows, asked, lambda value: value)
        pages.append(list(page.items))
        token = page.next_token
        if token is None:
            return pages
        assert len(pages) <= len(values) + 1, "paging does not end"


@given(st.sets(st.integers(min_value=0, max_value=10_000), max_size=60), st.integers(1, 12))
def test_pages_hold_every_row_once_and_in_order(values: set[int], size: int) -> None:
    ordered = sorted(values)
    pages = read_all(ordered, size)
    assert [value for page in pages for value in page] == ordered
    assert all(len(page) == size for page in pages[:-1])


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (5, 1), (6, 2), (10, 2), (11, 3)])
def test_a_last_page_that_is_full_is_not_followed_by_an_empty_one(count: int, pages: int) -> None:
    assert len(read_all(list(range(count)), 5)) == pages


def test_rows_that_come_while_reading_neither_repeat_nor_hide_others() -> None:
    first = cut([10, 20, 30], request(2, None), lambda value: value)
    asked = request(2, first.next_token)
    assert asked == PageRequest(2, "20")
    # 5 and 15 have been inserted meanwhile: they are before the token and are not shown late.
    assert cut([v for v in (5, 10, 15, 20, 30, 40) if v > 20], asked, str) == Page([30, 40], None)


@pytest.mark.parametrize(
    ("asked", "given"),
    [(None, DEFAULT_PAGE_SIZE), (0, 1), (-3, 1), (1, 1), (1000, 1000), (1001, MAX_PAGE_SIZE), (10**9, 1000)],
)
def test_a_page_size_is_kept_between_its_bounds(asked: int | None, given: int) -> None:
    assert request(asked, None).size == given


@given(st.text(min_size=1, max_size=60))
def test_a_token_gives_back_what_it_was_made_from(value: str) -> None:
    page = cut([value, value], PageRequest(1), lambda row: row)
    assert page.next_token is not None
    assert request(1, page.next_token).after == value
    assert page.next_token.isascii()
    assert not set(page.next_token) & set("+/=&?# "), "usable in a URL as it is"


@pytest.mark.parametrize("token", ["", None])
def test_no_token_is_the_first_page(token: str | None) -> None:
    assert request(7, token) == PageRequest(7, None)


@pytest.mark.parametrize(
    "token",
    [
        "!!!",
        "a",
        "MjA!",
        "Mj A",
        "MjA=",
        "MjA==",
        "Mj\nA",
        "_____w",
        "gA",
        "MjB",
        "ü",
        "\ud800",
        "MjA\x00",
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_a_token_that_was_not_made_here_is_refused(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        request(10, token)


@given(st.text(max_size=40))
def test_whatever_comes_as_a_token_is_a_page_or_a_refusal(token: str) -> None:
    try:
        asked = request(10, token)
    except InvalidPageToken:
        return
    assert asked.after is None or asked.after


ORDERS = ("partner", "/v1/orders", [("state", "held"), ("reference", "x")])


@pytest.mark.parametrize(
    "other",
    [
        ("another partner", "/v1/orders", [("state", "held"), ("reference", "x")]),
        ("partner", "/v1/batches", [("state", "held"), ("reference", "x")]),
        ("partner", "/v1/orders", [("state", "held")]),
        ("partner", "/v1/orders", [("state", "held"), ("reference", "y")]),
        ("partner", "/v1/orders", [("state", "heldreference"), ("", "x")]),
        ("partner", "/v1/orders", []),
    ],
)
def test_a_token_of_another_list_is_refused(other: tuple[str, str, list[tuple[str, str]]]) -> None:
    token = cut([1, 2], PageRequest(1, None, bind(*ORDERS)), str).next_token
    assert request(1, token, bind(*ORDERS)).after == "1"
    owner, path, filters = ORDERS
    assert request(1, token, bind(owner, path, filters[::-1])).after == "1"
    with pytest.raises(InvalidPageToken):
        request(1, token, bind(*other))


def test_a_page_that_looked_only_so_far_leads_on_from_there_also_without_rows() -> None:
    page = PageRequest(2)
    assert cut([], page, str).next_token is None
    found = cut([1], page, str, searched_to=7)
    assert (found.items, request(2, found.next_token).after) == ([1], "7")
    full = cut([1, 2, 3], page, str, searched_to=7)
    assert (full.items, request(2, full.next_token).after) == ([1, 2], "2")

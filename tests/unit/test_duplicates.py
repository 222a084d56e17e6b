"""Duplicates over any number of rows: the same answer as holding all keys, in a few bytes a row."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from app.domain.duplicates import Seen


def by_sets(rows: list[list[str]]) -> list[int]:
    """The first row of each row's group, found the slow way: by merging groups until nothing changes."""
    groups = [({number}, set(keys)) for number, keys in enumerate(rows, start=1)]
    merged = True
    while merged:
        merged = False
        for one in groups:
            for other in groups:
                if one is not other and one[1] & other[1]:
                    one[0].update(other[0])
                    one[1].update(other[1])
                    groups.remove(other)
                    merged = True
                    break
            if merged:
                break
    return [min(next(group for group, _ in groups if number in group)) for number in range(1, len(rows) + 1)]


@given(st.lists(st.lists(st.sampled_from("abcdefghijklm"), max_size=4), max_size=30))
def test_rows_that_share_a_key_are_one_device_and_those_a_third_row_joins_too(rows: list[list[str]]) -> None:
    seen = Seen()
    told = [seen.add(keys) for keys in rows]
    assert [seen.first_of(number) for number in range(1, len(rows) + 1)] == by_sets(rows)
    late = dict(seen.united)
    for number, first in enumerate(told, start=1):
        final = seen.first_of(number)
        # What was told at the time holds, or was told since.
        assert (first is None) == (final == number or number in late)
        if first is not None:
            assert seen.first_of(first) == final


def test_a_later_row_can_show_that_two_earlier_ones_are_one_device() -> None:
    seen = Seen()
    assert [seen.add(["a"]), seen.add(["b"]), seen.add([])] == [None, None, None]
    assert seen.add(["b", "a"]) == 1
    assert seen.united == [(2, 1)]
    assert seen.first_of(2) == 1


def test_a_hundred_thousand_keys_are_told_apart_in_a_few_bytes_each() -> None:
    tracemalloc.start()
    seen = Seen()
    assert all(seen.add((f"tuple:{n}", f"ek:{n}")) is None for n in range(50_000))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(seen.add((f"ek:{n}",)) == n + 1 for n in range(0, 50_000, 50))
    assert held < 4_000_000
    assert peak < 10_000_000  # while the first 65,536 move out of their dictionary

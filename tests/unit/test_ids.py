"""Row ids: RFC 9562 version 7, in the order of time, and never twice."""

import time
from uuid import RFC_4122, UUID

import pytest

from app.db.ids import new_row_id, new_row_ids


def milliseconds(id: UUID) -> int:
    return id.int >> 80


def now() -> int:
    return time.time_ns() // 1_000_000


def test_an_id_is_a_version_7_uuid_of_this_moment() -> None:
    before, id, after = now(), new_row_id(), now()
    assert (id.version, id.variant) == (7, RFC_4122)
    assert before <= milliseconds(id) <= after


def test_every_id_of_a_large_order_is_a_version_7_uuid_of_this_moment() -> None:
    before, ids, after = now(), new_row_ids(10_000), now()
    assert {(id.version, id.variant) for id in ids} == {(7, RFC_4122)}
    assert before <= min(map(milliseconds, ids)) == max(map(milliseconds, ids)) <= after


@pytest.mark.parametrize("count", [0, 1, 2, 16_383, 16_384, 16_385, 70_000])
def test_the_ids_of_one_list_sort_as_the_list_does(count: int) -> None:
    """Across the border of the counter's two parts (14 bits) as well."""
    ids = new_row_ids(count)
    assert len(ids) == count
    assert ids == sorted(ids)
    assert [id.bytes for id in ids] == sorted(id.bytes for id in ids), "PostgreSQL compares bytes"
    assert len(set(ids)) == count


def test_ids_made_at_the_same_moment_in_several_lists_differ() -> None:
    lists = [new_row_ids(200) for _ in range(200)]
    assert len({id for ids in lists for id in ids}) == 200 * 200


def test_single_ids_differ_and_later_ones_sort_behind() -> None:
    ids = [new_row_id() for _ in range(5_000)]
    assert len(set(ids)) == 5_000
    assert [milliseconds(id) for id in ids] == sorted(milliseconds(id) for id in ids)


def test_nothing_but_time_and_order_can_be_told_from_an_id() -> None:
    """Two lists of one moment: the random part is not the counter's, nor the same twice."""
    first, second = new_row_ids(100), new_row_ids(100)
    tails = [id.int & 0xFFFFFFFFFFFF for id in (*first, *second)]
    assert len(set(tails)) == 200
    assert all(tail.bit_length() > 8 for tail in tails)

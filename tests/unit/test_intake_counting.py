"""Lines of a compressed file are counted without its rows, and rows only where there are many lines."""

import gzip
import io

import pytest

from app.domain.catalogue import CATALOGUE
from app.intake import counting
from app.intake.bounds import at_once
from app.intake.row_builder import MAX_ROWS
from app.intake.rows import read
from app.intake.table import UnreadableFile
from tests.support.import_scene import tuple_sheet


def lines(data: bytes, limit: int) -> int | None:
    return counting.lines_within(io.BytesIO(data), limit, at_once)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_lines_are_counted_whatever_ends_them(ending: bytes) -> None:
    assert lines(gzip.compress(b"SYN1,Contoso,Book" + 4999 * (ending + b"SYN1,Contoso,Book")), 10_000) == 5000
    utf16 = "\n".join(["SYN1,Contoso,Book"] * 3).encode("utf-16")
    assert lines(gzip.compress(utf16), 10) == 3


def test_what_is_not_compressed_is_not_counted() -> None:
    assert lines(tuple_sheet(100), 10) is None
    assert lines(b"", 10) is None


def test_counting_ends_where_the_number_does_not_matter_any_more() -> None:
    read_so_far = io.BytesIO(gzip.compress(b"\n" * 8_000_000, compresslevel=1))
    found = counting.lines_within(read_so_far, 1000, at_once)
    assert found is not None
    assert counting.ENOUGH * 1000 < found < 8_000_000
    assert "more than 20,000 rows" in counting.too_many(1000, found).words


def test_a_bomb_and_damage_are_refused_while_the_lines_are_counted() -> None:
    with pytest.raises(UnreadableFile) as caught:
        lines(gzip.compress(bytes(64 * 1024**2)), 1000)
    assert caught.value.code == "compression_bomb"
    with pytest.raises(UnreadableFile) as caught:
        lines(gzip.compress(tuple_sheet(5000))[:-20], 1000)
    assert caught.value.code == "gzip_damaged"


def test_what_breathing_raises_ends_the_counting() -> None:
    class Told(Exception):
        pass

    def breathe() -> None:
        raise Told

    with pytest.raises(Told):
        counting.lines_within(io.BytesIO(gzip.compress(tuple_sheet(5000))), 1000, breathe)


def test_rows_within_the_limit_pass_and_more_are_refused_with_the_numbers() -> None:
    data = tuple_sheet(50)
    counting.require_rows_within(read(io.BytesIO(data))[1], 50, 51)
    with pytest.raises(UnreadableFile) as caught:
        counting.require_rows_within(read(io.BytesIO(data))[1], 49, 51)
    assert (caught.value.code, "room for 49" in caught.value.words) == ("too_many_rows", True)


def test_the_limit_that_held_is_named_and_no_other() -> None:
    of_quota, of_file = (counting.too_many(limit, 2_000_001).words for limit in (150_000, MAX_ROWS))
    assert (
        "your quota staged_rows has room for 150,000 now. Cut it into smaller files, or discard" in of_quota
    )
    assert "1,000,000" not in of_quota
    assert "a file may have 1,000,000. Cut it into smaller files." in of_file
    assert "quota" not in of_file
    assert "1,000,000" not in CATALOGUE["too_many_rows"].remedy

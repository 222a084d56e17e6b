"""Cells, quotes, line numbers and bounds of delimited text."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.intake.rows import Dialect, Row, read
from app.intake.table import MAX_CELLS, MAX_FIELD, Head
from app.intake.text.encodings import Encoding, Text
from app.intake.text.records import MAX_LINE, records

HEADER = "Serial Number,Manufacturer,Model,Notes\n"


def load(text: str) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(text.encode()))
    return dialect, list(rows)


def cells_of(text: str, delimiter: str) -> list[list[str]]:
    source = Text(Head(text.encode(), whole=True), io.BytesIO(), Encoding("utf-8", 0))
    return [record.cells for record in records(source, delimiter)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_every_delimiter_quoting_and_line_end_is_read(delimiter: str, quoting: int, end: str) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerow(["Serial Number", "Manufacturer", "Model", "Notes"])
    writer.writerow(["5CD1", "QEMU", "Standard PC (Q35 + ICH9, 2009)", 'a; b| "c"\td'])
    writer.writerow(["5CD2", "HP", "HP ProBook 450 G5", ""])
    dialect, rows = load(buffer.getvalue())
    assert dialect.delimiter == delimiter
    assert rows[0].fields["model"] == "Standard PC (Q35 + ICH9, 2009)"
    assert rows[0].extra == {"Notes": 'a; b| "c"\td'}
    assert [row.line for row in rows] == [2, 3]
    assert all(row.notices == () for row in rows)


@given(
    rows=st.lists(
        st.lists(st.text(alphabet='a1,;"\n \u00e9\u2028\x85', max_size=12), min_size=2, max_size=5),
        min_size=1,
        max_size=8,
    ),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
)
def test_well_formed_text_gives_the_same_cells_as_the_csv_module(
    rows: list[list[str]], delimiter: str
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows(rows)
    assert cells_of(buffer.getvalue(), delimiter) == rows


def test_a_line_break_inside_quotes_belongs_to_the_value_and_counts_as_a_line() -> None:
    _, rows = load(HEADER + '5CD1,HP,X,"first\nsecond\n\nfourth"\n5CD2,HP,X,\n')
    assert rows[0].extra == {"Notes": "first\nsecond\n\nfourth"}
    assert [(row.number, row.line) for row in rows] == [(1, 2), (2, 6)]


def test_blank_lines_are_skipped_and_counted_as_lines_only() -> None:
    _, rows = load("\n" + HEADER + "\n5CD1,HP,X,\n,,,\n  , ,\t,\n5CD2,HP,X,\n\n")
    assert [(row.number, row.line) for row in rows] == [(1, 4), (2, 7)]


def test_an_inch_mark_inside_a_value_is_a_character() -> None:
    _, rows = load(HEADER + '5CD1,HP,HP 15" Notebook,\n5CD2,HP,X,\n')
    assert rows[0].fields["model"] == 'HP 15" Notebook'
    assert rows[0].is_sound
    assert len(rows) == 2


def test_a_quotation_mark_that_never_closes_costs_one_row() -> None:
    lines = "".join(f"5CD{number},HP,X,\n" for number in range(200))
    _, rows = load(HEADER + '5CDX,"HP,X,\n' + lines)
    assert len(rows) == 201
    assert [notice.code for notice in rows[0].notices] == ["quote_unclosed"]
    assert not rows[0].is_sound
    assert all(row.is_sound for row in rows[1:])
    assert [row.line for row in rows[:3]] == [2, 3, 4]


def test_a_short_row_keeps_what_it_has_and_says_so() -> None:
    _, rows = load(HEADER + "5CD1,HP\n")
    assert rows[0].fields == {"serial_number": "5CD1", "manufacturer": "HP"}
    assert [notice.code for notice in rows[0].notices] == ["row_short"]


def test_a_long_row_keeps_the_surplus_and_says_so() -> None:
    _, rows = load(HEADER + "5CD1,QEMU,Standard PC,fast, quiet\n5CD2,HP,X,,,\n")
    assert rows[0].fields["serial_number"] == "5CD1"
    assert rows[0].extra == {"Notes": "fast", "column 5": " quiet"}
    assert [notice.code for notice in rows[0].notices] == ["row_torn"]
    assert rows[1].notices == (), "empty cells beyond the header are nothing to report"


def test_an_overlong_value_makes_an_error_row_and_no_crash() -> None:
    _, rows = load(HEADER + f"5CD1,HP,{'x' * (MAX_FIELD + 1)},\n5CD2,HP,{'x' * MAX_FIELD},\n")
    assert rows[0].fields == {"serial_number": "5CD1", "manufacturer": "HP"}
    assert [notice.code for notice in rows[0].notices] == ["cell_too_long"]
    assert not rows[0].is_sound
    assert len(rows[1].fields["model"]) == MAX_FIELD
    assert rows[1].is_sound


def test_a_row_of_one_overlong_value_is_not_taken_for_a_blank_one() -> None:
    _, rows = load(f"Hardware Hash\n{'x' * (MAX_FIELD + 1)}\nT0\n")
    assert [(row.number, row.is_sound) for row in rows] == [(1, False), (2, True)]


def test_an_endless_line_is_cut_and_the_next_row_is_sound() -> None:
    _, rows = load(HEADER + "5CD1,HP," + "x" * (3 * MAX_LINE) + "\n5CD2,HP,X,\n")
    assert "line_too_long" in [notice.code for notice in rows[0].notices]
    assert rows[0].fields == {"serial_number": "5CD1", "manufacturer": "HP"}
    assert rows[1].fields["serial_number"] == "5CD2"
    assert rows[1].line == 3
    _, rows = load(HEADER + "x" * (3 * MAX_LINE) + "\n5CD2,HP,X,\n")
    assert [row.is_sound for row in rows] == [False, True]


def test_a_row_with_thousands_of_cells_is_bounded() -> None:
    _, rows = load(HEADER + "5CD1,HP,X" + ",y" * 5000 + '\n5CD2,HP,"X"' + ",y" * 5000 + "\n")
    for row in rows:
        assert len(row.original) == MAX_CELLS
        assert "too_many_cells" in [notice.code for notice in row.notices]


def test_the_csv_modules_field_limit_is_left_alone() -> None:
    before = csv.field_size_limit()
    load(HEADER + "5CD1,HP," + "x" * 200_000 + "\n")
    assert csv.field_size_limit() == before

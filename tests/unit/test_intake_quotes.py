"""Quotation marks as programs and people write them: where a value begins, where it ends, what is odd."""

import io

import pytest

from app.intake.rows import Row, read
from tests.unit.test_hardware_hash_damage import capture

NAMES = "Device Serial Number,Windows Product ID,Hardware Hash,Manufacturer name,Device model"


def load(text: str) -> list[Row]:
    return list(read(io.BytesIO(text.encode()))[1])


def codes(row: Row) -> list[str]:
    return [notice.code for notice in row.notices]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blanks_around_quoted_values_are_no_part_of_them(separator: str, end: str) -> None:
    header = f"{separator} ".join(f'"{name}"' for name in NAMES.split(","))
    row = f'"5CD1"{separator} ""{separator}  "" {separator} "Dell{separator} Inc."{separator} "X"'
    found = load(f"{header}{end}{row}{end}")
    assert [row.fields for row in found] == [
        {"serial_number": "5CD1", "manufacturer": f"Dell{separator} Inc.", "model": "X"}
    ]
    assert codes(found[0]) == []
    assert found[0].columns[1] == ("Windows Product ID", "product_key")


def test_single_quotes_around_all_values_are_understood_like_double_ones() -> None:
    header = ",".join(f"'{name}'" for name in NAMES.split(","))
    found = load(f"{header}\n'5CD1','','','Dell, Inc.','O''Neil 5'\n'5CD2','','','HP','X'\n")
    assert found[0].fields == {"serial_number": "5CD1", "manufacturer": "Dell, Inc.", "model": "O'Neil 5"}
    assert codes(found[0]) == codes(found[1]) == []
    values_only = load(f"{NAMES}\n'5CD1','','','Dell, Inc.','X'\n'5CD2','','','HP','X'\n")
    assert [row.fields["manufacturer"] for row in values_only] == ["Dell, Inc.", "HP"]


def test_an_apostrophe_in_front_of_some_values_is_no_quotation() -> None:
    found = load(f"{NAMES}\n'5CD1,,,HP,X\n'5CD2,,,HP,Y\n")
    assert [row.fields["serial_number"] for row in found] == ["'5CD1", "'5CD2"]


@pytest.mark.parametrize("nothing", ['""', "''", ' "" ', "“”"])
def test_quotation_marks_around_nothing_are_an_empty_value(nothing: str) -> None:
    (row,) = load(f"{NAMES}\n5CD1,{nothing},{nothing},HP,X\n")
    assert row.fields == {"serial_number": "5CD1", "manufacturer": "HP", "model": "X"}


@pytest.mark.parametrize(
    "written, model",
    [
        ('"ThinkBook 14" G6"', 'ThinkBook 14" G6'),
        ('"ThinkBook 14\\" G6"', 'ThinkBook 14" G6'),
        ('"ThinkBook 14\\""', 'ThinkBook 14"'),
        ('"ThinkBook 14""', 'ThinkBook 14"'),
        ('"The "Pro" model"', 'The "Pro" model'),
        ('"a \\"b, c\\", d"', 'a "b, c", d'),
        ('ThinkBook 14\\" G6', 'ThinkBook 14" G6'),
    ],
)
def test_a_mark_inside_of_a_value_belongs_to_it_and_is_said(written: str, model: str) -> None:
    for tail in ("", ",5"):
        (row, following) = load(f"{NAMES},Qty\n5CD1,,,LENOVO,{written}{tail}\n5CD2,,,LENOVO,X{tail}\n")
        assert row.fields["model"] == model
        assert [(n.code, n.column) for n in row.notices if n.code != "row_short"] == [
            ("quote_inside", "Device model")
        ]
        assert following.fields["serial_number"] == "5CD2"


def test_text_behind_a_closing_mark_is_an_error_of_its_column() -> None:
    (row, other) = load(f'{NAMES}\n5CD1,,,"LENOVO" x,21G2\n5CD2,,,LENOVO,"ThinkBook 14" G6\n')
    assert [(n.code, n.column) for n in row.notices] == [("quote_misplaced", "Manufacturer name")]
    assert [(n.code, n.column) for n in other.notices] == [("quote_misplaced", "Device model")]
    assert not row.is_sound
    assert not other.is_sound


def test_odd_marks_in_a_column_that_is_not_used_cost_nothing() -> None:
    (row,) = load('Serial Number,Make,Model,Notes\n5CD1,HP,X,"a" b\n')
    assert (row.fields["model"], codes(row)) == ("X", [])


@pytest.mark.parametrize("width", [64, 76, 20])
def test_a_hash_wrapped_inside_of_quotation_marks_is_one_cell(width: int) -> None:
    text = capture()
    wrapped = "\r\n".join(text[at : at + width] for at in range(0, len(text), width))
    lines = len(wrapped.split("\n"))
    found = load(f'Serial,PKID,Hash,Tag\r\n5CD1,,"{wrapped}",Kiosk\r\n5CD2,,"{wrapped}",Sales\r\n')
    assert ["".join(row.fields["hardware_hash"].split()) for row in found] == [text, text]
    assert [row.fields["group_tag"] for row in found] == ["Kiosk", "Sales"]
    assert [(row.number, row.line) for row in found] == [(1, 2), (2, 2 + lines)]


def test_marks_that_never_close_cost_their_rows_and_little_time() -> None:
    damaged = '5CD1,"a""b,X\n' * 30_000
    found = load(f"Serial Number,Make,Model\n{damaged}5CD2,HP,X\n")
    assert len(found) == 30_001
    assert {code for row in found[:-1] for code in codes(row)} == {"quote_unclosed"}
    assert found[-1].is_sound

"""Formulas whose results the file does not hold are named as that, and never read as an empty cell or a 0."""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.domain.identity import IdentityKind, Rules
from app.intake.devices import check_row
from app.intake.problems import problems_of
from app.intake.rows import Row, read
from tests.support.workbooks import Raw, workbook

WILD = Path(__file__).parents[1] / "samples" / "wild"
NOW = datetime(2026, 5, 1, tzinfo=UTC)
HEADER = ("Serial Number", "Make", "Model", "Note")


def load(data: bytes) -> list[Row]:
    return list(read(io.BytesIO(data))[1])


def one(*cells: Any) -> Row:
    (row,) = load(workbook({"A": [HEADER, cells]}))
    return row


@pytest.mark.parametrize(
    "cell",
    [
        "<f>B1</f><v></v></c>",
        "<f>B1</f><v/></c>",
        "<f>B1</f></c>",
        '<f t="shared" si="0"/></c>',
        "<f>B1</f><v>0</v></c>",
    ],
)
def test_a_formula_without_its_result_is_an_error_that_says_so(cell: str) -> None:
    row = one(Raw(f'<c r="A2">{cell}'), "HP", "X")
    assert [(notice.code, notice.column) for notice in row.notices] == [
        ("formula_without_result", "Serial Number")
    ]
    assert "serial_number" not in row.fields
    checked = check_row(row, Rules(frozenset(IdentityKind)), NOW)
    assert not checked.is_valid
    assert [problem.code for problem in problems_of(row, checked)] == ["formula_without_result"]


def test_a_text_formula_without_a_value_has_none_and_with_an_empty_one_it_is_empty() -> None:
    row = one(Raw('<c r="A2" t="str"><f>B1</f></c>'), "HP", "X")
    assert [notice.code for notice in row.notices] == ["formula_without_result"]
    row = one(Raw('<c r="A2" t="str"><f>B1</f><v></v></c>'), "HP", "X")
    assert row.notices == ()


def test_results_of_formulas_and_formulas_of_unused_columns_are_no_errors() -> None:
    row = one(
        Raw('<c r="A2" t="str"><f>B1</f><v>5CD1</v></c>'), "HP", "X", Raw('<c r="D2"><f>B1</f><v/></c>')
    )
    assert row.notices == ()
    assert row.fields["serial_number"] == "5CD1"


def test_a_row_of_nothing_but_such_formulas_is_not_passed_over() -> None:
    cells = [Raw(f'<c r="{letter}2"><f>B1</f></c>') for letter in "ABC"]
    assert [notice.code for notice in one(*cells).notices] == ["formula_without_result"] * 3


def test_wild_formulas_without_results() -> None:
    rows = load((WILD / "55-formula-no-cache.xlsx").read_bytes())
    assert [[notice.code for notice in row.notices] for row in rows] == [["formula_without_result"]] * 3

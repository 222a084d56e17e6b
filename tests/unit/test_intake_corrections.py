"""The file of rows to be corrected: its content, and that it reads back as the rows it has."""

import csv
import io
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.identity import IdentityKind, Rules
from app.intake.corrections import ADDED, Corrections, disarmed, rearmed
from app.intake.devices import check_row
from app.intake.problems import problems_of
from app.intake.profiles import Profile
from app.intake.rows import Dialect, Row, UnreadableFile, read
from tests.support.workbooks import workbook

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULES = Rules(frozenset(IdentityKind))
SAMPLES = sorted((Path(__file__).parents[1] / "samples").glob("*.csv"))


def load(data: bytes, profile: Profile | None = None) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(data), profile)
    return dialect, list(rows)


def corrections(data: bytes, profile: Profile | None = None) -> bytes:
    """All rows, the good ones too, as if all were wrong."""
    dialect, rows = load(data, profile)
    out = io.BytesIO()
    writer = Corrections(out.write, dialect.columns, profile)
    for row in rows:
        writer.add(row, problems_of(row, check_row(row, RULES, NOW)))
    return out.getvalue()


def values(rows: list[Row]) -> list[tuple[dict[str, str], dict[str, str]]]:
    return [(dict(row.fields), dict(row.extra)) for row in rows]


def test_every_problem_is_named_in_front_of_the_untouched_row() -> None:
    data = b"Made in May\n\nSerial Number;PKID;Colour\n 1 ;4,8E+12;red\n"
    lines = list(csv.reader(io.StringIO(corrections(data).decode("utf-8-sig"))))
    assert lines[0] == [*ADDED, "Serial Number", "PKID", "Colour"]
    assert lines[0][:2] == ["line", "row"]
    assert lines[1][:3] == ["4", "1", "product_key_scientific value_trimmed"]
    assert lines[1][3].startswith("PKID: It is in scientific notation. Serial Number: Blanks")
    assert lines[1][5:] == [" 1 ", "4,8E+12", "red"]


def test_a_file_that_was_written_before_lines_were_in_it_reads_back_too() -> None:
    data = b"row,code,problem,remedy,Serial Number,Make,Model\n1,x,y,z,'=5CD1,HP,X\n"
    _, rows = load(data)
    assert [row.original for row in rows] == [("=5CD1", "HP", "X")]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_each_sample_reads_back_as_the_same_rows(sample: Path) -> None:
    data = sample.read_bytes()
    again = corrections(data)
    assert values(load(again)[1]) == values(load(data)[1])
    assert values(load(corrections(again))[1]) == values(load(data)[1])


@pytest.mark.parametrize(
    "text",
    [
        "Serial Number,Make,Model\n=1+1,@HP,-X\n'=quoted,'plain,\"a\nb\"\n",
        "Serial Number,Make,Model\n1,HP\n2,HP,X,surplus,more\n",
        "Serial Number,Make,Model\n1,HP,X\nSerial Number,Model,Make\n2,Y,HP\n",
        "Serial Number,SN,,Colour\n1,2,3,red\n",
        "5CD1,0284750002680,x\n5CD2,6767165464144,y\n",
        '{"serial_number": "1", "make": "HP", "model": "X"}\n{"pkid": "2", "shelf": "9"}\n',
        "Serial Number|Make|Model\n1|a,b;c\td|X\n",
    ],
)
def test_odd_files_read_back_as_the_same_rows(text: str) -> None:
    data = text.encode()
    assert values(load(corrections(data))[1]) == values(load(data)[1])


def test_a_workbook_reads_back_as_the_same_rows() -> None:
    data = workbook({"A": [("Title",), ("Serial Number", "Make", "Model"), ("0012", "=HP", "X")]})
    assert values(load(corrections(data))[1]) == values(load(data)[1])


def test_it_reads_back_through_a_spreadsheet_and_with_a_profile() -> None:
    profile = Profile.parse(
        {
            "columns": {"Gerät": "serial_number", "#3": "model"},
            "constants": {"manufacturer": "HP"},
            "group_tag": {"column": "Ort", "values": {"k": "KIOSK"}},
        }
    )
    data = "Gerät;Ort;Typ\n1;K;-5\n2;x;Y\n".encode()
    again = corrections(data, profile)
    expected = values(load(data, profile)[1])
    assert expected[0][0]["group_tag"] == "KIOSK"
    assert values(load(again, profile)[1]) == expected
    cells = list(csv.reader(io.StringIO(again.decode("utf-8-sig"))))
    assert values(load(workbook({"errors": cells}), profile)[1]) == expected
    assert values(load("\n".join(map(";".join, cells)).encode(), profile)[1]) == expected


HOSTILE = "'=+-@\t\r\na1 ,;|\"\v\u2028\xa0\ufeff\x00\uff1d"
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
SEPARATORS = (",", ";", "\t", "|")


def in_a_spreadsheet(text: str, separators: str) -> list[str]:
    """The cells that a spreadsheet with these separators finds, as Excel reads quotation marks: they are such
    at the start of a cell only, and elsewhere characters like any other."""
    cells, at = [], 0
    ends = f"{separators}\r\n"
    while at <= len(text):
        cell = ""
        if text.startswith('"', at):
            quoted = re.compile('"((?:[^"]|"")*)("|$)').match(text, at)
            assert quoted is not None
            cell, at = quoted[1].replace('""', '"'), quoted.end()
        rest = re.compile(f"[^{re.escape(ends)}]*").match(text, at)
        assert rest is not None
        cells.append(cell + rest[0])
        at = rest.end() + 1
    return cells


@given(st.text() | st.text(st.sampled_from(HOSTILE)))
def test_each_cell_comes_back_whatever_stands_in_it(cell: str) -> None:
    assert rearmed(disarmed(cell)) == cell


@given(st.text(st.sampled_from(HOSTILE)))
def test_only_apostrophes_are_added(cell: str) -> None:
    assert disarmed(cell).replace("'", "") == cell.replace("'", "")


@pytest.mark.parametrize(
    "cell",
    ["T14s-G2", "a=b", "1.2E+12", "a@b.c", "Elite+ 14, 2-in-1", "'plain", "x;y|z", 'a "b" c', "T0Hab+/=="],
)
def test_a_cell_without_a_formula_is_untouched(cell: str) -> None:
    assert disarmed(cell) == cell


@given(
    st.lists(st.lists(st.text(st.sampled_from(HOSTILE), max_size=8), min_size=4, max_size=4), max_size=4),
    st.sampled_from([*SEPARATORS, "".join(SEPARATORS), ""]),
)
@example([["x;=cmd|'/c calc'!A1", "1", "2", "3"]], ";")
@example([["1", "x\n=1+1", 'y\t"@SUM(1)', 'z|  "-1']], "\t")
@example([["1", '=1;"=1', '""=1', ';"";=1']], ";")
def test_no_spreadsheet_finds_a_formula_whatever_its_separator(
    rows: list[list[str]], separators: str
) -> None:
    out = io.BytesIO()
    writer = Corrections(out.write, [(f"{cell}={cell}", None) for cell in (rows or [["", "-;=1"]])[0]])
    for number, cells in enumerate(rows, start=1):
        writer.add_cells(number, number, cells, [])
    text = out.getvalue().decode("utf-8-sig")
    found = in_a_spreadsheet(text, separators)
    # One that is set to know no quotation marks at all:
    found += re.split(f"[{re.escape(separators)}\r\n]", text)
    assert [cell for cell in found if cell.lstrip(' \t\xa0\ufeff\x00"').startswith(FORMULA)] == []


@given(
    st.lists(
        st.lists(st.text(st.sampled_from("'=+-@\t\"a1 ,;|\n"), max_size=5), min_size=3, max_size=3),
        min_size=1,
        max_size=5,
    )
)
def test_any_cells_read_back_as_they_were(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["Serial Number", "Make", "Model"], ["1", "HP", "X"], *rows])
    data = out.getvalue().encode()
    try:
        expected = values(load(data)[1])
    except UnreadableFile:
        return
    assert values(load(corrections(data))[1]) == expected

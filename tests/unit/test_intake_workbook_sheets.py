"""Sheets of a workbook: which one is read, which rows are hidden, and notices about the others."""

import io
import re
from pathlib import Path
from typing import Any

import pytest

from app.intake.profiles import Profile
from app.intake.rows import Dialect, Row, UnreadableFile, Wanted, read
from app.intake.xlsx import sheet_choice as sheets_module
from app.intake.xlsx.runs import RowRuns
from tests.support.workbooks import Raw, sheet, workbook

WILD = Path(__file__).parents[1] / "samples" / "wild"
HEADER = ("Serial Number", "Make", "Model")
NEVER = re.compile(b"(?!)")


def load(
    data: bytes, sheet: str | None = None, include_hidden: bool | None = None
) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(data), wanted=Wanted(sheet, include_hidden))
    return dialect, list(rows)


def wild(name: str, **wanted: Any) -> tuple[Dialect, list[Row]]:
    return load((WILD / name).read_bytes(), **wanted)


def serials(rows: list[Row]) -> list[str | None]:
    return [row.fields.get("serial_number") for row in rows]


def said(dialect: Dialect, code: str) -> str:
    (words,) = [notice.words for notice in dialect.notices if notice.code == code]
    return words


def table(*names: str) -> list[Any]:
    return [HEADER, *((name, "HP", "X") for name in names)]


def hiding(rows: list[Any], *lines: int, how: str = 'hidden="1"', cols: str = "") -> bytes:
    text = sheet(rows)
    for line in lines:
        text = text.replace(f'<row r="{line}">', f'<row r="{line}" {how}>')
    text = text.replace("<sheetData>", f"{cols}<sheetData>")
    return workbook({"A": []}, shared=False, parts={"xl/worksheets/sheet1.xml": text})


# --- hidden rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by_expat", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        'hidden="1"',
        'hidden="true"',
        "hidden='1'",
        'spans="1:3" hidden="1" x14ac:dyDescent="0.25" xmlns:x14ac="x"',
        'ht="0" customHeight="1"',
        'outlineLevel="1" hidden="1"',
        'customFormat="false" ht="12.8" hidden="true" customHeight="false" collapsed="false"',
    ],
)
def test_hidden_rows_are_counted_and_not_read(
    how: str, by_expat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_expat:
        monkeypatch.setattr(RowRuns, "opening", NEVER)
    names = [f"5CD{n:04}" for n in range(60)]
    data = hiding(table(*names), *range(3, 60, 2), how=how)
    dialect, rows = load(data)
    assert serials(rows) == names[0::2][:29] + names[58:]
    assert [row.line for row in rows][:3] == [2, 4, 6]
    assert said(dialect, "rows_hidden").startswith(
        "29 rows are hidden, by a filter or by hand, and not read."
    )
    assert dialect.omits
    dialect, rows = load(data, include_hidden=True)
    assert serials(rows) == names
    assert not dialect.omits
    dialect, rows = load(data, include_hidden=False)
    assert len(rows) == 31
    assert said(dialect, "omitted_as_asked").startswith("29 rows are hidden")
    assert not dialect.omits


LIBRE_OFFICE = (
    'customFormat="false" ht="12.8" hidden="{}" customHeight="false" outlineLevel="0" collapsed="false"'
)
NUMBERS = 'ht="20.05" customHeight="1"'
GOOGLE = 'ht="15.75" customHeight="1" spans="1:3"'


@pytest.mark.parametrize(
    "how",
    [
        'hidden="0"',
        'hidden="false"',
        'collapsed="1"',
        LIBRE_OFFICE.format("false"),
        NUMBERS,
        GOOGLE,
        'ht="0.75" customHeight="1"',
    ],
)
def test_rows_that_are_shown_are_read(how: str) -> None:
    dialect, rows = load(hiding(table("5CD1", "5CD2"), 2, 3, how=how))
    assert serials(rows) == ["5CD1", "5CD2"]
    assert not dialect.omits


def test_hidden_rows_that_are_empty_or_above_the_table_are_not_counted() -> None:
    rows: list[Any] = [("Internal title",), HEADER, ("5CD1", "HP", "X"), (), ("5CD2", "HP", "X")]
    dialect, found = load(hiding(rows, 1, 4))
    assert serials(found) == ["5CD1", "5CD2"]
    assert not dialect.omits


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("how", ['hidden="1"', 'ht="0" customHeight="1"'])
def test_hidden_rows_of_a_sheet_in_utf_16_are_counted(how: str, encoding: str) -> None:
    text = sheet(table("5CD1", "5CD2")).replace('<row r="3">', f'<row r="3" {how}>')
    mark = "\ufeff".encode(encoding)
    part = mark + f'<?xml version="1.0" encoding="utf-16"?>{text}'.encode(encoding)
    dialect, rows = load(workbook({"A": []}, shared=False, parts={"xl/worksheets/sheet1.xml": part}))
    assert serials(rows) == ["5CD1"]
    assert said(dialect, "rows_hidden").startswith("1 row is hidden")


def test_a_hidden_header_still_names_the_columns() -> None:
    dialect, rows = load(hiding([("Model", "Make", "Serial Number"), ("X", "HP", "5CD1")], 1))
    assert rows[0].fields == {"model": "X", "manufacturer": "HP", "serial_number": "5CD1"}
    assert dialect.header_row == 1
    assert not dialect.omits


def test_a_text_that_reads_like_hiding_hides_nothing() -> None:
    dialect, rows = load(hiding([HEADER, ('hidden="1" ht="0"', "HP", "X")]))
    assert len(rows) == 1
    assert not dialect.omits


# --- hidden columns -------------------------------------------------------------------------------


@pytest.mark.parametrize("by_expat", [False, True])
@pytest.mark.parametrize("how", ['hidden="1"', 'width="0" customWidth="1"', 'hidden="true" outlineLevel="1"'])
def test_hidden_columns_are_named_and_not_read(
    how: str, by_expat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_expat:
        monkeypatch.setattr(RowRuns, "opening", NEVER)
    rows: list[Any] = [
        ("Serial Number", "Make", "Model", "Group Tag", "Price"),
        *((f"5CD{n}", "HP", "X", "Old", "7") for n in range(30)),
    ]
    cols = f'<cols><col min="1" max="3" width="9"/><col min="4" max="16384" {how}/></cols>'
    data = hiding(rows, cols=cols)
    dialect, found = load(data)
    assert all(row.fields.keys() == {"serial_number", "manufacturer", "model"} for row in found)
    assert said(dialect, "columns_hidden").startswith(
        "2 columns are hidden and not read, among them 'Group Tag'."
    )
    assert dialect.omits
    dialect, found = load(data, include_hidden=True)
    assert {row.fields["group_tag"] for row in found} == {"Old"}
    assert not dialect.omits
    dialect, found = load(data, include_hidden=False)
    assert "group_tag" not in found[0].fields
    assert not dialect.omits


def test_hidden_columns_that_nobody_would_read_are_a_note() -> None:
    rows = [(*HEADER, "Price"), ("5CD1", "HP", "X", "7")]
    dialect, _ = load(hiding(rows, cols='<cols><col min="4" max="9" hidden="1"/></cols>'))
    assert said(dialect, "columns_hidden_unknown") == "1 column is hidden and not read."
    assert not dialect.omits
    dialect, _ = load(hiding(rows, cols='<cols><col min="6" max="16384" hidden="1"/></cols>'))
    assert "hidden" not in " ".join(notice.words for notice in dialect.notices)


# --- which sheet ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["hidden", "veryHidden"])
def test_a_visible_sheet_is_read_before_a_hidden_one(state: str) -> None:
    data = workbook({"Old": table("1OLD"), "New": table("2NEW")}, states={"Old": state})
    dialect, rows = load(data)
    assert (dialect.sheet, serials(rows)) == ("New", ["2NEW"])
    assert "'Old' (hidden, 1 row looks like a device)" in said(dialect, "sheets_with_devices")
    assert dialect.omits


def test_a_hidden_sheet_is_read_only_when_no_other_has_devices_and_with_a_warning() -> None:
    sheets: dict[str, Any] = {"Cover": [("Delivery", "4711")], "Template": [HEADER], "Data": table("5CD1")}
    dialect, rows = load(workbook(sheets, states={"Data": "hidden"}))
    assert (dialect.sheet, serials(rows)) == ("Data", ["5CD1"])
    assert said(dialect, "sheet_hidden") == (
        "Sheet 'Data' is hidden; it is read because no visible sheet has devices."
    )
    visible: dict[str, Any] = {**sheets, "Real": table("5CD2")}
    dialect, rows = load(workbook(visible, states={"Data": "hidden"}))
    assert serials(rows) == ["5CD2"]


@pytest.mark.parametrize("name", ["Sheet1", "Devices", "Zzz"])
def test_a_filled_sheet_is_read_before_an_empty_one(name: str) -> None:
    dialect, rows = load(workbook({"Form": [HEADER], name: table("5CD1")}))
    assert (dialect.sheet, serials(rows)) == (name, ["5CD1"])
    assert not dialect.omits
    assert "'Form'" in said(dialect, "sheets_unused")


@pytest.mark.parametrize(
    "name, example",
    [
        ("Example", "5CD1"),
        ("Template (do not use)", "5CD1"),
        ("Beispiel", "5CD1"),
        ("2_Muster_DE", "5CD1"),
        ("Plantilla", "5CD1"),
        ("Sheet1", "ABC123"),
        ("Sheet1", "1234567"),
        ("Sheet1", "XXXXXXX"),
        ("Sheet1", "<Serial Number>"),
        ("Sheet1", "Example 1"),
    ],
)
def test_real_devices_are_read_before_examples(name: str, example: str) -> None:
    dialect, rows = load(workbook({name: table(example), "List": table("5CD8", "5CD9")}))
    assert (dialect.sheet, serials(rows)) == ("List", ["5CD8", "5CD9"])


@pytest.mark.parametrize("name", ["Template", "Sample", "Samples2Go"])
def test_a_template_that_was_filled_in_is_read(name: str) -> None:
    dialect, rows = load(workbook({name: table("5CD1"), "Lists": [("HP",), ("Dell",)]}))
    assert (dialect.sheet, serials(rows)) == (name, ["5CD1"])
    assert not dialect.omits


def test_a_sheet_that_is_asked_for_is_read_whatever_it_is() -> None:
    data = workbook({"Old ": table("1OLD"), "New": table("2NEW")}, states={"Old ": "hidden"})
    dialect, rows = load(data, sheet="old")
    assert (dialect.sheet, serials(rows)) == ("Old ", ["1OLD"])
    assert "'New' (1 row looks like a device)" in said(dialect, "omitted_as_asked")
    assert not dialect.omits


def test_a_sheet_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnreadableFile) as caught:
        load(workbook({"A": table("5CD1"), "B": []}), sheet="C")
    assert (caught.value.code, caught.value.words) == (
        "sheet_unknown",
        "The workbook has no sheet 'C'. It has 'A', 'B'.",
    )
    with pytest.raises(UnreadableFile) as caught:
        load(workbook({"A": table("5CD1"), "B": [("x", "y")]}), sheet="B")
    assert caught.value.code == "columns_unknown"
    with pytest.raises(UnreadableFile) as caught:
        load(b"Serial Number,Make,Model\n1,HP,X\n", sheet="B")
    assert caught.value.code == "sheet_unknown"


def test_rows_of_other_sheets_are_all_counted_the_hidden_ones_too() -> None:
    many = table(*(f"5CD{n:05}" for n in range(1000)))
    text = sheet(many).replace('<row r="500">', '<row r="500" hidden="1">')
    data = workbook(
        {"Mine": table("5CD1"), "Other": []}, shared=False, parts={"xl/worksheets/sheet2.xml": text}
    )
    dialect, _ = load(data)
    assert "'Other' (1,000 rows look like devices)" in said(dialect, "sheets_with_devices")


def test_counting_ends_somewhere_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets_module, "MOST_COUNTED", 5)
    names = [f"5CD{n}" for n in range(9)]
    dialect, _ = load(workbook({"Mine": table("5CD1"), "Big": table(*names), "Next": table(*names)}))
    words = said(dialect, "sheets_with_devices")
    assert "'Big' (more than 5 rows look like devices), 'Next' (not looked at)" in words


def test_a_sheet_beyond_those_that_are_looked_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets_module, "MAX_SHEETS", 2)
    data = workbook({"Mine": table("5CD1"), "B": [("x",)], "C": table("5CD2")})
    dialect, _ = load(data)
    assert "'C' (not looked at), 'B'." in said(dialect, "sheets_with_devices")
    dialect, rows = load(data, sheet="C")
    assert serials(rows) == ["5CD2"]


def test_lists_beside_the_devices_are_no_devices() -> None:
    sheets: dict[str, Any] = {
        "Devices": table("5CD1"),
        "Warranty": [("Serial Number", "Until"), ("5CD1", "2030")],
        "Totals": [("Model", "Count"), ("X", 1)],
    }
    dialect, _ = load(workbook(sheets))
    assert not dialect.omits


# --- all in one column ----------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rows_in_one_cell_each_are_taken_apart(delimiter: str) -> None:
    lines = [delimiter.join(row) for row in table("5CD1", "0012")]
    dialect, rows = load(workbook({"A": [("Export of May",), *((line,) for line in lines)]}))
    assert [row.fields for row in rows] == [
        {"serial_number": "5CD1", "manufacturer": "HP", "model": "X"},
        {"serial_number": "0012", "manufacturer": "HP", "model": "X"},
    ]
    assert [row.line for row in rows] == [3, 4]
    assert "are in one cell" in said(dialect, "cells_split")


def test_quotation_marks_in_such_cells_are_understood() -> None:
    rows = [("Serial Number,Make,Model",), ('5CD1,"Dell, Inc.","15"" panel"',), ('"5CD2","HP","X"',)]
    _, found = load(workbook({"A": rows}))
    assert [row.fields["manufacturer"] for row in found] == ["Dell, Inc.", "HP"]
    assert found[0].fields["model"] == '15" panel'


def test_such_a_column_need_not_be_the_first() -> None:
    rows = [(None, "Serial Number;Make;Model"), (None, "5CD1;HP;X")]
    _, found = load(workbook({"A": rows}))
    assert found[0].fields == {"serial_number": "5CD1", "manufacturer": "HP", "model": "X"}


def test_a_column_of_hashes_or_of_notes_is_not_taken_apart() -> None:
    dialect, rows = load(workbook({"A": [("PKID",), ("0284750002680",)]}))
    assert rows[0].fields == {"product_key": "0284750002680"}
    assert "cells_split" not in [notice.code for notice in dialect.notices]
    with pytest.raises(UnreadableFile):
        load(workbook({"A": [("Delivery note, May",), ("4711, 4712",)]}))


def test_a_header_that_is_taken_apart_already_names_the_columns() -> None:
    dialect, rows = load(workbook({"A": [HEADER, ("5CD1;HP;X",), ("5CD2;HP;Y",)]}))
    assert [row.fields for row in rows] == [
        {"serial_number": "5CD1", "manufacturer": "HP", "model": "X"},
        {"serial_number": "5CD2", "manufacturer": "HP", "model": "Y"},
    ]
    assert "are in one cell" in said(dialect, "cells_split")


def test_several_serial_numbers_in_one_cell_are_no_row() -> None:
    _, rows = load(workbook({"A": [("Serial Number",), ("5CD1, 5CD2",)]}))
    assert rows[0].fields == {"serial_number": "5CD1, 5CD2"}


def test_the_separator_that_excel_names_is_passed_over() -> None:
    rows = [("sep=;",), ("Serial Number;Make;Model",), ("5CD1;HP;X",)]
    assert serials(load(workbook({"A": rows}))[1]) == ["5CD1"]


def test_a_profile_is_heeded_in_such_a_column() -> None:
    profile = Profile.parse({"columns": {"Gerät": "serial_number"}})
    data = workbook({"A": [("Gerät;Make;Model",), ("5CD1;HP;X",)]})
    assert [row.fields["serial_number"] for row in read(io.BytesIO(data), profile)[1]] == ["5CD1"]


# --- the files of the wild ------------------------------------------------------------------------


def test_wild_hidden_rows() -> None:
    dialect, rows = wild("50-hidden-rows.xlsx")
    _, whole = wild("50-hidden-rows.xlsx", include_hidden=True)
    assert 0 < len(rows) < len(whole)
    assert said(dialect, "rows_hidden").startswith(f"{len(whole) - len(rows)} row")
    assert dialect.omits


def test_wild_sheets() -> None:
    dialect, rows = wild("51-three-sheets.xlsx")
    assert dialect.sheet == "Berlin"
    assert len(rows) > 0
    assert "rows look like devices" in said(dialect, "sheets_with_devices")
    dialect, _ = wild("51-three-sheets.xlsx", sheet="Hamburg")
    assert (dialect.sheet, dialect.omits) == ("Hamburg", False)
    dialect, _ = wild("52-hidden-first-sheet.xlsx")
    assert (dialect.sheet, dialect.omits) == ("Devices", True)
    dialect, rows = wild("164-empty-template-sheet-first.xlsx")
    assert (dialect.sheet, dialect.omits, len(rows) > 0) == ("Devices", False, True)


def test_wild_all_in_one_column() -> None:
    dialect, rows = wild("11-all-in-column-a.xlsx")
    assert [row.fields for row in rows] == [
        {"serial_number": "5CD9CZYW0P", "manufacturer": "LENOVO", "model": "21G2001VUS"},
        {"serial_number": "04Q1HVXD", "manufacturer": "LENOVO", "model": "21G2001VUS"},
    ]
    assert not dialect.omits


def test_a_number_in_a_hidden_column_says_nothing() -> None:
    rows: list[Any] = [HEADER, ("5CD1", "HP", Raw('<c r="C2" t="e"><v>#N/A</v></c>'))]
    dialect, found = load(hiding(rows, cols='<cols><col min="3" max="3" hidden="1"/></cols>'))
    assert found[0].notices == ()
    assert dialect.omits


def test_devices_whose_columns_are_all_hidden_are_refused_in_words() -> None:
    data = hiding(table("5CD1"), cols='<cols><col min="1" max="1" hidden="1"/></cols>')
    with pytest.raises(UnreadableFile) as caught:
        load(data)
    assert (caught.value.code, "are hidden" in caught.value.words) == ("columns_unknown", True)
    assert "--include-hidden" in caught.value.words
    assert len(load(data, include_hidden=True)[1]) == 1

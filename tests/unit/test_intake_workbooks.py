"""Workbooks: which sheet is read, what cells become, and what a spreadsheet has done to values."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from python_calamine import CalamineWorkbook

from app.intake.profiles import Profile
from app.intake.rows import Dialect, Kind, Row, UnreadableFile, read
from app.intake.xlsx import shared_texts
from tests.benchmarks import reading
from tests.support.workbooks import MAIN, Raw, archive, sheet, workbook

HEADER = ("Device Serial Number", "Windows Product ID", "Hardware Hash", "Manufacturer name", "Device model")


def load(data: bytes, profile: Profile | None = None) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(data), profile)
    return dialect, list(rows)


def refused(data: bytes) -> UnreadableFile:
    with pytest.raises(UnreadableFile) as caught:
        load(data)
    return caught.value


def one(*cells: Any, formats: tuple[str, ...] = ()) -> Row:
    _, (row,) = load(workbook({"Devices": [HEADER, cells]}, formats=formats))
    return row


def codes(row: Row) -> list[tuple[str, str | None]]:
    return [(notice.code, notice.column) for notice in row.notices]


@pytest.mark.parametrize("shared", [True, False])
def test_texts_are_read_wherever_the_workbook_keeps_them(shared: bool) -> None:
    rows: list[Any] = [
        ("Devices of May",),
        HEADER,
        ("0012345", None, None, "Micro & Söhne <GmbH>", " X "),
        (),
        (None, "0284750002680"),
    ]
    dialect, found = load(workbook({"Devices": rows}, shared=shared))
    assert (dialect.format, dialect.kind, dialect.sheet) == ("xlsx", Kind.PARTNER_CENTER, "Devices")
    assert dialect.header_row == 2
    assert [notice.code for notice in dialect.notices] == ["lines_above_table"]
    assert [(row.number, row.line) for row in found] == [(1, 3), (2, 5)]
    assert found[0].fields == {
        "serial_number": "0012345",
        "manufacturer": "Micro & Söhne <GmbH>",
        "model": " X ",
    }
    assert found[0].original == ("0012345", "", "", "Micro & Söhne <GmbH>", " X ")
    assert found[1].fields == {"product_key": "0284750002680"}
    assert found[0].notices == ()


def test_the_first_sheet_with_a_header_is_read_and_the_others_are_named() -> None:
    sheets: dict[str, Any] = {
        "Read me": [("Please fill in",), ("your name", "here")],
        "Devices": [("Serial Number", "Make", "Model"), ("1", "HP", "X")],
        "Prices": [("Serial Number", "Make", "Model"), ("2", "HP", "Y")],
    }
    dialect, rows = load(workbook(sheets))
    assert dialect.sheet == "Devices"
    assert [row.fields["serial_number"] for row in rows] == ["1"]
    (notice,) = [notice for notice in dialect.notices if notice.code == "sheets_with_devices"]
    assert notice.words == (
        "Sheet 'Devices' is read. Not read: 'Prices' (1 row looks like a device), 'Read me'. "
        "Read another one with --sheet or sheet=."
    )


def test_a_workbook_without_a_header_is_told_by_its_content() -> None:
    rows = [("5CD1", "0284750002680"), ("5CD2", "6767165464144")]
    dialect, found = load(workbook({"A": [("notes",)], "B": rows}))
    assert (dialect.sheet, dialect.kind) == ("B", Kind.HEADERLESS)
    assert [row.fields["product_key"] for row in found] == ["0284750002680", "6767165464144"]


def test_a_workbook_without_devices_says_what_a_header_looks_like() -> None:
    assert refused(workbook({"A": [("x", "y"), ("1", "2")]})).code == "columns_unknown"
    assert refused(workbook({"A": []})).code == "empty_file"


def test_a_profile_reads_a_workbook_too() -> None:
    profile = Profile.parse({"columns": {"Gerät": "serial_number"}, "constants": {"manufacturer": "HP"}})
    _, (row,) = load(workbook({"A": [("Gerät", "Model"), ("1", "X")]}), profile)
    assert row.fields == {"serial_number": "1", "model": "X", "manufacturer": "HP"}


@pytest.mark.parametrize("written", ["4898710000000", "4898710000000.0", "4.89871E+12", "4.89871e12"])
def test_a_pkid_stored_as_a_number_keeps_its_thirteen_digits(written: str) -> None:
    row = one(None, Raw(f'<c r="B2"><v>{written}</v></c>'))
    assert row.fields == {"product_key": "4898710000000"}
    assert row.notices == ()


def test_a_serial_number_stored_as_a_number_gets_a_warning() -> None:
    row = one(12345, None, None, "HP", "X")
    assert row.fields["serial_number"] == "12345"
    assert codes(row) == [("serial_from_number", "Device Serial Number")]
    assert row.is_sound


def test_a_format_of_zeros_is_read_as_it_is_shown() -> None:
    row = one(Raw('<c r="A2" s="1"><v>12345</v></c>'), formats=("00000000",))
    assert row.fields == {"serial_number": "00012345"}
    assert row.notices == ()


def test_more_digits_than_a_spreadsheet_keeps_are_an_error() -> None:
    row = one(Raw('<c r="A2"><v>1.2345678901234568E+19</v></c>'))
    assert codes(row) == [("number_rounded", "Device Serial Number")]
    assert row.fields["serial_number"] == "12345678901234568000"
    assert not row.is_sound


@pytest.mark.parametrize("code", ["d-mmm", "dd.mm.yyyy", "[$-407]mmm yy;@", "yyyy\\-mm\\-dd", "m/d/yyyy"])
def test_a_date_made_of_a_serial_number_is_an_error(code: str) -> None:
    row = one(Raw('<c r="A2" s="1"><v>45352</v></c>'), formats=(code,))
    assert row.fields["serial_number"] == "2024-03-01"
    assert codes(row) == [("cell_is_date", "Device Serial Number")]
    assert not row.is_sound


@pytest.mark.parametrize("code", ["0.00", "General", '"day"0', "[Red]0", "#,##0", "@"])
def test_other_formats_are_no_dates(code: str) -> None:
    assert codes(one(Raw('<c r="B2" s="1"><v>45352</v></c>'), formats=(code,))) == []


def test_numbers_and_dates_in_other_columns_are_nobodys_business() -> None:
    sheets: dict[str, Any] = {"A": [("Serial Number", "Make", "Model", "Price"), ("1", "HP", "X", 12.5)]}
    _, (row,) = load(workbook(sheets))
    assert row.notices == ()
    assert row.extra == {"Price": "12.5"}


def test_an_error_of_the_spreadsheet_is_an_error_of_the_row() -> None:
    row = one(Raw('<c r="A2" t="e"><v>#N/A</v></c>'), None, None, "HP", "X")
    assert codes(row) == [("cell_is_error", "Device Serial Number")]


def test_formulas_give_what_they_showed_and_phonetics_nothing() -> None:
    row = one(
        Raw('<c r="A2" t="str"><f>A1&amp;"x"</f><v>5CD1</v></c>'),
        Raw('<c r="B2" t="b"><v>1</v></c>'),
        None,
        Raw('<c r="D2" t="inlineStr"><is><r><t>H</t></r><r><t>P</t></r><rPh><t>no</t></rPh></is></c>'),
        Raw('<c r="E2" t="str"><v>a_x000D_b_x005F_</v></c>'),
    )
    assert row.fields == {
        "serial_number": "5CD1",
        "product_key": "TRUE",
        "manufacturer": "HP",
        "model": "a\rb_",
    }


def test_names_with_prefixes_and_missing_references_are_read() -> None:
    def line(*cells: str) -> str:
        written = "".join(f'<x:c t="inlineStr"><x:is><x:t>{cell}</x:t></x:is></x:c>' for cell in cells)
        return f"<x:row>{written}</x:row>"

    text = f'<x:worksheet xmlns:x="{MAIN}"><x:sheetData>{line("Serial Number", "Make", "Model")}'
    text += f"{line('1', 'HP', 'X')}</x:sheetData></x:worksheet>"
    _, (row,) = load(workbook({"A": []}, parts={"xl/worksheets/sheet1.xml": text}))
    assert row.fields == {"serial_number": "1", "manufacturer": "HP", "model": "X"}


def test_texts_beyond_what_memory_holds_wait_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_texts, "HELD", 1000)
    rows: list[Any] = [
        ("Serial Number", "Make", "Model"),
        *((f"5CDÄ{n}", "HP", f"Model {n}") for n in range(300)),
    ]
    _, found = load(workbook({"A": rows}))
    assert [row.fields["serial_number"] for row in found] == [f"5CDÄ{n}" for n in range(300)]
    assert found[-1].fields["model"] == "Model 299"


def test_more_texts_than_memory_has_places_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_texts, "HELD", 1000)
    monkeypatch.setattr(shared_texts, "MAX_WAITING", 50)
    rows = [("Serial Number", "Make", "Model"), *((f"5CD{n}", "HP", "X") for n in range(100))]
    assert refused(workbook({"A": rows})).code == "file_too_large"


def test_another_library_finds_the_same_cells(tmp_path: Path) -> None:
    path = reading.write_workbook(tmp_path, 300)
    theirs = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    _, rows = load(path.read_bytes())
    assert [list(row.original) for row in rows] == theirs[1:]


# --- hostile --------------------------------------------------------------------------------------


def test_a_bomb_is_refused_by_its_directory_before_it_unpacks() -> None:
    data = workbook({"A": [HEADER]}, parts={"xl/worksheets/sheet1.xml": b"<a>" + bytes(60_000_000)})
    tracemalloc.start()
    refusal = refused(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refusal.code == "compression_bomb"
    assert peak < 8_000_000


def test_a_bomb_that_lies_about_its_size_is_refused_while_it_unpacks() -> None:
    data = bytearray(
        workbook({"A": [HEADER]}, parts={"xl/worksheets/sheet1.xml": b"<a>" + b" " * 60_000_000})
    )
    size = (60_000_003).to_bytes(4, "little")
    while (at := data.find(size)) >= 0:
        data[at : at + 4] = (5_000).to_bytes(4, "little")
    tracemalloc.start()
    refusal = refused(bytes(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refusal.code == "workbook_damaged"
    assert peak < 8_000_000


LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    f'<worksheet xmlns="{MAIN}"><sheetData><row><c><v>&b;</v></c></row></sheetData></worksheet>'
)


@pytest.mark.parametrize(
    "parts",
    [
        {"xl/worksheets/sheet1.xml": LAUGHS},
        {"xl/sharedStrings.xml": LAUGHS},
        {"xl/styles.xml": LAUGHS},
        {"xl/workbook.xml": LAUGHS},
        {"xl/_rels/workbook.xml.rels": LAUGHS},
        {"xl/worksheets/sheet1.xml": "<worksheet><sheetData><row>"},
        {"xl/worksheets/sheet1.xml": "<a " + "b" * 3_000_000},
        {"xl/worksheets/sheet1.xml": "<a>" + "".join(f"<b{n}/>" for n in range(90_000))},
        {"xl/sharedStrings.xml": "<a>" + "".join(f"<b c{n}='1'/>" for n in range(90_000))},
        {"xl/worksheets/sheet1.xml": b"\xff\xfe\x00"},
        {"xl/worksheets/sheet1.xml": '<?xml version="1.0" encoding="no-such"?><worksheet/>'},
        {"xl/_rels/workbook.xml.rels": "<Relationships/>"},
    ],
)
def test_declarations_and_broken_markup_are_refused(parts: dict[str, str | bytes]) -> None:
    assert refused(workbook({"A": [HEADER, ("1",)]}, parts=parts)).code == "workbook_damaged"


def test_a_damaged_archive_is_refused_wherever_it_is_cut() -> None:
    whole = workbook({"A": [HEADER, ("1", None, None, "HP", "X")]})
    for end in range(30, len(whole), 37):
        assert refused(whole[:end]).code in ("workbook_damaged", "file_is_archive"), end


def test_other_office_documents_are_told_apart() -> None:
    refusal = refused(archive({"[Content_Types].xml": "<Types/>", "word/document.xml": "<a/>"}))
    assert (refusal.code, "not an Excel workbook" in refusal.words) == ("file_is_unsupported_workbook", True)


def test_wild_references_stay_within_bounds() -> None:
    rows: list[Any] = [
        ("Serial Number", "Make", "Model"),
        (Raw('<c r="XFD2" t="str"><v>far</v></c>'),),
        (Raw('<c r="!!" t="str"><v>1</v></c>'), Raw('<c r="A3" t="str"><v>HP</v></c>')),
        (Raw('<c r="A4" t="s"><v></v></c>'), Raw('<c t="s"/>')),
        (Raw('<c r="A5" t="str"><v>' + "y" * 100_000 + "</v></c>"),),
    ]
    text = sheet(rows).replace('<row r="4">', '<row r="2">')
    _, found = load(workbook({"A": []}, parts={"xl/worksheets/sheet1.xml": text}))
    assert [row.line for row in found] == [2, 3, 5]
    assert codes(found[0])[0][0] == "too_many_cells"
    assert found[1].fields == {"serial_number": "1", "manufacturer": "HP"}
    assert codes(found[2])[0][0] == "cell_too_long"


@pytest.mark.parametrize("number", ["7", "99999999999", "x", "-1"])
def test_a_text_that_is_not_there_is_no_empty_cell(number: str) -> None:
    """A row of nothing else would be passed over, and its device lost without a word."""
    rows: list[Any] = [("Serial Number", "Make", "Model"), (Raw(f'<c r="A2" t="s"><v>{number}</v></c>'),)]
    content = workbook({"A": []}, parts={"xl/worksheets/sheet1.xml": sheet(rows)})
    with pytest.raises(UnreadableFile) as refusal:
        list(load(content)[1])
    assert refusal.value.code == "workbook_damaged"

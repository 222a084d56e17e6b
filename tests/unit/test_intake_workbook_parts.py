"""A workbook's parts are found by what leads to them, whatever a program calls them."""

import io
import struct
from pathlib import Path
from typing import Any

import pytest

from app.intake.rows import Dialect, Row, UnreadableFile, read
from tests.support.workbooks import MAIN, RELATIONS, Raw, archive, relationships, sheet, styles

WILD = Path(__file__).parents[1] / "samples" / "wild"
STRICT = "http://purl.oclc.org/ooxml/officeDocument/relationships"
HEADER = ("Serial Number", "Make", "Model")
TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
SHEET_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def load(data: bytes) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(data))
    return dialect, list(rows)


def wild(name: str) -> tuple[Dialect, list[Row]]:
    return load((WILD / name).read_bytes())


def refused(data: bytes) -> UnreadableFile:
    with pytest.raises(UnreadableFile) as caught:
        load(data)
    return caught.value


def list_of_sheets(*, date1904: str = "") -> str:
    return (
        f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}">{date1904}<sheets>'
        '<sheet name="Devices" sheetId="1" r:id="rId7"/></sheets></workbook>'
    )


def parts(
    *,
    workbook: str = "xl/workbook.xml",
    sheet_part: str = "xl/worksheets/sheet1.xml",
    styles_part: str = "xl/styles.xml",
    texts_part: str = "xl/sharedStrings.xml",
    relations: str = RELATIONS,
    date1904: str = "",
) -> dict[str, str | bytes]:
    """A workbook with a serial number of leading zeros and a shared text, in parts of these names."""
    folder, _, name = workbook.rpartition("/")
    rows: list[Any] = [HEADER, (Raw('<c r="A2" s="1"><v>12345</v></c>'), "HP", "X")]
    texts: dict[str, int] = {}
    written = sheet(rows, texts)
    listed = "".join(f"<si><t>{text}</t></si>" for text in texts)
    return {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": relationships({"rId1": ("officeDocument", workbook)}, relations),
        workbook: list_of_sheets(date1904=date1904),
        f"{folder}/_rels/{name}.rels".lstrip("/"): relationships(
            {
                "rId7": ("worksheet", f"/{sheet_part}"),
                "rId8": ("styles", f"/{styles_part}"),
                "rId9": ("sharedStrings", f"/{texts_part}"),
            },
            relations,
        ),
        sheet_part: written,
        styles_part: styles(("0000000",)),
        texts_part: f'<sst xmlns="{MAIN}">{listed}</sst>',
    }


def is_well_read(data: bytes) -> bool:
    _, (row,) = load(data)
    return row.fields == {"serial_number": "0012345", "manufacturer": "HP", "model": "X"}


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"workbook": "xl/workbook22.xml"},
        {"styles_part": "xl/styles2.xml"},
        {"texts_part": "xl/strings/sharedStrings3.xml"},
        {"sheet_part": "xl/worksheets/Sheet%201.xml"},
        {
            "workbook": "office/book.xml",
            "sheet_part": "office/s.xml",
            "styles_part": "looks.xml",
            "texts_part": "words.xml",
        },
        {"workbook": "book.xml"},
        {"relations": STRICT},
    ],
    ids=lambda names: "-".join(names) or "usual",
)
def test_parts_of_any_name_are_read(names: dict[str, str]) -> None:
    assert is_well_read(archive(parts(**names)))


def test_backslashes_in_names_of_parts_and_in_targets_are_read() -> None:
    written = {name.replace("/", "\\"): data for name, data in parts().items()}
    assert is_well_read(archive(written))
    rels = relationships(
        {
            "rId7": ("worksheet", "worksheets\\sheet1.xml"),
            "rId8": ("styles", "\\xl\\styles.xml"),
            "rId9": ("sharedStrings", "..\\xl\\sharedStrings.xml"),
        }
    )
    assert is_well_read(archive({**parts(), "xl/_rels/workbook.xml.rels": rels}))


def test_a_target_with_escapes_leads_to_the_part_without_them() -> None:
    found = {
        name.replace("sheet1", "She et1"): data.replace("sheet1", "She%20et1")
        for name, data in parts().items()
        if isinstance(data, str)
    }
    assert is_well_read(archive(found))


def test_capitals_do_not_count() -> None:
    assert is_well_read(archive({name.upper(): data for name, data in parts().items()}))


def test_the_list_of_content_types_leads_where_relationships_are_missing() -> None:
    written = parts(workbook="a/b.xml", styles_part="c.xml", texts_part="d.xml")
    del written["_rels/.rels"]
    written["a/_rels/b.xml.rels"] = relationships({"rId7": ("worksheet", "/xl/worksheets/sheet1.xml")})
    written["[Content_Types].xml"] = f'<Types xmlns="{TYPES}">' + "".join(
        f'<Override PartName="/{part}" ContentType="{SHEET_TYPE}.{type_}+xml"/>'
        for part, type_ in (("a/b.xml", "sheet.main"), ("c.xml", "styles"), ("d.xml", "sharedStrings"))
    ) + "</Types>"  # fmt: skip
    assert is_well_read(archive(written))


def test_parts_that_nothing_leads_to_say_nothing() -> None:
    written = parts(styles_part="xl/styles2.xml")
    written["xl/styles.xml"] = styles(("d-mmm",))
    assert is_well_read(archive(written))


def test_dates_since_1904_are_shown_as_they_were_entered() -> None:
    written = parts(date1904='<workbookPr date1904="1"/>')
    written["xl/styles.xml"] = styles(("d-mmm",))
    _, (row,) = load(archive(written))
    assert row.fields["serial_number"] == "1937-10-19"
    assert [notice.code for notice in row.notices] == ["cell_is_date"]


def long_form(data: bytes, **wrong: int) -> bytes:
    """With the end of an archive that may have 4 GB, as streaming writers of Java always write it."""
    at = data.rfind(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HLL", data, at + 10)
    size = wrong.get("size", size)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    return data[:at] + record + locator + data[at:]


def test_an_archive_in_the_long_form_is_read() -> None:
    assert is_well_read(long_form(archive(parts())))


def test_a_directory_in_the_long_form_is_bounded_too() -> None:
    assert refused(long_form(archive(parts()), size=2**30)).code == "workbook_damaged"
    whole = long_form(archive(parts()))
    assert refused(whole.replace(b"PK\x06\x06", b"PK\x06\x08")).code == "workbook_damaged"


def test_a_part_that_is_listed_twice_is_one_sheet() -> None:
    written = parts()
    again = '<sheet name="Again" sheetId="2" r:id="rId7"/></sheets>'
    written["xl/workbook.xml"] = str(written["xl/workbook.xml"]).replace("</sheets>", again)
    dialect, rows = load(archive(written))
    assert (dialect.sheet, len(rows), dialect.notices) == ("Devices", 1, ())


def test_sheets_of_charts_and_external_parts_are_no_sheets() -> None:
    written = parts()
    rels = str(written["xl/_rels/workbook.xml.rels"])
    written["xl/_rels/workbook.xml.rels"] = rels.replace("/worksheet", "/chartsheet", 1)
    assert refused(archive(written)).code == "workbook_damaged"
    written["xl/_rels/workbook.xml.rels"] = rels.replace('Id="rId7"', 'Id="rId7" TargetMode="External"', 1)
    assert refused(archive(written)).code == "workbook_damaged"


def test_what_is_no_workbook_is_named() -> None:
    document = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": relationships({"rId1": ("officeDocument", "word/document.xml")}),
        "word/document.xml": "<document/>",
    }
    assert refused(archive(document)).code == "file_is_unsupported_workbook"
    binary = {**parts(workbook="xl/workbook.bin"), "xl/workbook.bin": b"\x83\x01"}
    refusal = refused(archive(binary))
    assert refusal.code == "file_is_unsupported_workbook"
    assert "binary Excel workbook (.xlsb)" in refusal.words
    packed = refused(archive({"xl/devices.csv": "Serial Number"}))
    assert (packed.code, "zip archive" in packed.words) == ("file_is_archive", True)


def test_wild_workbooks_with_parts_of_other_names() -> None:
    _, rows = wild("107-workbook2-part.xlsx")
    assert len(rows) == 3
    assert all(row.is_sound and set(row.fields) == {"serial_number", "manufacturer", "model"} for row in rows)
    _, rows = wild("181-styles-other-name.xlsx")
    assert rows[0].fields["product_key"] == "0987000000017"
    assert [notice.code for notice in rows[2].notices] == ["cell_is_date"]

"""Sheets of other programs and formats are named as what they are, whatever the file is called."""

import io
from pathlib import Path

import pytest

from app.domain.catalogue import lookup
from app.intake.rows import UnreadableFile, read
from tests.support.workbooks import archive

WILD = Path(__file__).parents[1] / "samples" / "wild"
EXCEL = "urn:schemas-microsoft-com:office:excel"
ROWS = "<tr><td>Serial Number</td><td>Model</td></tr><tr><td>5CD1</td><td>X</td></tr>"
SPREADSHEET = '<Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet"><Worksheet/></Workbook>'


def refused(data: bytes) -> UnreadableFile:
    with pytest.raises(UnreadableFile) as caught:
        list(read(io.BytesIO(data))[1])
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        f"<table>{ROWS}</table>",
        f'\r\n <TABLE border="1">{ROWS.upper()}</TABLE>',
        f"<html><body><table>{ROWS}</table></body></html>",
        f"<!DOCTYPE html><html><body><table>{ROWS}</table></body></html>",
        f'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><table>{ROWS}</table></html>',
        f'<!-- made by a portal --><html xmlns:x="{EXCEL}"><body>{ROWS}</body></html>',
        f"<style>td {{color: red}}</style><table>{ROWS}</table>",
        f"<meta charset='utf-8'><table>{ROWS}</table>",
        f"<div><table><thead>{ROWS}</thead></table></div>",
        f'MIME-Version: 1.0\nX-Document-Type: Workbook\n\n<html xmlns:x=3D"{EXCEL}">',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_of_html_is_to_be_saved_as_a_workbook(text: str, encoding: str) -> None:
    refusal = refused(text.encode(encoding))
    assert refusal.code == "file_is_html_table"
    assert "Open it in Excel and save it as .xlsx" in refusal.words


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html><html><body>Please sign in</body></html>",
        "<html><form><table><tr><td>Name<input type='password'></td></tr></table></form></html>",
    ],
)
def test_a_page_that_asks_to_sign_in_is_a_download_that_failed(text: str) -> None:
    assert refused(text.encode()).code == "file_is_web_page"


@pytest.mark.parametrize(
    "text",
    [
        f'<?xml version="1.0"?><?mso-application progid="Excel.Sheet"?>{SPREADSHEET}',
        SPREADSHEET,
        '<?xml version="1.0"?>\n<ss:Workbook xmlns:ss="urn:schemas-microsoft-com:office:spreadsheet"/>',
    ],
)
def test_an_xml_spreadsheet_is_to_be_saved_as_a_workbook(text: str) -> None:
    refusal = refused(text.encode())
    assert refusal.code == "file_is_xml_spreadsheet"
    assert "Open it in Excel and save it as .xlsx" in refusal.words


@pytest.mark.parametrize(
    "data, code, word",
    [
        (
            archive({"Index/Document.iwa": b"", "Index/Tables/DataList.iwa": b""}),
            "file_is_numbers_document",
            "Numbers",
        ),
        (archive({"preview.jpg": b"", "Index.zip": b""}), "file_is_numbers_document", "Numbers"),
        (
            archive({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": "<a/>"}),
            "file_is_opendocument",
            ".ods",
        ),
        (archive({"content.xml": "<a/>", "META-INF/manifest.xml": "<a/>"}), "file_is_opendocument", ".ods"),
        (
            b'<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"/>',
            "file_is_opendocument",
            ".ods",
        ),
        (b"ID;PWXL;N;E\r\nP;PGeneral\r\n", "file_is_unsupported_workbook", ".slk"),
        (b"\x09\x04\x06\x00\x00\x00\x10\x00" + bytes(20), "file_is_unsupported_workbook", "old version"),
        (b"<Report><Device/></Report>", "file_is_xml", "OA3"),
    ],
)
def test_sheets_of_other_programs_are_named(data: bytes, code: str, word: str) -> None:
    refusal = refused(data)
    assert (refusal.code, word in refusal.words) == (code, True)
    assert lookup(code).remedy


@pytest.mark.parametrize(
    "name, code",
    [
        ("41-html-saved-as.xls", "file_is_html_table"),
        ("42-table-only.xls", "file_is_html_table"),
        ("63-xml-spreadsheet-2003.xls", "file_is_xml_spreadsheet"),
        ("65-apple.numbers", "file_is_numbers_document"),
    ],
)
def test_wild_files_that_are_no_workbooks(name: str, code: str) -> None:
    assert refused((WILD / name).read_bytes()).code == code


def test_a_serial_number_that_looks_like_markup_is_still_a_row() -> None:
    _, rows = read(io.BytesIO(b"Serial Number,Make,Model\n<5CD1>,HP,X\nID;P1,HP,X\n"))
    assert len(list(rows)) == 2

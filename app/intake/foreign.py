"""Recognises files that are not lists of devices by their first bytes, and says what to do with them.

The file's name does not count: a `.xls` is often a web page or XML, which Excel opens silently. So the
refusal says what the file is, and how to make a readable file from it.
"""

import re
from typing import Final

from app.intake.table import UnreadableFile

CONTROLS: Final = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f\x7f]")
"""Bytes that occur rarely in text."""

_AS_CSV: Final = "Save the sheet as .xlsx without a password, or as 'CSV UTF-8', and upload that file."
_UNPACK: Final = "Unpack it and upload the CSV file inside."
_IN_EXCEL: Final = "Open it in Excel and save it as .xlsx or 'CSV UTF-8', then upload that file."
_LOCKED: Final = f"This is an Excel workbook (.xls, or locked). {_AS_CSV}"
_OLD_SHEET: Final = f"This is an Excel worksheet of an old version (.xls). {_AS_CSV}"
_SIGNATURES: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"\xd0\xcf\x11\xe0", "file_is_unsupported_workbook", _LOCKED),
    (b"%PDF-", "file_is_pdf", "This is a PDF document. Ask its sender for the data as a CSV file."),
    (b"BZh", "file_is_archive", f"This file is compressed (bzip2). {_UNPACK}"),
    (b"\xfd7zXZ\x00", "file_is_archive", f"This file is compressed (xz). {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", "file_is_archive", f"This file is compressed (zstd). {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", "file_is_archive", f"This is a 7z archive. {_UNPACK}"),
    (b"Rar!\x1a\x07", "file_is_archive", f"This is a RAR archive. {_UNPACK}"),
    (b"MSCF", "file_is_cabinet", f"This is a cabinet (.cab). {_UNPACK}"),
    (b"\x89PNG", "file_is_picture", "This is a picture. Upload the CSV file, not a photo of it."),
    (b"\xff\xd8\xff", "file_is_picture", "This is a picture. Upload the CSV file, not a photo of it."),
    (b"SQLite format 3\x00", "file_is_database", "This is a database file. Export its table as CSV."),
    (b"MZ", "file_is_program", "This is a program. Upload the CSV file that it writes."),
    # Excel 2, 3 and 4 wrote a sheet without a container around it.
    (b"\x09\x00\x04\x00", "file_is_unsupported_workbook", _OLD_SHEET),
    (b"\x09\x02\x06\x00", "file_is_unsupported_workbook", _OLD_SHEET),
    (b"\x09\x04\x06\x00", "file_is_unsupported_workbook", _OLD_SHEET),
)  # fmt: skip

_NUMBERS: Final = (
    "This is an Apple Numbers document. In Numbers, choose File > Export To > Excel (.xlsx) or CSV, and "
    "upload that file."
)
_OPEN_DOCUMENT: Final = (
    "This is an OpenDocument sheet (.ods). Save it as .xlsx or CSV in the program that made it, and upload "
    "that file."
)
_HTML_TABLE: Final = (
    f"This is a web page with a table, saved under the name of a workbook (.xls). {_IN_EXCEL}"
)
_XML_SPREADSHEET: Final = f"This is an XML Spreadsheet 2003, often saved under the name .xls. {_IN_EXCEL}"

_MARKUP: Final = re.compile(r"\s*<(?=[!?a-z])", re.IGNORECASE)
_FIRST_TAG: Final = re.compile(r"(?:\s|<\?.*?\?>|<!--.*?-->|<!doctype[^>]*>)*<([a-z][\w:.-]*)", re.I | re.S)
_OFFICE: Final = re.compile(r"urn:schemas-microsoft-com:office:(excel|spreadsheet)", re.IGNORECASE)
_TABLE: Final = re.compile(r"<t(?:able|head|body|r)\b.*?<t[dh]\b", re.IGNORECASE | re.DOTALL)
_FORM: Final = re.compile(r"<(form|input)\b|type=[\"']?password", re.IGNORECASE)
_HTML_TAGS: Final = frozenset(
    {"html", "table", "head", "body", "meta", "style", "div", "p", "font", "center", "title", "span", "b",
     "link", "script", "thead", "tbody", "tr", "h1", "h2", "h3", "br", "base"}
)  # fmt: skip

_TEXT_FORMATS: Final[tuple[tuple[re.Pattern[str], str, str], ...]] = (
    (re.compile(r"\s*<(\?xml|!--|key>|[a-z]\w*[\s>/])", re.IGNORECASE), "file_is_xml",
     "This is an XML document. Upload the devices as a CSV file."),
    (re.compile(r'\s*(\{\s*["}]|\[\s*[\[{"\]])'), "file_is_json",
     "This is JSON, but not one object per line. Write it so, or send it to the API as an order."),
    (re.compile(r"\s*\{\\rtf"), "file_is_rich_text",
     "This is a word processor's document. Save it as plain text (CSV)."),
    (re.compile(r"\s*ID;P[A-Z]{3,}"), "file_is_unsupported_workbook",
     f"This is a SYLK file of a spreadsheet (.slk). {_IN_EXCEL}"),
)  # fmt: skip
_PAGE_ARCHIVE: Final = re.compile(r"\s*(MIME-Version:|From: <?Saved by)", re.IGNORECASE)


def refuse_signatures(data: bytes) -> None:
    """Raises UnreadableFile if the first bytes are those of an unsupported format."""
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise _of_archive(data)
    for magic, code, words in _SIGNATURES:
        # A signature of letters may also begin a serial number, so look for binary data, too.
        if data.startswith(magic) and (not magic.isalnum() or CONTROLS.search(data)):
            raise UnreadableFile(code, words)


def _of_archive(data: bytes) -> UnreadableFile:
    marks = (b"META-INF/manifest.xml", b"mimetype", b"opendocument")
    if b"opendocument.spreadsheet" in data or (b"content.xml" in data and any(m in data for m in marks)):
        return UnreadableFile("file_is_opendocument", _OPEN_DOCUMENT)
    if (b"Index/" in data and b".iwa" in data) or b"Index.zip" in data:
        return UnreadableFile("file_is_numbers_document", _NUMBERS)
    return UnreadableFile("file_is_archive", f"This is a zip archive. {_UNPACK}")


def refuse_text(text: str) -> None:
    """Raises UnreadableFile if a text is of a kind without delimited rows."""
    sheet = as_sheet(text)
    if sheet is not None:
        raise sheet
    if _is_html(text):
        raise UnreadableFile(
            "file_is_web_page",
            "This is a web page. The download probably failed or needs a sign-in: "
            "download the CSV file again.",
        )
    for pattern, code, words in _TEXT_FORMATS:
        if pattern.match(text):
            raise UnreadableFile(code, words)


def is_other_markup(text: str) -> bool:
    """Whether it is a sheet in HTML or XML, or a web page."""
    return as_sheet(text) is not None or _is_html(text)


def as_sheet(text: str) -> UnreadableFile | None:
    """The refusal of a sheet in HTML or XML, which programs save as .xls. None for other files."""
    if _PAGE_ARCHIVE.match(text) and _OFFICE.search(text):
        return UnreadableFile("file_is_html_table", _HTML_TABLE)
    if _MARKUP.match(text) is None:
        return None
    name = _first_tag(text)
    local = name.rpartition(":")[2]
    if local == "workbook" and (_OFFICE.search(text) or "excel.sheet" in text[:1000].lower()):
        return UnreadableFile("file_is_xml_spreadsheet", _XML_SPREADSHEET)
    if name == "office:document" and "opendocument" in text:
        return UnreadableFile("file_is_opendocument", _OPEN_DOCUMENT)
    if _is_html(text) and (_OFFICE.search(text) or (_TABLE.search(text) and not _FORM.search(text))):
        return UnreadableFile("file_is_html_table", _HTML_TABLE)
    return None


def _is_html(text: str) -> bool:
    return _MARKUP.match(text) is not None and (
        re.match(r"\s*<!doctype\s+html\b", text, re.IGNORECASE) is not None or _first_tag(text) in _HTML_TAGS
    )


def _first_tag(text: str) -> str:
    """The name of the first element, in lower case."""
    found = _FIRST_TAG.match(text)
    return "" if found is None else found[1].lower()

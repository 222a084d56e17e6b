"""Finds the parts of a workbook: its list of sheets, its styles, its shared texts.

Parts are found by the types of the relationships that lead to them, or by the archive's list of content
types. Programs may choose any names for parts, so a name means nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import basename, dirname, join, normpath
from typing import Final
from urllib.parse import unquote

from app.intake.table import UnreadableFile
from app.intake.xlsx.archive import Archive, damaged
from app.intake.xlsx.markup import Names, by_local_name, walk

MAX_LISTED: Final = 1_000
"""The most sheets, and relations to them, that are read."""
MAX_STYLES: Final = 65_536
"""As many as Excel allows."""
MAX_NAME: Final = 100
TRUE: Final = frozenset({"1", "true", "on"})
"""Values of a true attribute."""

_BUILT_IN_DATES: Final = frozenset((*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)))
_CONTENT_TYPES: Final = "[Content_Types].xml"
_NO_WORKBOOK: Final = (
    "This is an office document, but not an Excel workbook (.xlsx). Save the sheet as .xlsx or "
    "'CSV UTF-8 (comma delimited)' and upload that."
)
_BINARY: Final = (
    "This is a binary Excel workbook (.xlsb). Open it in Excel, save it as .xlsx or 'CSV UTF-8 (comma "
    "delimited)', and upload that."
)
_ARCHIVE: Final = "This is a zip archive. Unpack it and upload the file with the devices inside."


@dataclass(frozen=True, slots=True)
class Sheet:
    name: str
    part: str
    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class Book:
    """The worksheets in the order of their tabs, and their shared parts."""

    sheets: tuple[Sheet, ...]
    styles: str | None
    texts: str | None
    counts_from_1904: bool
    """Whether dates count from 1904, as in Excel for Macintosh."""


@dataclass(frozen=True, slots=True)
class _Relation:
    id: str
    type: str
    """The last word of its type. The words before it differ between the two forms of the format."""
    part: str


def book_of(archive: Archive) -> Book:
    """Raises UnreadableFile for an archive that is not a workbook, or has no worksheet."""
    types = _content_types(archive)
    relations = list(_relations(archive, ""))
    if _CONTENT_TYPES not in archive and not relations:
        raise UnreadableFile("file_is_archive", _ARCHIVE)
    part = (
        _of_type(relations, "officeDocument") or _of_content(archive, types, ".main+xml") or "xl/workbook.xml"
    )
    if part not in archive:
        raise UnreadableFile("file_is_unsupported_workbook", _NO_WORKBOOK)
    if part.lower().endswith(".bin"):
        raise UnreadableFile("file_is_unsupported_workbook", _BINARY)
    relations = list(_relations(archive, part))
    listed, counts_from_1904 = _listed(archive, part)
    worksheets = {found.id: found.part for found in relations if found.type == "worksheet"}
    # By part: a part that is listed twice is the same sheet.
    sheets: dict[str, Sheet] = {}
    for name, id, is_hidden in listed:
        if (own := worksheets.get(id)) is not None:
            sheets.setdefault(own, Sheet(name, own, is_hidden))
    if not sheets:
        raise damaged()
    return Book(
        tuple(sheets.values()),
        _of_type(relations, "styles") or _of_content(archive, types, ".styles+xml"),
        _of_type(relations, "sharedStrings") or _of_content(archive, types, ".sharedStrings+xml"),
        counts_from_1904,
    )


def _listed(archive: Archive, part: str) -> tuple[list[tuple[str, str, bool]], bool]:
    """The sheets (name, relation, whether hidden), and whether dates count from 1904."""
    names = Names()
    listed: list[tuple[str, str, bool]] = []
    root = ""
    counts_from_1904 = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal root, counts_from_1904
        kind = names.of(name, attributes)
        root = root or kind
        if kind == "sheet" and len(listed) < MAX_LISTED:
            found = by_local_name(attributes)
            is_hidden = found.get("state", "visible") != "visible"
            listed.append((found.get("name", "")[:MAX_NAME], found.get("id", ""), is_hidden))
        elif kind == "workbookPr":
            counts_from_1904 = by_local_name(attributes).get("date1904") in TRUE

    for _ in walk(archive.open(part), start):
        pass
    if root != "workbook":
        raise UnreadableFile("file_is_unsupported_workbook", _NO_WORKBOOK)
    return listed, counts_from_1904


def _relations(archive: Archive, part: str) -> Iterator[_Relation]:
    """The relations of a part, or of the whole archive, to existing parts."""
    name = join(dirname(part), "_rels", f"{basename(part)}.rels")
    if name not in archive:
        return
    names = Names()
    found: list[dict[str, str]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if names.of(name, attributes) == "Relationship" and len(found) < MAX_LISTED:
            found.append(by_local_name(attributes))

    for _ in walk(archive.open(name), start):
        pass
    for pairs in found:
        if pairs.get("TargetMode") == "External":
            continue
        target = _target(archive, part, pairs.get("Target", ""))
        if target is not None:
            yield _Relation(pairs.get("Id", ""), pairs.get("Type", "").rpartition("/")[2], target)


def _target(archive: Archive, part: str, written: str) -> str | None:
    path = written.replace("\\", "/")
    path = normpath(path if path.startswith("/") else join("/", dirname(part), path)).lstrip("/")
    return next((name for name in (path, unquote(path)) if name in archive), None)


def _of_type(relations: list[_Relation], type_: str) -> str | None:
    return next((found.part for found in relations if found.type == type_), None)


def _content_types(archive: Archive) -> dict[str, str]:
    """Part -> content type, for parts that are listed one by one."""
    types: dict[str, str] = {}
    if _CONTENT_TYPES not in archive:
        return types
    names = Names()

    def start(name: str, attributes: dict[str, str]) -> None:
        if names.of(name, attributes) == "Override" and len(types) < MAX_LISTED:
            found = by_local_name(attributes)
            types[found.get("PartName", "").replace("\\", "/").lstrip("/")] = found.get("ContentType", "")

    for _ in walk(archive.open(_CONTENT_TYPES), start):
        pass
    return types


def _of_content(archive: Archive, types: dict[str, str], ending: str) -> str | None:
    """The part of this content type, for archives whose relationships do not lead to it."""
    return next(
        (
            part
            for part, held in types.items()
            if part in archive and held.endswith(ending) and ("spreadsheet" in held or "excel" in held)
        ),
        None,
    )


class Styles:
    """For each style number: whether it shows dates, and to how many digits it pads."""

    def __init__(
        self,
        dates: frozenset[int] = frozenset(),
        digits: dict[int, int] | None = None,
        *,
        counts_from_1904: bool = False,
    ) -> None:
        self.dates = dates
        self.digits = digits or {}
        self.counts_from_1904 = counts_from_1904

    @classmethod
    def of(cls, archive: Archive, book: Book) -> "Styles":
        if book.styles is None:
            return cls(counts_from_1904=book.counts_from_1904)
        names = Names()
        formats: dict[int, str] = {}
        used: list[int] = []
        inside = False

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal inside
            name = names.of(name, attributes)
            if name == "cellXfs":
                inside = True
            elif name == "numFmt" and len(formats) < MAX_STYLES:
                found = by_local_name(attributes)
                formats[_number(found.get("numFmtId"))] = found.get("formatCode", "")[:255]
            elif name == "xf" and inside and len(used) < MAX_STYLES:
                used.append(_number(by_local_name(attributes).get("numFmtId")))

        def end(name: str) -> None:
            nonlocal inside
            if names[name] == "cellXfs":
                inside = False

        for _ in walk(archive.open(book.styles), start, end):
            pass
        dates = {at for at, id in enumerate(used) if id in _BUILT_IN_DATES or _is_date(formats.get(id, ""))}
        digits = {
            at: len(code)
            for at, id in enumerate(used)
            if (code := formats.get(id, "")) and not code.strip("0") and len(code) < 64
        }
        return cls(frozenset(dates), digits, counts_from_1904=book.counts_from_1904)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _is_date(code: str) -> bool:
    """Whether a format code has parts of a date outside quotations, brackets and escapes."""
    plain, quoted, skip = "", "", False
    for character in code.lower():
        if skip:
            skip = False
        elif quoted:
            quoted = "" if character == quoted else quoted
        elif character in '"[':
            quoted = '"' if character == '"' else "]"
        elif character in "\\_*":
            skip = True
        else:
            plain += character
    return any(part in plain for part in ("yy", "dd", "mmm", "d/", "/d", "h:", ":m", "m/", "d.", ".m", "d-"))

"""The parts of a workbook that say how its sheets are to be read: their list and their styles."""

from dataclasses import dataclass
from posixpath import normpath
from typing import Final

from app.intake.archive import Archive, damaged
from app.intake.markup import Names, attributes, walk
from app.intake.table import UnreadableFile

MAX_LISTED: Final = 1_000
"""Sheets, and relations to them, that are looked at."""
MAX_STYLES: Final = 65_536
"""As many as Excel allows."""
MAX_NAME: Final = 100

_BUILT_IN_DATES: Final = frozenset((*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)))


@dataclass(frozen=True, slots=True)
class Sheet:
    name: str
    part: str


def sheets_of(archive: Archive) -> list[Sheet]:
    """The worksheets in the order of their tabs. UnreadableFile when there are none."""
    if "xl/workbook.xml" not in archive:
        raise UnreadableFile(
            "excel_workbook",
            "This is an office document, but not an Excel workbook (.xlsx). Save the sheet as .xlsx or "
            "'CSV UTF-8 (comma delimited)' and upload that.",
        )
    names = Names()
    listed: list[tuple[str, str]] = []
    targets: dict[str, str] = {}

    def sheet(name: str, pairs: list[str]) -> None:
        if names.of(name, pairs) == "sheet" and len(listed) < MAX_LISTED:
            found = attributes(pairs)
            listed.append((found.get("name", "")[:MAX_NAME], found.get("id", "")))

    def relation(name: str, pairs: list[str]) -> None:
        if names.of(name, pairs) == "Relationship" and len(targets) < MAX_LISTED:
            found = attributes(pairs)
            if found.get("Type", "").endswith("/worksheet"):
                targets[found.get("Id", "")] = _path(found.get("Target", ""))

    for _ in walk(archive.open("xl/workbook.xml"), sheet):
        pass
    for _ in walk(archive.open("xl/_rels/workbook.xml.rels"), relation):
        pass
    found = [Sheet(name, targets[id]) for name, id in listed if id in targets and targets[id] in archive]
    if not found:
        raise damaged()
    return found


def _path(target: str) -> str:
    return normpath(target.lstrip("/") if target.startswith("/") else f"xl/{target}")


class Styles:
    """By the number of a cell's style: whether it shows dates, and to how many digits it fills up."""

    def __init__(self, dates: frozenset[int] = frozenset(), digits: dict[int, int] | None = None) -> None:
        self.dates = dates
        self.digits = digits or {}

    @classmethod
    def of(cls, archive: Archive) -> "Styles":
        if "xl/styles.xml" not in archive:
            return cls()
        names = Names()
        formats: dict[int, str] = {}
        used: list[int] = []
        inside = False

        def start(name: str, pairs: list[str]) -> None:
            nonlocal inside
            name = names.of(name, pairs)
            if name == "cellXfs":
                inside = True
            elif name == "numFmt" and len(formats) < MAX_STYLES:
                found = attributes(pairs)
                formats[_number(found.get("numFmtId"))] = found.get("formatCode", "")[:255]
            elif name == "xf" and inside and len(used) < MAX_STYLES:
                used.append(_number(attributes(pairs).get("numFmtId")))

        def end(name: str) -> None:
            nonlocal inside
            if names.of(name) == "cellXfs":
                inside = False

        for _ in walk(archive.open("xl/styles.xml"), start, end):
            pass
        dates = {at for at, id in enumerate(used) if id in _BUILT_IN_DATES or _is_date(formats.get(id, ""))}
        digits = {
            at: len(code)
            for at, id in enumerate(used)
            if (code := formats.get(id, "")) and not code.strip("0") and len(code) < 64
        }
        return cls(frozenset(dates), digits)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _is_date(code: str) -> bool:
    """A format code with parts of a date outside of quotations, brackets and escapes."""
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

"""The parts of a workbook that say how its sheets are to be read: their list, styles, shared texts."""

import os
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from posixpath import normpath
from typing import IO, Final

from app.intake.archive import Archive, damaged
from app.intake.markup import attributes, local, walk
from app.intake.records import MAX_FIELD
from app.intake.table import UnreadableFile

MAX_LISTED: Final = 1_000
"""Sheets, and relations to them, that are looked at."""
MAX_STYLES: Final = 65_536
"""As many as Excel allows."""
HELD: Final = 48 * 1024**2
"""Bytes of shared texts that are held in memory; further ones wait in a temporary file."""
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
    listed: list[tuple[str, str]] = []
    targets: dict[str, str] = {}

    def sheet(name: str, pairs: list[str]) -> None:
        if local(name) == "sheet" and len(listed) < MAX_LISTED:
            found = attributes(pairs)
            listed.append((found.get("name", "")[:MAX_NAME], found.get("id", "")))

    def relation(name: str, pairs: list[str]) -> None:
        if local(name) == "Relationship" and len(targets) < MAX_LISTED:
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
        formats: dict[int, str] = {}
        used: list[int] = []
        inside = False

        def start(name: str, pairs: list[str]) -> None:
            nonlocal inside
            name = local(name)
            if name == "cellXfs":
                inside = True
            elif name == "numFmt" and len(formats) < MAX_STYLES:
                found = attributes(pairs)
                formats[_number(found.get("numFmtId"))] = found.get("formatCode", "")[:255]
            elif name == "xf" and inside and len(used) < MAX_STYLES:
                used.append(_number(attributes(pairs).get("numFmtId")))

        def end(name: str) -> None:
            nonlocal inside
            if local(name) == "cellXfs":
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


class SharedTexts(Sequence[str]):
    """The texts that cells of all sheets point to. Beyond HELD bytes they wait in a temporary file."""

    def __init__(self, archive: Archive) -> None:
        self._held: list[str] = []
        self._size = 0
        self._places = array("Q", [0])
        self._file: IO[bytes] | None = None
        if "xl/sharedStrings.xml" in archive:
            self._read(archive)

    def __len__(self) -> int:
        return len(self._held) + len(self._places) - 1

    def __getitem__(self, at: int) -> str:  # type: ignore[override]
        """Raises IndexError for a text that is not there."""
        if at < len(self._held):
            return self._held[at]
        at -= len(self._held)
        if self._file is None or at + 1 >= len(self._places):
            raise IndexError(at)
        start, end = self._places[at], self._places[at + 1]
        return os.pread(self._file.fileno(), end - start, start).decode()

    def _read(self, archive: Archive) -> None:
        pieces: list[str] = []
        size = 0
        collecting = phonetic = False

        def start(name: str, _: list[str]) -> None:
            nonlocal collecting, phonetic, size
            name = local(name)
            if name == "si":
                pieces.clear()
                size = 0
            elif name == "rPh":
                phonetic = True
            elif name == "t":
                collecting = not phonetic

        def text(data: str) -> None:
            nonlocal size
            if collecting:
                size += len(data)
                # One character more than a cell may have shows that it had too many.
                if size <= MAX_FIELD or len(pieces) < 2:
                    pieces.append(data[: MAX_FIELD + 1])

        def end(name: str) -> None:
            nonlocal collecting, phonetic
            name = local(name)
            if name == "si":
                self._add("".join(pieces)[: MAX_FIELD + 1])
            elif name == "rPh":
                phonetic = False
            elif name == "t":
                collecting = False

        for _ in walk(archive.open("xl/sharedStrings.xml"), start, end, text):
            pass
        if self._file is not None:
            self._file.flush()

    def _add(self, text: str) -> None:
        if self._file is None:
            self._size += len(text) + 64
            if self._size <= HELD:
                self._held.append(text)
                return
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._places.append(self._places[-1] + self._file.write(text.encode("utf-8", "replace")))

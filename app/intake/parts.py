"""The parts of a workbook that say how its sheets are to be read: their list, styles, shared texts."""

import os
import re
import tempfile
import weakref
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from posixpath import normpath
from typing import IO, Final

from app.intake.archive import Archive, damaged
from app.intake.bounds import CHUNK
from app.intake.markup import Names, Walk, attributes, walk
from app.intake.pieces import Pieces, Rest
from app.intake.records import MAX_FIELD
from app.intake.table import UnreadableFile

MAX_LISTED: Final = 1_000
"""Sheets, and relations to them, that are looked at."""
MAX_STYLES: Final = 65_536
"""As many as Excel allows."""
HELD: Final = 48 * 1024**2
"""Bytes of shared texts that are held in memory; further ones wait in a temporary file."""
MAX_NAME: Final = 100

_LIST: Final = re.compile(rb"<sst(?: [^<>]*)?(?<!/)>")
_TEXT: Final = re.compile(r'\s*<si><t(?: xml:space="preserve")?>([^<&]*)</t>')
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


class SharedTexts(Sequence[str]):
    """The texts that cells of all sheets point to. Beyond HELD bytes they wait in a temporary file."""

    def __init__(self, archive: Archive) -> None:
        self.held: list[str] = []
        """The first ones."""
        self.has_odd = False
        """Whether one of them is too long or has escapes."""
        self._size = 0
        self._places = array("Q", [0])
        self._file: IO[bytes] | None = None
        if "xl/sharedStrings.xml" in archive:
            self._read(archive)

    def __len__(self) -> int:
        return len(self.held) + len(self._places) - 1

    def __getitem__(self, at: int) -> str:  # type: ignore[override]
        """Raises IndexError for a text that is not there."""
        if at < len(self.held):
            return self.held[at]
        at -= len(self.held)
        if self._file is None or at + 1 >= len(self._places):
            raise IndexError(at)
        start, end = self._places[at], self._places[at + 1]
        return os.pread(self._file.fileno(), end - start, start).decode()

    def _read(self, archive: Archive) -> None:
        rest = Rest(archive.open("xl/sharedStrings.xml"))
        reader = _TextReader(self._add)
        walk = Walk(reader.start, reader.end, reader.text)
        if rest.skip_to(_LIST, walk) and reader.last == "sst" and walk.encoding == "utf-8":
            self._scan(Pieces(rest, "</si>"))
        for _ in walk.through(rest):
            pass
        if self._file is not None:
            self._file.flush()

    def _scan(self, pieces: Pieces) -> None:
        """Plain texts by pattern, up to the first that is written in another way."""
        while found := pieces.take():
            for number, piece in enumerate(found):
                plain = _TEXT.fullmatch(piece)
                if plain is None:
                    pieces.leave(found[number:])
                    return
                self._add(plain.group(1)[: MAX_FIELD + 1])
        pieces.leave([])

    def _add(self, text: str) -> None:
        if self._file is None:
            self._size += len(text) + 64
            if self._size <= HELD:
                self.held.append(text)
                if "_x" in text or len(text) > MAX_FIELD:
                    self.has_odd = True
                return
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._places.append(self._places[-1] + self._file.write(text.encode("utf-8", "replace")))


class _TextReader:
    """Shared texts by expat: pieces of different looks put together, readings of characters left out."""

    def __init__(self, add: Callable[[str], None]) -> None:
        self.last = ""
        names = Names()
        pieces: list[str] = []
        size = 0
        collecting = phonetic = False

        def start(name: str, pairs: list[str]) -> None:
            nonlocal collecting, phonetic, size
            kind = self.last = names.of(name, pairs)
            if kind == "si":
                pieces.clear()
                size = 0
            elif kind == "rPh":
                phonetic = True
            elif kind == "t":
                collecting = not phonetic

        def text(data: str) -> None:
            nonlocal size
            if collecting:
                size += len(data)
                # One piece more than a cell may have shows that it has too much.
                if size <= MAX_FIELD + CHUNK:
                    pieces.append(data)

        def end(name: str) -> None:
            nonlocal collecting, phonetic
            kind = names.of(name)
            if kind == "si":
                add("".join(pieces)[: MAX_FIELD + 1])
            elif kind == "rPh":
                phonetic = False
            elif kind == "t":
                collecting = False

        self.start, self.text, self.end = start, text, end

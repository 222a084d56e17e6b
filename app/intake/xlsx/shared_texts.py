"""Reads the shared texts of a workbook: the list of strings that its cells point to by number.

Spreadsheet programs keep every text in one list, which may be larger than the sheet: four hundred megabytes
for a hundred thousand hashes. It is read once; beyond HELD bytes, texts wait in a temporary file.
"""

import os
import sys
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable
from typing import IO, Final

from app.intake.table import MAX_FIELD, Source, UnreadableFile
from app.intake.xlsx.archive import Archive
from app.intake.xlsx.markup import Names, Walk, has_escapes, without_escapes
from app.intake.xlsx.runs import TextRuns, walk_runs

HELD: Final = 92 * 1024**2
"""The most bytes of shared texts in memory. Others wait in a temporary file."""
MAX_WAITING: Final = 16 * 1024**2
"""The most texts in that file. Each one's position takes 8 bytes of memory."""


class SharedTexts:
    """The texts of a workbook by number. Beyond HELD bytes they wait in a temporary file."""

    def __init__(self, archive: Archive, part: str | None) -> None:
        self._spool = archive.spool
        self._held: list[str] = []
        """The texts in memory."""
        self._size = 0
        self._ends = array("Q", [0])
        """The end of each text in the file. The first one begins at 0."""
        self._file: IO[bytes] | None = None
        if part is not None:
            self._read(archive.open(part))

    def __len__(self) -> int:
        return len(self._held) + len(self._ends) - 1

    def __getitem__(self, at: int) -> str:
        """Raises IndexError for a missing text."""
        if at < len(self._held) or self._file is None:
            return self._held[at]
        at -= len(self._held)
        start, end = self._ends[at], self._ends[at + 1]
        return os.pread(self._file.fileno(), end - start, start).decode()

    def all_of(self, numbers: Iterable[str]) -> list[str]:
        """The texts of many cells at once. Raises IndexError for a missing text, ValueError for a wrong
        number."""
        if self._file is None:
            return [*map(self._held.__getitem__, map(int, numbers))]
        return [*map(self.__getitem__, map(int, numbers))]

    def _read(self, part: Source) -> None:
        reader = _TextReader(self._add)
        for _ in walk_runs(part, Walk(reader.start, reader.end, reader.pieces), TextRuns(self._add_all)):
            pass
        if self._file is not None:
            self._file.flush()

    def _add_all(self, texts: list[str]) -> None:
        """Like `_add` for each of them, but all at once if possible."""
        joined = "".join(texts)
        size = self._size + len(joined) + 64 * len(texts)
        if self._file is None and size <= HELD and joined.isascii() and not has_escapes(joined):
            self._size = size
            self._held += texts
        else:
            for text in texts:
                self._add(text)

    def _add(self, text: str) -> None:
        if len(text) <= MAX_FIELD:
            text = without_escapes(text)
        self._size += sys.getsizeof(text) + 16
        if self._file is None and self._size <= HELD:
            self._held.append(text)
        else:
            self._write(text.encode())

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._spool.directory)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._spool.fill(len(data))
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        if len(self._ends) > MAX_WAITING:
            raise UnreadableFile(
                "file_too_large",
                f"The workbook has more than {MAX_WAITING:,} different texts. Cut it into smaller files.",
            )


class _TextReader:
    """Handlers for the list: they join differently formatted pieces and leave out phonetic readings."""

    def __init__(self, add: Callable[[str], None]) -> None:
        names = Names()
        self.pieces: list[str] = []
        pieces = self.pieces
        found = ""
        phonetic = False

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal phonetic, found
            kind = names.of(name, attributes)
            if kind == "t":
                pieces.clear()
            elif kind == "si":
                found = ""
            elif kind == "rPh":
                phonetic = True

        def end(name: str) -> None:
            nonlocal phonetic, found
            kind = names[name]
            if kind == "t":
                if not phonetic and len(found) <= MAX_FIELD:
                    found += "".join(pieces)
            elif kind == "si":
                add(found[: MAX_FIELD + 1])
            elif kind == "rPh":
                phonetic = False

        self.start, self.end = start, end

"""Opens a workbook's zip archive without trusting it.

Sizes in its directory are checked before anything is unpacked, and counted again while unpacking, because a
directory can lie. A zip needs a seekable file, so the stream is written to a temporary one, which stays in
memory while it is small. A large one belongs on a disk: if /tmp is memory, the caller names another
directory.
"""

import struct
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from app.intake.bounds import CHUNK, MAX_BYTES, at_once, check_ratio, too_large
from app.intake.table import Head, Source, UnreadableFile

IN_MEMORY: Final = 8 * 1024**2
"""Bytes up to which the temporary file stays in memory."""
MAX_SPOOL: Final = 1024**3
"""The most bytes of all temporary files of one workbook: enough for the texts of 250,000 devices with
hashes."""
MAX_DIRECTORY: Final = 1024**2
"""The most bytes of the directory: some thousand parts. A workbook has dozens."""

_END: Final = b"PK\x05\x06"
_END_64: Final = b"PK\x06\x07"
_RECORD_64: Final = b"PK\x06\x06"
_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError, ValueError,
    OverflowError, KeyError, IndexError, OSError,
)  # fmt: skip
"""Exceptions of zipfile for archives that are broken on purpose."""


@dataclass(slots=True)
class Spool:
    """The directory for a workbook's temporary files, and their most bytes."""

    directory: Path | None = None
    """None: the system's directory for temporary files."""
    limit: int = MAX_SPOOL
    breathe: Callable[[], None] = at_once
    used: int = 0

    def fill(self, size: int) -> None:
        """Called before bytes are written. Raises UnreadableFile if they are too many."""
        self.used += size
        if self.used > self.limit:
            raise UnreadableFile(
                "workbook_too_large",
                f"The workbook takes more than {self.limit / 1024**2:,.0f} MB when its texts are unpacked. "
                "Save the sheet as 'CSV UTF-8 (comma delimited)' and upload that: it is read without being "
                "unpacked, however large it is.",
            )


class Archive:
    """The parts of a workbook by name. Raises only UnreadableFile, for damage and for bombs."""

    def __init__(self, head: Head, stream: Source, spool: "Spool | None" = None) -> None:
        self.spool = spool = spool or Spool()
        directory = None if spool.directory is None else str(spool.directory)
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=directory)  # noqa: SIM115
        # It must stay open after this returns, because rows are read one by one.
        weakref.finalize(self, self._file.close)
        self._file.write(head.data)
        while not head.whole and (piece := stream.read(CHUNK)):
            spool.fill(len(piece))
            self._file.write(piece)
        self._check_end()
        try:
            self._zip = zipfile.ZipFile(self._file)
            parts = self._zip.infolist()
        except _DAMAGE:
            raise damaged() from None
        if sum(part.file_size for part in parts) > MAX_BYTES:
            raise too_large()
        # Windows programs write backslashes. Case is ignored.
        self._parts = {_name(part.filename): part for part in parts}

    def __contains__(self, name: str) -> bool:
        return _name(name) in self._parts

    def open(self, name: str) -> "Part":
        """Raises UnreadableFile if there is no such part."""
        part = self._parts.get(_name(name))
        if part is None:
            raise damaged()
        check_ratio(part.file_size, part.compress_size)
        if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or part.flag_bits & 1:
            raise damaged()
        try:
            return Part(self, self._zip.open(part), part.compress_size)
        except _DAMAGE:
            raise damaged() from None

    def _check_end(self) -> None:
        """Checks the directory's own size before zipfile reads all of it into memory."""
        self._file.seek(0, 2)
        size = self._file.tell()
        start = max(0, size - 65536 - 22)
        self._file.seek(start)
        tail = self._file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) - at < 22:
            raise damaged()
        (directory,) = struct.unpack_from("<L", tail, at + 12)
        if tail[max(0, at - 20) : at].startswith(_END_64):
            # The zip64 form is for archives over 4 GB, but some programs always write it.
            record = tail[max(0, at - 76) : at - 20]
            if not record.startswith(_RECORD_64) or len(record) < 56:
                raise damaged()
            (directory,) = struct.unpack_from("<Q", record, 40)
        if directory > MAX_DIRECTORY:
            raise too_large() if size > MAX_BYTES else damaged()
        self._file.seek(0)


class Part:
    """One part, unpacked while it is read."""

    def __init__(self, archive: Archive, stream: IO[bytes], packed: int) -> None:
        self._archive = archive  # keeps the file open
        self._stream = stream
        self._packed = packed
        self._given = 0

    def read(self, size: int = -1, /) -> bytes:
        self._archive.spool.breathe()
        try:
            data = self._stream.read(CHUNK if size < 0 else size)
        except _DAMAGE:
            raise damaged() from None
        self._given += len(data)
        check_ratio(self._given, self._packed)
        return data


def _name(written: str) -> str:
    return written.replace("\\", "/").casefold().lstrip("/")


def damaged() -> UnreadableFile:
    return UnreadableFile(
        "workbook_damaged",
        "The workbook is damaged, or written by a program that does not keep to the format. "
        "Open it in a spreadsheet program, save it as a new .xlsx and upload that.",
    )

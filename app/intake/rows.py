"""Reads a file of any known format: bytes in, rows out.

Only this module decides which reader gets a file, by its first 64 KiB. A new format is one module with
`claims` and `read` (see `Reader`) and one entry in `READERS`. Memory stays bounded for a file of any
size, because rows are made while the stream is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from app.intake import json_lines, oa3
from app.intake.bounds import GZIP, Inflated, Limited, at_once
from app.intake.columns import FIELDS
from app.intake.csv import delimited
from app.intake.profiles import Profile
from app.intake.table import Dialect, Head, Kind, Notice, Row, Source, UnreadableFile, Wanted
from app.intake.text import encodings
from app.intake.xlsx import workbook
from app.intake.xlsx.archive import MAX_SPOOL, Spool

__all__ = ["FIELDS", "Dialect", "Kind", "Notice", "Row", "UnreadableFile", "Wanted", "read"]

SNIFF: Final = 64 * 1024
"""Bytes that are examined before the dialect is fixed."""


class Reader(Protocol):
    """One format, implemented by a module: `claims` looks only at the head, `read` reads everything.

    A profile is a supplier's saved mapping, which outranks names and content for the columns in it.
    """

    def claims(self, head: Head) -> bool: ...

    def read(
        self, head: Head, stream: Source, profile: Profile | None = None
    ) -> tuple[Dialect, Iterator[Row]]: ...


READERS: Final[tuple[Reader, ...]] = (workbook, oa3, json_lines, delimited)
"""In the order in which they are asked; delimited text claims everything and comes last."""


def read(
    stream: BinaryIO,
    profile: Profile | None = None,
    *,
    wanted: Wanted | None = None,
    spool: Path | None = None,
    max_spool: int = MAX_SPOOL,
    breathe: Callable[[], None] = at_once,
) -> tuple[Dialect, Iterator[Row]]:
    """Finds out how the file is written and yields its rows one by one.

    `profile` is a supplier's saved mapping, which outranks names and content for the columns in it. `wanted`
    has the user's options; an unknown encoding raises ValueError. `spool` is a directory on a disk for what
    is too big for memory, with at most `max_spool` bytes. `breathe` is called whenever bytes are read: it may
    wait, and what it raises ends the reading.

    The stream is read forwards from its present position and is not closed. Rows are read lazily, so the
    stream must stay open until the iterator is exhausted. Raises UnreadableFile, here or (for a damaged
    container) while the rows are read.
    """
    wanted = wanted or Wanted()
    told = wanted.encoding or (profile.encoding if profile is not None else None)
    source: Source = Limited(stream, breathe)
    head = _head(source)
    container = None
    if head.data.startswith(GZIP):
        container = "gzip"
        source = Inflated(head, source, breathe)
        head = _head(source)
        if head.data.startswith(GZIP):
            raise UnreadableFile(
                "file_is_nested_gzip", "This is a gzip file inside a gzip file. Compress it only once."
            )
    if not head.data:
        raise UnreadableFile("empty_file", "The file is empty. Export it again, then upload it.")
    if workbook.claims(head):
        dialect, rows = workbook.read(head, source, profile, wanted, Spool(spool, max_spool, breathe))
    else:
        if wanted.sheet is not None:
            raise UnreadableFile("sheet_unknown", "This is no workbook: it has no sheets to choose from.")
        if told is not None:
            head = replace(head, encoding=encodings.named(told))
        reader = next(reader for reader in READERS if reader.claims(head))
        dialect, rows = reader.read(head, source, profile)
    return replace(dialect, container=container), rows


def _head(stream: Source) -> Head:
    """Reads on, because a socket or pipe may return less than requested. Only an empty result is the end."""
    data = bytearray()
    while len(data) < SNIFF:
        piece = stream.read(SNIFF - len(data))
        if not piece:
            return Head(bytes(data), whole=True)
        data += piece
    return Head(bytes(data), whole=False)

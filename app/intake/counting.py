"""Counts the lines of a compressed file before its rows are read, with little time and memory.

In every format that is written line by line, a row takes at least one line, so few lines prove that there are
few rows. If there are many lines, the rows are counted, because a quoted value may contain line breaks.
"""

import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from app.domain.quota import Quota
from app.intake.bounds import CHUNK, GZIP, Inflated, Limited
from app.intake.row_builder import MAX_ROWS
from app.intake.table import Head, Row, UnreadableFile

PATIENCE: Final = 60.0
"""Seconds. Four gigabytes take 15. If it takes longer, the limits during reading must suffice."""
ENOUGH: Final = 20
"""Times the limit: beyond that the exact number does not matter."""


def lines_within(stream: BinaryIO, limit: int, breathe: Callable[[], None]) -> int | None:
    """The lines of a gzip file, up to ENOUGH times the limit; None for other files or if it takes too long.

    Raises UnreadableFile for damage and for bombs.
    """
    source = Limited(stream, breathe)
    data = source.read(CHUNK)
    if not data.startswith(GZIP):
        return None
    inflated = Inflated(Head(data, whole=False), source, breathe)
    ends = time.monotonic() + PATIENCE
    feeds = returns = 0
    while max(feeds, returns) <= ENOUGH * limit:
        piece = inflated.read(16 * CHUNK)
        if not piece:
            break
        feeds += piece.count(b"\n")
        returns += piece.count(b"\r")
        if time.monotonic() > ends:
            return None
    return max(feeds, returns) + 1


def require_rows_within(rows: Iterator[Row], limit: int, lines: int) -> None:
    """Raises UnreadableFile, with the numbers, if there are more rows than the limit."""
    if any(number > limit for number, _ in enumerate(rows, start=1)):
        raise too_many(limit, lines)


def too_many(limit: int, lines: int) -> UnreadableFile:
    most = ENOUGH * limit
    told = f"about {lines:,}" if lines <= most else f"more than {most:,}"
    room = f"a file may have {limit:,}"
    advice = "Cut it into smaller files"
    if limit < MAX_ROWS:
        room = f"your quota {Quota.STAGED_ROWS} has room for {limit:,} now"
        advice += ", or discard imports that are not needed"
    return UnreadableFile("too_many_rows", f"The file has {told} rows, and {room}. {advice}.")

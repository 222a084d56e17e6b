"""`docs/messages.md`: every code of the catalogue with an example. `python -m tests.messages` writes it.

Titles and remedies come from the catalogue. A test reads and judges each example that is a file, so the page
shows nothing that Registrar would not say.
"""

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from app.domain.identity import IdentityKind, Rules
from app.domain.planning import OrderRules
from app.intake.dry_run import Review
from app.intake.rows import UnreadableFile, read
from simulator.samples import hardware_hash
from tests.support.workbooks import workbook

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TUPLE = "Serial Number,Manufacturer,Model"
HASH = hardware_hash("SYN0001")


@dataclass(frozen=True, slots=True)
class File:
    """A file in which it is said. `shown` is what the page shows in place of what is long or no text."""

    content: bytes
    shown: str


@dataclass(frozen=True, slots=True)
class Said:
    """What is said with it, by the API or of a device."""

    words: str


def lines(*rows: str) -> File:
    text = "\n".join(rows)
    return File(text.encode(), text)


def hashed(
    value: str, shown: str, serial: str = "SYN0001", header: str = "Serial Number,Hardware Hash"
) -> File:
    return File(f"{header}\n{serial},{value}\n".encode(), f"{header}\n{serial},{shown}")


def sheet(shown: str, *rows: Sequence[str | int | float | None], formats: tuple[str, ...] = ()) -> File:
    return File(workbook({"Devices": rows}, formats=formats), shown)


def codes_of(content: bytes) -> set[str]:
    """All findings about a file and its rows, as `registrar validate` reports them."""
    try:
        dialect, rows = read(io.BytesIO(content))
        review = Review(OrderRules(Rules(frozenset(IdentityKind)), 1000), NOW)
        judged = [review.judge(row) for row in rows]
    except UnreadableFile as error:
        return {error.code}
    return {notice.code for notice in dialect.notices} | {
        problem.code for each in judged for problem in each.problems
    }


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content)

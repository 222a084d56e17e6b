"""Columns that mean the same: which of them a row goes by, and what is said where they differ.

Of two models the firmware's name counts, which stands first in the table of names. For LENOVO firmware that
is the machine type and no marketing name, so a column that has one is taken for its rows.
"""

import re
from collections.abc import Sequence
from typing import Final

from app.intake.columns import IDENTITY, Columns, Twin
from app.intake.table import Notice

_MACHINE_TYPE: Final = re.compile(r"[0-9][0-9A-Z]{3}[0-9A-Z]{3,6}")
_OTHER_PARTS: Final = re.compile(r"chassis|asset|product|unit", re.IGNORECASE)
"""Serial numbers of a part or of a book-keeper, which differ from the device's by right."""


def choose(columns: Columns, cells: Sequence[str]) -> tuple[dict[str, int], tuple[Notice, ...]]:
    """The columns that this row goes by, where they are not the usual ones, and what is odd about them."""
    chosen: dict[str, int] = {}
    notices: list[Notice] = []
    for twin in columns.twins:
        filled = [
            (at, cells[at].strip()) for at in (twin.at, *twin.others) if at < len(cells) and cells[at].strip()
        ]
        if not filled:
            continue
        at = _of_lenovo(columns, cells, filled) if twin.field == "model" else None
        at = filled[0][0] if at is None else at
        if at != twin.at:
            chosen[twin.field] = at
        differing = [
            other for other, value in filled if _folded(twin, value) != _folded(twin, cells[at].strip())
        ]
        if differing:
            notices.append(_differ(columns, twin, at, differing))
    return chosen, tuple(notices)


def _of_lenovo(columns: Columns, cells: Sequence[str], filled: list[tuple[int, str]]) -> int | None:
    maker = columns.fields.index("manufacturer") if "manufacturer" in columns.fields else len(cells)
    if maker >= len(cells) or not cells[maker].strip().upper().startswith("LENOVO"):
        return None
    return next((at for at, value in filled if _MACHINE_TYPE.fullmatch(value)), None)


def _folded(twin: Twin, value: str) -> str:
    return value.casefold() if twin.field in IDENTITY else value


def _differ(columns: Columns, twin: Twin, at: int, differing: list[int]) -> Notice:
    used, others = columns.names[at], ", ".join(f"'{columns.names[other]}'" for other in differing)
    contradicting = [other for other in differing if not _OTHER_PARTS.search(columns.names[other])]
    if twin.field in IDENTITY and contradicting and not _OTHER_PARTS.search(used):
        words = f"Columns '{used}' and {others} both mean {twin.field} and differ: whose is the row?"
        return Notice("identity_contradicts", words, used)
    words = f"Column '{used}' is used; {others} means {twin.field} too and has another value."
    return Notice("columns_differ", words, used)

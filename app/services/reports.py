"""Files to take home: the rows of an import that need a hand, and how each row of an order ended.

They are written page by page while they are sent, so that a million rows need no memory, and they are
safe to open: a cell that a spreadsheet would run as a formula is written as text.
"""

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from anyio import to_thread

from app.db import import_rows, imports, orders, registrations
from app.db.paging import PageRequest
from app.db.registrations import Filter
from app.db.sql import Record
from app.domain.catalogue import CATALOGUE, lookup
from app.domain.errors import Conflict, NotFound
from app.domain.ids import PartnerId
from app.domain.imports import MOVING, ImportState, Verdict
from app.intake.columns import ALIASES
from app.runtime import Runtime
from app.services.import_checking import restored

PAGE: Final = 1000
BOM: Final = "\ufeff"
"""Without it, spreadsheets take UTF-8 for the local code page."""
_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r")

ERROR_COLUMNS: Final = ("Registrar row", "Registrar code", "Registrar problem", "Registrar remedy")
RESULT_COLUMNS: Final = (
    "Registrar row",
    "Registrar state",
    "Registrar code",
    "Registrar problem",
    "Registrar remedy",
    "Registrar group tag",
)
_OWN: Final = frozenset((*ERROR_COLUMNS, *RESULT_COLUMNS))
_OF_ORDER: Final = ("line_ref", "serial_number", "manufacturer", "model", "product_key")


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of the file that a report gives back, in its order."""

    names: tuple[str, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, dialect: Mapping[str, Any]) -> "_Columns":
        """Without those that an earlier report added. What had no name gets that of its field."""
        kept = [
            (at, _name(column, named=dialect["header_row"] is not None))
            for at, column in enumerate(dialect["columns"])
            if column["name"] not in _OWN
        ]
        return cls(tuple(name for _, name in kept), tuple(at for at, _ in kept))

    def cells(self, cells: Sequence[str]) -> list[str]:
        return [cells[at] if at < len(cells) else "" for at in self.places]


def _name(column: Mapping[str, str | None], *, named: bool) -> str:
    field = column["field"]
    return ALIASES[field][0] if not named and field else str(column["name"])


def written(lines: Sequence[Sequence[object]]) -> str:
    """Lines of CSV, none of whose cells a spreadsheet would run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([_safe(cell) for cell in line] for line in lines)
    return text.getvalue()


def _safe(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return f"'{text}" if text.startswith(_DANGEROUS) else text


async def errors_of(
    runtime: Runtime, partner_id: PartnerId, import_id: UUID, *, verdict: Verdict
) -> AsyncIterator[bytes]:
    """The rows of this verdict as they came, with what is wrong with them; to be mended and sent again.

    Raises NotFound, or Conflict when there are no rows to give.
    """
    async with runtime.transaction(partner_id) as tx:
        record = await imports.get(tx.session, partner_id, import_id)
    if record is None:
        raise NotFound("not_found", f"There is no import {import_id}.")
    state = ImportState(record["state"])
    if record["dialect"] is None or (state in MOVING and state is not ImportState.COMMITTING):
        raise Conflict("invalid_state", "The file has not been read, so there are no rows.")
    if state in (ImportState.DISCARDED, ImportState.EXPIRED) or record["due_at"] is None:
        raise Conflict("invalid_state", "The import's rows have been deleted.")
    return _errors(runtime, partner_id, import_id, _Columns.of(record["dialect"]), verdict)


async def _errors(
    runtime: Runtime, partner_id: PartnerId, import_id: UUID, columns: _Columns, verdict: Verdict
) -> AsyncIterator[bytes]:
    yield (BOM + written([(*columns.names, *ERROR_COLUMNS)])).encode()
    after = 0
    while True:
        async with runtime.transaction(partner_id) as tx:
            rows = await import_rows.originals(
                tx.session, partner_id, import_id, after=after, limit=PAGE, verdict=verdict.value
            )
        if not rows:
            return
        after = rows[-1]["row_number"]
        yield await to_thread.run_sync(_error_lines, columns, rows)


def _error_lines(columns: _Columns, rows: Sequence[Record]) -> bytes:
    return written(
        [
            (
                *columns.cells(restored(row["original"], row["hash_data"])),
                row["row_number"],
                *_said(row["findings"]),
            )
            for row in rows
        ]
    ).encode()


def _said(findings: Sequence[Mapping[str, str]] | None) -> tuple[str, str, str]:
    """Codes, what is wrong, and what to do: errors if there are any, else everything."""
    found = [(lookup(finding["code"]), finding["detail"]) for finding in findings or ()]
    errors = [one for one in found if one[0].severity == "error"] or found
    remedies = dict.fromkeys(entry.remedy for entry, _ in errors)
    return (
        " ".join(dict.fromkeys(entry.code for entry, _ in errors)),
        " ".join(f"{entry.title}. {detail}" for entry, detail in errors),
        " ".join(remedies),
    )


# --- results --------------------------------------------------------------------------------------


async def result_of(runtime: Runtime, partner_id: PartnerId, order_id: UUID) -> AsyncIterator[bytes]:
    """Every row of the order with its outcome, by row; with the file's own columns if it came from one."""
    async with runtime.transaction(partner_id) as tx:
        if await orders.get(tx.session, partner_id, order_id) is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        file = await imports.of_order(tx.session, partner_id, order_id)
    return _results(runtime, partner_id, order_id, file)


async def _results(
    runtime: Runtime, partner_id: PartnerId, order_id: UUID, file: Record | None
) -> AsyncIterator[bytes]:
    columns = None if file is None else _Columns.of(file["dialect"])
    names = tuple(ALIASES[field][0] for field in _OF_ORDER) if columns is None else columns.names
    yield (BOM + written([(*names, *RESULT_COLUMNS)])).encode()
    after: str | None = None
    while True:
        originals: dict[int, str] = {}
        async with runtime.transaction(partner_id) as tx:
            page = await registrations.list_of_order(
                tx.session, partner_id, order_id, PageRequest(PAGE, after), Filter()
            )
            if file is not None and page.items:
                numbers = [row["row_number"] for row in page.items]
                originals = await import_rows.originals_of(tx.session, partner_id, file["id"], numbers)
        if not page.items:
            return
        yield await to_thread.run_sync(_result_lines, columns, page.items, originals)
        if page.next_token is None:
            return
        after = str(page.items[-1]["row_number"])


def _result_lines(columns: _Columns | None, rows: Sequence[Record], originals: Mapping[int, str]) -> bytes:
    """Hashes are left out: once a device is registered there is none, and until then nobody needs it."""
    lines = []
    for row in rows:
        if columns is None:
            cells: list[object] = [row[field] for field in _OF_ORDER]
        else:
            original = originals.get(row["row_number"])
            cells = [*columns.cells(restored(original, None) if original is not None else [])]
        lines.append((*cells, row["row_number"], row["state"], *_outcome(row), row["group_tag"]))
    return written(lines).encode()


def _outcome(row: Record) -> tuple[str, str, str]:
    entry = CATALOGUE.get(row["error_code"] or "")
    problem = row["error_detail"] or (entry.title if entry else "")
    upstream = " ".join(filter(None, (row["upstream_code"], row["upstream_name"])))
    if upstream and upstream not in problem:
        problem = f"{problem} ({upstream})".strip()
    return row["error_code"] or "", problem, entry.remedy if entry else ""

"""Files to download: an import's rows that need correction, and the outcome of each row of an order.

They are written page by page while being sent, so that a million rows need little memory. They are safe to
open: a cell that a spreadsheet would run as a formula is written as text.
"""

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from anyio import to_thread

from app.db import import_rows, imports, orders, registration_lists
from app.db.paging import PageRequest
from app.db.registration_lists import Filter
from app.domain.actor import Principal
from app.domain.catalogue import CATALOGUE
from app.domain.errors import Conflict, NotFound
from app.domain.former_codes import stored
from app.domain.imports import MOVING, Import, ImportState, Verdict
from app.domain.registration import Registration
from app.domain.staged import Original
from app.intake.columns import WRITTEN
from app.intake.corrections import Corrections, Pairs, disarmed
from app.intake.devices import kept_of
from app.intake.problems import Problem
from app.intake.profiles import Profile
from app.runtime import Runtime
from app.services.imports.checking import restored

PAGE: Final = 1000
BOM: Final = "\ufeff"
"""Without this mark, spreadsheets read UTF-8 as the local code page."""

RESULT_COLUMNS: Final = ("row", "state", "code", "problem", "remedy", "group tag")
"""Columns before the file's own, as in the file of rows to correct."""
_OF_ORDER: Final = ("line_ref", "serial_number", "manufacturer", "model", "product_key")


async def errors_of(
    runtime: Runtime, principal: Principal, import_id: UUID, *, verdict: Verdict, with_hashes: bool
) -> AsyncIterator[bytes]:
    """Returns the rows with this verdict as they came, with their findings, to be corrected and sent again.

    If the caller may not read hashes, their cells are empty.

    Raises NotFound, or Conflict if there are no rows.
    """
    async with runtime.reading(principal) as tx:
        record = await imports.get(tx, import_id)
    if record is None:
        raise NotFound("not_found", f"There is no import {import_id}.")
    state = record.state
    if record.dialect is None or (state in MOVING and state is not ImportState.COMMITTING):
        raise Conflict("invalid_state", "The file has not been read, so there are no rows.")
    if state in (ImportState.REFUSED, ImportState.DISCARDED, ImportState.EXPIRED) or record.due_at is None:
        raise Conflict("invalid_state", "The import's rows have been deleted.")
    pairs = tuple((column["name"], column["field"]) for column in record.dialect["columns"])
    profile = None if record.profile is None else Profile.parse(record.profile)
    written = bytearray()
    corrections = Corrections(written.extend, pairs, profile, with_hashes=with_hashes)
    return _errors(runtime, principal, import_id, pairs, verdict, corrections, written)


async def _errors(
    runtime: Runtime,
    principal: Principal,
    import_id: UUID,
    pairs: Pairs,
    verdict: Verdict,
    corrections: Corrections,
    written: bytearray,
) -> AsyncIterator[bytes]:
    after = 0
    while True:
        yield bytes(written)
        written.clear()
        async with runtime.reading(principal) as tx:
            rows = await import_rows.originals(tx, import_id, after=after, limit=PAGE, verdict=verdict.value)
        if not rows:
            return
        after = rows[-1].row_number
        await to_thread.run_sync(_add_rows, corrections, rows, pairs)


def _add_rows(corrections: Corrections, rows: Sequence[Original], pairs: Pairs) -> None:
    for row in rows:
        cells, own = restored(row.original, row.hash_data)
        columns = pairs if own is None else own
        names = {field: name for name, field in columns if field is not None}
        problems = [_problem(found, names) for found in row.findings or ()]
        corrections.add_cells(row.line, row.row_number, cells, problems, columns)


def _problem(found: Mapping[str, str], names: Mapping[str, str]) -> Problem:
    """`names`: the file's column names by field; findings from after the reading have none of their own."""
    entry = stored(found["code"])
    return Problem(
        entry.code,
        entry.severity,
        found.get("column", names.get(found["field"])),
        found["field"] or None,
        found.get("value"),
        found["detail"],
        entry.remedy,
    )


# --- results --------------------------------------------------------------------------------------


async def result_of(runtime: Runtime, principal: Principal, order_id: UUID) -> AsyncIterator[bytes]:
    """Every row of the order with its outcome, and with the file's own columns if it came from one."""
    async with runtime.reading(principal) as tx:
        if await orders.get(tx, order_id) is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        file = await imports.of_order(tx, order_id)
    return _results(runtime, principal, order_id, file)


async def _results(
    runtime: Runtime, principal: Principal, order_id: UUID, file: Import | None
) -> AsyncIterator[bytes]:
    names = [WRITTEN[field] for field in _OF_ORDER]
    if file is not None and file.dialect is not None:
        names = [column["name"] for column in file.dialect["columns"]]
    yield (BOM + _written([[*RESULT_COLUMNS, *names]])).encode()
    after: str | None = None
    while True:
        originals: dict[int, str] = {}
        async with runtime.reading(principal) as tx:
            page = await registration_lists.list_of_order(tx, order_id, PageRequest(PAGE, after), Filter())
            if file is not None and page.items:
                numbers = [row.row_number for row in page.items]
                originals = await import_rows.originals_of(tx, file.id, numbers)
        if page.items:
            yield await to_thread.run_sync(_result_lines, page.items, originals)
        if page.next_token is None:
            return
        after = str(page.items[-1].row_number)


def _result_lines(rows: Sequence[Registration], originals: Mapping[int, str]) -> bytes:
    """Hashes are left out, because those of registered devices have been deleted."""
    lines = []
    for row in rows:
        original = originals.get(row.row_number)
        if original is None:
            cells: Sequence[object] = [getattr(row, field) for field in _OF_ORDER]
        else:
            cells = kept_of(restored(original, None)[0])
        lines.append([row.row_number, row.state, *_outcome(row), row.group_tag, *cells])
    return _written(lines).encode()


def _outcome(row: Registration) -> tuple[str, str, str]:
    entry = CATALOGUE.get(row.error_code or "")
    problem = row.error_detail or (entry.title if entry else "")
    upstream = " ".join(filter(None, (row.upstream_code, row.upstream_name)))
    if upstream and upstream not in problem:
        problem = f"{problem} ({upstream})".strip()
    return row.error_code or "", problem, entry.remedy if entry else ""


def _written(lines: Sequence[Sequence[object]]) -> str:
    """Lines of CSV. No cell runs as a formula in a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([disarmed("" if cell is None else str(cell)) for cell in line] for line in lines)
    return text.getvalue()

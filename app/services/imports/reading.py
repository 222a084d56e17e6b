"""Reads an import: fetches pieces of the file, checks rows, stores them in chunks, records progress.

If a worker dies, the next one deletes the staged rows when the lease has ended and begins again, so that no
row is staged twice. A file that repeatedly kills its worker is refused. No process holds the whole file.
"""

import asyncio
import io
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from anyio import from_thread

from app.db import customers, group_tags, import_rows, imports
from app.db.engine import encode_json
from app.db.imports import ImportClaim
from app.db.leases import IMPORTS
from app.domain.catalogue import Finding
from app.domain.errors import Refusal
from app.domain.event import EventType
from app.domain.group_tag import Spellings
from app.domain.imports import ImportState, Verdict, ready_state
from app.domain.quota import Quota
from app.intake import counting
from app.intake import rows as intake
from app.intake.profiles import Profile
from app.intake.row_builder import MAX_ROWS
from app.intake.table import Dialect, Notice, Row, UnreadableFile, Wanted
from app.kernel import metrics
from app.kernel.settings import Settings
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.access import quotas
from app.services.devices import earlier_registrations
from app.services.devices.earlier_registrations import Patterns
from app.services.events.publishing import publish
from app.services.imports.checking import Checker, Examined, Staged
from app.services.imports.events import import_happening
from app.services.imports.summary import summarise
from app.services.imports.turns import Turn

log = logger("imports")

CHUNK = 2000
"""Rows checked and stored together: a few tenths of a second."""
DELETE_CHUNK = 20_000


class Stopping(Exception):
    """The worker is stopping: another one begins again."""


@dataclass(slots=True)
class _File(io.RawIOBase):
    """The pieces of a file as a stream. Read in a thread, from which `fetch` queries the database."""

    fetch: Callable[[int], bytes | None]
    taken: int = 0
    """Bytes returned so far."""
    _number: int = 0
    _piece: bytes = b""
    _at: int = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._at >= len(self._piece):
            stored = self.fetch(self._number)
            if stored is None:
                return 0
            self._number += 1
            self._piece, self._at = zlib.decompress(stored), 0
        part = self._piece[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        self.taken += len(part)
        return len(part)


async def read_import(runtime: Runtime, claim: ImportClaim, stopping: Callable[[], bool]) -> None:
    """Raises LostClaim, Stopping. Ends in `ready`, `ready_with_errors` or `refused`."""
    claim = await _begin(runtime, claim)
    checker = await _checker(runtime, claim)
    turn = Turn(runtime.turns.imports, claim.partner_id, _renewing(runtime, claim, stopping))
    try:
        async with turn:
            opening = await _opening(runtime, claim, turn)
            await _require_room(runtime, claim, turn, opening)
            file = opening.file()
            dialect, rows = await turn.run(opening.rows, file)
            checker.columns = dialect.columns
            await _keep(runtime, claim, {"dialect": _dialect_as_json(dialect)})
            counts = await _read_rows(runtime, claim, checker, rows, file, stopping, turn)
    except UnreadableFile as error:
        await refuse(runtime, claim, error.code, error.words)
        return
    except Refusal as refusal:  # a quota
        await refuse(runtime, claim, refusal.code, refusal.detail)
        return
    if not counts.total():
        await refuse(runtime, claim, "file_without_rows", "The file has a header and no row with a device.")
        return
    await _finish(runtime, claim, checker)


@dataclass(frozen=True, slots=True)
class _Opening:
    """Opens the file, as often as needed."""

    fetch: Callable[[int], bytes | None]
    profile: Profile | None
    wanted: Wanted
    settings: Settings
    breathe: Callable[[], None]

    def file(self) -> _File:
        return _File(self.fetch)

    def rows(self, file: _File) -> tuple[Dialect, Iterator[Row]]:
        spool = self.settings.spool
        if spool is not None:
            spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        return intake.read(
            io.BufferedReader(file, 256 * 1024),
            self.profile,
            wanted=self.wanted,
            spool=spool,
            max_spool=self.settings.max_spool_bytes,
            breathe=self.breathe,
        )

    def lines(self, limit: int) -> int | None:
        return counting.lines_within(io.BufferedReader(self.file(), 256 * 1024), limit, self.breathe)

    def require_rows_within(self, limit: int, lines: int) -> None:
        counting.require_rows_within(self.rows(self.file())[1], limit, lines)


async def _opening(runtime: Runtime, claim: ImportClaim, turn: Turn) -> _Opening:
    async def fetch(number: int) -> bytes | None:
        async with runtime.transaction(claim) as tx:
            return await imports.piece(tx, claim, number)

    async with runtime.transaction(claim) as tx:
        options = await imports.options_of(tx, claim.id)
    profile = claim.record.profile
    return _Opening(
        lambda number: from_thread.run(fetch, number),
        None if profile is None else Profile.parse(profile),
        Wanted(options.get("sheet"), options.get("include_hidden")),
        runtime.settings,
        turn.breathe,
    )


def _renewing(
    runtime: Runtime, claim: ImportClaim, stopping: Callable[[], bool]
) -> Callable[[], Awaitable[None]]:
    """Returns what keeps the claim between two slices. It raises LostClaim, Stopping."""
    pause = runtime.settings.lease_s / 4
    renewed = time.monotonic()

    async def between() -> None:
        nonlocal renewed
        if stopping():
            raise Stopping
        if time.monotonic() - renewed > pause:
            renewed = time.monotonic()
            await _keep(runtime, claim, {})

    return between


async def _require_room(runtime: Runtime, claim: ImportClaim, turn: Turn, opening: _Opening) -> None:
    """Refuses a compressed file with too many rows before any is staged. Raises UnreadableFile."""
    async with runtime.transaction(claim) as tx:
        room = await quotas.room_of(tx, Quota.STAGED_ROWS)
    limit = min(MAX_ROWS, room)
    lines = await turn.run(opening.lines, limit)
    if lines is not None and lines > limit:
        await turn.run(opening.require_rows_within, limit, lines)


async def _begin(runtime: Runtime, claim: ImportClaim) -> ImportClaim:
    """Marks the import as being read, and deletes what an earlier attempt has staged."""
    values = {"state": ImportState.READING, "rows_read": 0, "bytes_read": 0, "counts": {}}
    await _keep(runtime, claim, values)
    claim = ImportClaim(
        claim.partner_id, claim.id, claim.owner, ImportState.READING, claim.attempts, claim.record
    )
    while True:
        async with runtime.transaction(claim) as tx:
            await _renew(runtime, tx, claim, {})
            left = await import_rows.delete_some(tx, claim.id, limit=DELETE_CHUNK)
        if not left:
            return claim


async def _checker(runtime: Runtime, claim: ImportClaim) -> Checker:
    async with runtime.transaction(claim) as tx:
        known = await customers.all_orderable(tx)
    return Checker(
        claim.partner_id,
        claim.record,
        known,
        runtime,
        runtime.now(),
    )


async def _read_rows(
    runtime: Runtime,
    claim: ImportClaim,
    checker: Checker,
    rows: Iterator[Row],
    file: _File,
    stopping: Callable[[], bool],
    turn: Turn,
) -> Counter[Verdict]:
    """Examines one chunk in a thread while the previous one is being stored."""
    counts: Counter[Verdict] = Counter()
    patterns = Patterns()

    async def following() -> tuple[list[Examined], int]:
        async with asyncio.timeout(runtime.settings.step_timeout_s):
            # A thread that hangs is abandoned: its file goes to another worker, or is refused.
            examined = await turn.run(checker.examine, rows, CHUNK, turn.breathe, abandon_on_cancel=True)
            return examined, file.taken

    examined, taken = await following()
    while examined:
        if stopping():
            raise Stopping
        ahead = asyncio.create_task(following())
        try:
            async with runtime.transaction(claim) as tx:
                staged = await _judge(tx, checker, examined, patterns)
                counts += staged.counts
                progress = {
                    "rows_read": counts.total(),
                    "bytes_read": taken,
                    "counts": {verdict.value: n for verdict, n in counts.items()},
                }
                await _renew(runtime, tx, claim, progress)
                await quotas.require_room(tx, Quota.STAGED_ROWS)
                await import_rows.add_many(tx, staged.rows)
                await import_rows.add_hashes(tx, staged.hashes)
        except BaseException:
            ahead.cancel()
            await asyncio.wait([ahead])
            raise
        examined, taken = await ahead
    return counts


async def _judge(tx: PartnerTx, checker: Checker, examined: Sequence[Examined], patterns: Patterns) -> Staged:
    """Adds the findings from earlier orders to the chunk, customer by customer."""
    from_books: list[list[Finding]] = [[] for _ in examined]
    of_customer: dict[UUID, list[int]] = {}
    for place, item in enumerate(examined):
        if item.customer_id is not None and item.device.is_valid:
            of_customer.setdefault(item.customer_id, []).append(place)
    for customer_id, places in of_customer.items():
        order = checker.orders[customer_id]
        if order.spellings is None:
            known = await group_tags.known(tx, customer_id)
            order.spellings = Spellings(known, one_each=order.rules.one_spelling)
        devices = [examined[place].device.names for place in places]
        found = await earlier_registrations.compare(tx, customer_id, devices, patterns=patterns)
        for place, findings in zip(places, found, strict=True):
            from_books[place] = findings
    return checker.settle(examined, from_books)


async def _finish(runtime: Runtime, claim: ImportClaim, checker: Checker) -> None:
    now = runtime.now()
    late = checker.late_duplicates
    async with runtime.transaction(claim) as tx:
        if late:
            rows = [(n, e.code, e.detail, encode_json([e.as_json()])) for n, e in late]
            await import_rows.invalidate(tx, claim, rows, changed=False)
        summary = await summarise(tx, claim.id)
        state = ready_state(summary["invalid"])
        await release(
            runtime,
            tx,
            claim,
            {
                "state": state,
                "summary": summary,
                "counts": {verdict.value: summary[verdict.value] for verdict in Verdict},
                "bytes_read": claim.record.size_bytes,
                "due_at": claim.record.expires_at,
            },
        )
        # The rows have every cell of the file, so its bytes are no longer needed.
        await imports.delete_pieces(tx, claim.id, limit=2**31 - 1)
        record = await imports.get(tx, claim.id)
        assert record is not None
        await publish(tx, [import_happening(EventType.IMPORT_READY, record)], now)
    log.info("import_read", import_id=str(claim.id), rows=summary["rows"], invalid=summary["invalid"])


async def refuse(runtime: Runtime, claim: ImportClaim, code: str, words: str) -> None:
    """Refuses a file that cannot become orders. The next step deletes it and its staged rows."""
    now = runtime.now()
    async with runtime.transaction(claim) as tx:
        await release(
            runtime,
            tx,
            claim,
            {
                "state": ImportState.REFUSED,
                "failure_code": code,
                "failure_said": words,
                "due_at": now,
            },
        )
        record = await imports.get(tx, claim.id)
        assert record is not None
        await publish(tx, [import_happening(EventType.IMPORT_REFUSED, record)], now)
    log.info("import_refused", import_id=str(claim.id), code=code)


async def release(runtime: Runtime, tx: PartnerTx, claim: ImportClaim, values: dict[str, Any]) -> None:
    """Writes this claim's last values and releases it. Raises LostClaim."""
    given_up = {**IMPORTS.ended, "attempts": 0, "updated_at": runtime.now()}
    await imports.write_claimed(tx, claim, {**given_up, **values})
    if "state" in values:
        reached = ImportState(values["state"])
        tx.committed.append(lambda: metrics.import_reached(reached))


async def _keep(runtime: Runtime, claim: ImportClaim, values: dict[str, Any]) -> None:
    async with runtime.transaction(claim) as tx:
        await _renew(runtime, tx, claim, values)


async def _renew(runtime: Runtime, tx: PartnerTx, claim: ImportClaim, values: dict[str, Any]) -> None:
    """Records progress, and keeps the claim for another lease. Raises LostClaim."""
    now = runtime.now()
    kept = {**IMPORTS.kept(now + runtime.settings.lease), "updated_at": now}
    await imports.write_claimed(tx, claim, {**kept, **values})


def _dialect_as_json(dialect: Dialect) -> dict[str, Any]:
    return {
        "format": dialect.format,
        "container": dialect.container,
        "kind": dialect.kind.value,
        "encoding": dialect.encoding,
        "delimiter": dialect.delimiter,
        "header_row": dialect.header_row,
        "sheet": dialect.sheet,
        "columns": [{"name": name, "field": field} for name, field in dialect.columns],
        "notices": [_notice_as_json(notice) for notice in dialect.notices],
    }


def _notice_as_json(notice: Notice) -> dict[str, Any]:
    return {"code": notice.code, "column": notice.column, "detail": notice.words}

"""A worker's step on an import: claims it and does what its state asks for.

Everything that an import needs is a row with `due_at`: reading, committing, expiring, and deleting its rows.
Attempts are counted when they begin, so that a file that kills its worker is given up too, and not only one
that raises an error.
"""

import asyncio
from collections.abc import Callable
from typing import Any, assert_never
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError

from app.db import import_claims, import_rows, imports, leases
from app.db.imports import ImportClaim
from app.db.leases import IMPORTS, LostClaim
from app.domain import schedule
from app.domain.imports import ImportState
from app.kernel import metrics
from app.kernel.metrics import LeaseEnd
from app.kernel.telemetry import logger
from app.runtime import Runtime
from app.services.imports import commit
from app.services.imports.reading import Stopping, read_import, refuse, release

log = logger("imports")

MAX_ATTEMPTS = 5
"""Consecutive failed claims before a file is refused or a commit is given back."""
DELETE_CHUNK = 20_000
PIECES_CHUNK = 100


def _goes_on() -> bool:
    return False


async def advance_next(runtime: Runtime, stopping: Callable[[], bool] = _goes_on) -> bool:
    """Advances the next due import by a step; False if none is due, or the worker is stopping."""
    if stopping():
        return False
    async with runtime.system_transaction() as tx:
        claim = await import_claims.claim_one(
            tx,
            owner=uuid4(),
            worker_id=runtime.presence.worker_id,
            now=runtime.now(),
            lease=runtime.settings.lease,
            places=runtime.settings.import_places,
            each=runtime.settings.import_lanes,
        )
    if claim is None:
        return False
    try:
        await _step(runtime, claim, stopping)
    except LostClaim:
        metrics.leases_ended(LeaseEnd.CLAIM_LOST)
        log.warning("import_claim_lost", import_id=str(claim.id))
    except (Stopping, asyncio.CancelledError):
        # The worker is stopping: another one may claim the import at once. The file has not failed.
        await asyncio.shield(_hand_over(runtime, claim, failed=False))
        raise
    except Exception:
        await _hand_over(runtime, claim, failed=True)
        raise
    return True


async def _step(runtime: Runtime, claim: ImportClaim, stopping: Callable[[], bool]) -> None:
    match claim.state:
        case ImportState.UPLOADED | ImportState.READING:
            if claim.attempts > MAX_ATTEMPTS:
                words = f"Reading was started {MAX_ATTEMPTS} times and never finished."
                await refuse(runtime, claim, "import_given_up", words)
            else:
                await read_import(runtime, claim, stopping)
        case ImportState.COMMITTING:
            if claim.attempts > MAX_ATTEMPTS:
                words = f"The commit was started {MAX_ATTEMPTS} times and never finished."
                await commit.give_back(runtime, claim, "import_given_up", words)
            else:
                await commit.commit(runtime, claim, stopping)
        case ImportState.UPLOADING:
            await _drop(runtime, claim, ImportState.DISCARDED)
        case ImportState.READY | ImportState.READY_WITH_ERRORS:
            await _drop(runtime, claim, ImportState.EXPIRED)
        case ImportState.COMMITTED | ImportState.REFUSED | ImportState.DISCARDED | ImportState.EXPIRED:
            await _purge(runtime, claim)
        case _:
            assert_never(claim.state)


async def _drop(runtime: Runtime, claim: ImportClaim, new: ImportState) -> None:
    """Ends an import whose time is over; the next step deletes its staged rows."""
    now = runtime.now()
    async with runtime.transaction(claim) as tx:
        await release(runtime, tx, claim, {"state": new, "due_at": now})
    log.info("import_dropped", import_id=str(claim.id), state=new.value)


async def _purge(runtime: Runtime, claim: ImportClaim) -> None:
    """Deletes rows, hashes and pieces in steps; the import itself stays as a record."""
    while True:
        async with runtime.transaction(claim) as tx:
            until = runtime.now() + runtime.settings.lease
            if not await leases.renew(tx, leases.IMPORTS, claim, until):
                raise LostClaim
            gone = await import_rows.delete_some(tx, claim.id, limit=DELETE_CHUNK)
            gone += await imports.delete_pieces(tx, claim.id, limit=PIECES_CHUNK)
            if not gone:
                await release(runtime, tx, claim, {"due_at": None})
                return


async def _hand_over(runtime: Runtime, claim: ImportClaim, *, failed: bool) -> None:
    now = runtime.now()
    values: dict[str, Any] = {**IMPORTS.ended, "due_at": now}
    if failed:
        values["due_at"] = schedule.next_attempt(claim.attempts, now, runtime.random(), None)
    else:
        values["attempts"] = 0
    try:
        async with runtime.transaction(claim) as tx:
            await imports.hand_over(tx, claim, values)
    except (SQLAlchemyError, OSError):
        # The claim ends with its lease.
        log.warning("import_not_handed_over", import_id=str(claim.id))

"""A connection's trouble: when it begins, when it ends, its events, and the work that waited for the end.

A trouble begins when a call is refused for a reason that somebody has to fix. It ends when a call proves
that the connection works again (a check, a reading of the customers list, a batch that was refused before),
or when new credentials are given. Attempts in between change nothing and publish no event.
"""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.db import batches, connections, waiting
from app.db.batches import Claim
from app.domain.batch import Batch, BatchState
from app.domain.catalogue import CATALOGUE, Category, lookup
from app.domain.connection import HeldTrouble
from app.domain.event import ConnectionRecoveredData, ConnectionTroubleData, EventType
from app.domain.upstream import UpstreamFailure
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.events.publishing import Happening, publish


class Noted(StrEnum):
    """The effect of recording a trouble that a call met."""

    NEW = "new"  # the connection had no trouble before
    CHANGED = "changed"  # it had another trouble
    KNOWN = "known"
    LESSER = "lesser"  # the connection has another trouble that stops more, and keeps it
    OUTDATED = "outdated"  # the connection was repaired after the call began


async def begin(
    tx: PartnerTx,
    connection_id: UUID,
    trouble: UpstreamFailure,
    *,
    not_before: datetime | None,
    began: datetime,
    now: datetime,
) -> Noted:
    """Records the trouble, and publishes an event if it is new or has changed.

    `not_before`: how long the whole connection pauses; None for a trouble that stops only some calls.
    `began`: when the call that met the trouble began.
    """
    known = await _unrepaired_since(tx, connection_id, began)
    if known is None:
        return Noted.OUTDATED
    before, said = known.trouble_code, str(trouble.said)
    if before not in (None, trouble.code) and not_before is None:
        return Noted.LESSER
    since = known.trouble_since if before == trouble.code and known.trouble_since else now
    await connections.set_trouble(
        tx, connection_id, code=trouble.code, said=said, since=since, not_before=not_before
    )
    if before == trouble.code:
        return Noted.KNOWN
    told = ConnectionTroubleData(
        connection_id=known.id,
        name=known.name,
        code=trouble.code,
        detail=said or None,
        remedy=lookup(trouble.code).remedy,
        since=since,
    )
    await publish(tx, [Happening(EventType.CONNECTION_TROUBLE, told)], now)
    return Noted.NEW if before is None else Noted.CHANGED


async def was_repaired_after(tx: PartnerTx, connection_id: UUID, began: datetime) -> bool:
    """Whether a call that began then proves nothing any more. The answer holds until the transaction ends,
    because a repair waits for it and then makes due what this transaction has written."""
    return await _unrepaired_since(tx, connection_id, began) is None


async def _unrepaired_since(tx: PartnerTx, connection_id: UUID, began: datetime) -> HeldTrouble | None:
    known = await connections.lock_trouble(tx, connection_id)
    return None if known is None or known.mended_at > began else known


async def end(tx: PartnerTx, connection_id: UUID, now: datetime, *, unless_code: str | None = None) -> bool:
    """Ends the trouble with an event. False if there was none, or if this proof does not disprove it."""
    ended = await connections.clear_trouble(tx, connection_id, unless_code=unless_code)
    if ended is None:
        return False
    told = ConnectionRecoveredData(
        connection_id=ended.id,
        name=ended.name,
        code=ended.trouble_code,
        since=ended.trouble_since,
    )
    await publish(tx, [Happening(EventType.CONNECTION_RECOVERED, told)], now)
    return True


async def end_after_reading(
    runtime: Runtime, tx: PartnerTx, connection_id: UUID, *, unless_code: str | None
) -> None:
    """Ends the trouble after a reading of the customers list, unless an open batch has met it: a batch makes
    other calls, and another process may still have an older token. Then that batch's next try decides."""
    known = await connections.lock_trouble(tx, connection_id)
    code = None if known is None else known.trouble_code
    if code is None or await waiting.has_met(tx, connection_id, code):
        return
    if await end(tx, connection_id, runtime.now(), unless_code=unless_code):
        await pull_forward(runtime, tx, connection_id, but_code=unless_code)


async def end_after_step(runtime: Runtime, claim: Claim) -> None:
    """Ends the connection's trouble because Microsoft has answered the call of a batch that had met it. Other
    waiting work need not try by itself."""
    code = claim.failure_code
    entry = CATALOGUE.get(code or "")
    if code is None or entry is None or entry.category is not Category.CONNECTION:
        return
    connection_id, now = claim.connection_id, runtime.now()
    async with runtime.transaction(claim) as tx:
        batch = await batches.get(tx, claim.id)
        if batch is None or not _was_answered(claim, batch):
            return
        known = await connections.lock_trouble(tx, connection_id)
        is_it = known is not None and known.trouble_code == code
        if is_it and await end(tx, connection_id, now):
            await pull_forward(runtime, tx, connection_id)


def _was_answered(claim: Claim, batch: Batch) -> bool:
    """Whether the batch has advanced at Microsoft, and was not put back, held or interrupted."""
    moved = batch.state != claim.state and batch.state in (BatchState.SUBMITTED, BatchState.SETTLED)
    return moved or batch.polls > claim.polls or batch.lookups > claim.lookups


async def pull_forward(
    runtime: Runtime, tx: PartnerTx, connection_id: UUID, *, but_code: str | None = None
) -> None:
    """Makes everything due that waited for the connection, and wakes workers for all of it."""
    now = runtime.now()
    await connections.end_pause(tx, connection_id)
    hastened = await waiting.hasten(tx, connection_id, now, but_code=but_code)
    tx.wake(WakeKind.BATCHES, lanes=min(max(hastened, 1), runtime.settings.worker_lanes))


async def pull_all_forward(
    runtime: Runtime, tx: PartnerTx, connection_id: UUID, *, but_code: str | None = None
) -> None:
    """Like `pull_forward`, and makes the customers list due too: held orders wait for it."""
    await pull_forward(runtime, tx, connection_id, but_code=but_code)
    await connections.hasten_customers(tx, connection_id, runtime.now())
    tx.wake(WakeKind.CONSENT)

"""Stores outcomes: rows, batch, order events and deliveries in one transaction, fenced by the claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import attempts, batches, customers, group_tags, holds, orders, registrations
from app.db.batches import Claim, NewBatch
from app.db.leases import BATCHES, LostClaim
from app.db.registrations import Outcome, SendableRow, Settled
from app.domain import schedule
from app.domain.actor import Principal
from app.domain.batch import BatchState, cut, halves
from app.domain.order import StoredOrder
from app.domain.registration import (
    CORRECTIONS,
    MAX_TRANSIENT_ATTEMPTS,
    SUCCESS,
    TRANSIENT_CODES,
    Meaning,
    RegistrationState,
    UpstreamRow,
    is_with_customer,
)
from app.domain.upstream import Refused
from app.kernel import metrics
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.connections.terms import batch_size
from app.services.events.publishing import order_news, publish, settled_happenings

log = logger("outcomes")

UNREAD = (
    "The customer has the device. A call of this order may have registered it: the list of the group tag's "
    "devices could not be read."
)


@dataclass(frozen=True, slots=True)
class Next:
    """The batch's next state. `due_at` None: nothing more is due."""

    state: BatchState
    due_at: datetime | None = None
    values: dict[str, Any] | None = None


def outcome_of(row: SendableRow, meaning: Meaning, answer: UpstreamRow) -> Outcome:
    return Outcome(
        row.id,
        meaning.state,
        error_code=meaning.code,
        upstream_code=answer.code,
        upstream_name=answer.name,
        upstream_device_id=answer.device_id,
    )


def had_before(id: UUID, said: tuple[str | None, str | None], detail: str | None) -> Outcome:
    """Outcome of a device that the customer has, if nothing shows that our call registered it."""
    code, name = said
    return Outcome(
        id,
        RegistrationState.ALREADY_REGISTERED,
        error_code="already_registered",
        error_detail=detail,
        upstream_code=code,
        upstream_name=name,
    )


async def record(
    runtime: Runtime,
    claim: Claim,
    rows: Sequence[SendableRow],
    outcomes: Sequence[Outcome],
    following: Next,
    *,
    unclear: Sequence[Outcome] = (),
    corrections: Sequence[Outcome] = (),
    was: Mapping[UUID, RegistrationState] | None = None,
) -> None:
    """Stores the outcomes of some or all of the batch's rows, and the batch's next state.

    Rows with a temporary failure go into a new batch and are retried. Those in `unclear` become unknown
    without an event: one follows when they have been looked up. `corrections` replace existing outcomes
    (`was`), all of them or none. Raises LostClaim.
    """
    now = runtime.now()
    made = {row.id: row.attempt for row in rows}
    again = [
        outcome.id
        for outcome in outcomes
        if outcome.error_code in TRANSIENT_CODES and made[outcome.id] < MAX_TRANSIENT_ATTEMPTS
    ]
    postponed = frozenset(again)
    final = [outcome for outcome in outcomes if outcome.id not in postponed]
    async with runtime.transaction(claim) as tx:
        order = await _lock(tx, claim)
        await registrations.settle(tx, claim.id, unclear, now, settled=False)
        settled = await registrations.settle(tx, claim.id, final, now)
        corrected = await registrations.settle(tx, claim.id, corrections, now, moves=CORRECTIONS)
        if len(corrected) != len(corrections):
            raise LostClaim  # some of them have been retried meanwhile
        settled += corrected
        registered = [row.id for row in settled if row.state in SUCCESS]
        if registered:
            await registrations.delete_hashes(tx, registered)
        if again:
            await _try_again(runtime, tx, claim, order, again, now)
        # Last, because the batch's present state is that of its open rows and decides how they may move.
        await _advance_batch(tx, claim, following, now)
        await _publish_outcomes(tx, claim, order, settled, now, was)
    log.info(
        "outcomes_recorded",
        batch_id=str(claim.id),
        order_id=str(claim.order_id),
        rows=len(settled),
        corrected=len(corrected),
        again=len(again),
        state=following.state.value,
    )


async def _lock(tx: PartnerTx, claim: Claim) -> StoredOrder:
    """Locks the order, then the batch, in the order that holds everywhere. Raises LostClaim."""
    order = await orders.lock(tx, claim.order_id)
    if order is None or await batches.lock_claimed(tx, claim) is None:
        raise LostClaim
    return order


async def _publish_outcomes(
    tx: PartnerTx,
    claim: Claim,
    order: StoredOrder,
    settled: Sequence[Settled],
    now: datetime,
    was: Mapping[UUID, RegistrationState] | None = None,
) -> None:
    news = [
        *settled_happenings(order, settled, was),
        *await order_news(tx, claim.order_id, corrected=bool(was)),
    ]
    outcomes = [(row.state, row.error_code) for row in settled]
    tx.committed.append(lambda: metrics.outcomes_recorded(outcomes))
    await publish(tx, news, now)


async def _advance_batch(tx: PartnerTx, claim: Claim, following: Next, now: datetime) -> None:
    done = following.due_at is None
    await batches.write_claimed(
        tx,
        claim,
        {
            "state": following.state.value,
            **BATCHES.ended,
            "due_at": following.due_at or now,
            "settled_at": (claim.settled_at or now) if done else None,
            "updated_at": now,
            **(following.values or {}),
        },
    )
    if following.due_at is not None:
        tx.wake(WakeKind.BATCHES, at=following.due_at)
    else:
        # The customer's window has room for another batch.
        tx.wake(WakeKind.BATCHES)


async def _try_again(
    runtime: Runtime,
    tx: PartnerTx,
    claim: Claim,
    order: StoredOrder,
    again: Sequence[UUID],
    now: datetime,
) -> None:
    due_at = schedule.next_attempt(max(claim.submissions, 1), now, runtime.random())
    parts = cut(again, batch_size(runtime.settings, runtime.platforms[order.platform]))
    new = [_sibling(claim, len(part), BatchState.QUEUED, due_at) for part in parts]
    for batch_id, part in zip(await batches.add(tx, new, now), parts, strict=True):
        await registrations.rebatch(tx, batch_id, part, now)
    tx.wake(WakeKind.BATCHES, at=due_at)


async def split_batch(runtime: Runtime, claim: Claim, attempt_id: UUID, refused: Refused) -> None:
    """Splits a batch that may have been refused for its size: both halves become new batches, and this one
    stays as the record.

    One transaction that also records the refused call, so that a crash leaves either the whole batch, which
    is then refused and split again, or the halves. If an earlier call may have arrived, the halves are
    uncertain too.
    """
    now = runtime.now()
    said = str(refused.said)
    state = BatchState.UNKNOWN if claim.uncertain else BatchState.QUEUED
    async with runtime.transaction(claim) as tx:
        await _lock(tx, claim)
        await attempts.finish(tx, attempt_id, outcome=refused.code, said=said, now=now)
        await _stop_creating(tx, claim, now)
        rows = await registrations.open_of_batch(tx, claim.id, with_hashes=False)
        parts = halves([row.id for row in rows])
        new = [_sibling(claim, len(half), state, now, uncertain=claim.uncertain) for half in parts]
        for batch_id, half in zip(await batches.add(tx, new, now), parts, strict=True):
            moved = await registrations.rebatch(tx, batch_id, half, now, another_attempt=False)
            if moved != len(half):
                raise LostClaim
        news = {"failure_code": "batch_split", "failure_said": said or None, "request_id": None}
        await _advance_batch(tx, claim, Next(BatchState.SETTLED, values=news), now)
        await publish(tx, await order_news(tx, claim.order_id), now)
        tx.wake(WakeKind.BATCHES, lanes=2)
    log.warning("batch_split", batch_id=str(claim.id), devices=len(rows), said=said)


def _sibling(
    claim: Claim, devices: int, state: BatchState, due_at: datetime, *, uncertain: bool = False
) -> NewBatch:
    """A new batch for some devices of this one."""
    owners = (claim.order_id, claim.customer_id, claim.connection_id)
    return NewBatch(*owners, claim.group_tag, devices, state, due_at, uncertain)


async def release(
    tx: PartnerTx, claim: Claim, due_at: datetime, now: datetime, values: Mapping[str, Any] | None = None
) -> None:
    """Releases the batch, due at `due_at`. Raises LostClaim."""
    await batches.write_claimed(
        tx,
        claim,
        {
            **(values or {}),
            "due_at": due_at,
            **BATCHES.ended,
            "updated_at": now,
        },
    )
    tx.wake(WakeKind.BATCHES, at=due_at)


async def finish_attempt(
    runtime: Runtime, principal: Principal, attempt_id: UUID, outcome: str, said: str
) -> None:
    """Notes how an attempt has ended, in a transaction of its own."""
    async with runtime.transaction(principal) as tx:
        await attempts.finish(tx, attempt_id, outcome=outcome, said=said, now=runtime.now())


async def refuse_batch(runtime: Runtime, claim: Claim, *, code: str, said: str) -> None:
    """Ends a batch whose whole call was refused: every row fails for the same reason."""
    await _end_whole(runtime, claim, RegistrationState.FAILED, code, said)


async def give_up(runtime: Runtime, claim: Claim, *, said: str) -> None:
    """Ends the open rows as unknown, for an operator to see: nothing shows their outcome."""
    log.error("outcome_unknown", batch_id=str(claim.id))
    await _end_whole(runtime, claim, RegistrationState.UNKNOWN, "outcome_unknown", said)


async def _end_whole(runtime: Runtime, claim: Claim, state: RegistrationState, code: str, said: str) -> None:
    now = runtime.now()
    async with runtime.transaction(claim) as tx:
        order = await _lock(tx, claim)
        await _stop_creating(tx, claim, now)
        rows = await registrations.open_of_batch(tx, claim.id, with_hashes=False)
        answers = await registrations.said_of_batch(tx, claim.id)
        registers = runtime.abilities[order.platform].registers
        means = None if registers is None else registers.meaning
        ended = [
            had_before(row.id, answers[row.id], UNREAD)
            if row.id in answers and means is not None and is_with_customer(means(*answers[row.id]))
            else Outcome(row.id, state, error_code=code, error_detail=said or None)
            for row in rows
        ]
        following = Next(BatchState.SETTLED, values={"failure_code": code, "failure_said": said or None})
        settled = await registrations.settle(tx, claim.id, ended, now)
        await _advance_batch(tx, claim, following, now)
        await _publish_outcomes(tx, claim, order, settled, now)


async def _stop_creating(tx: PartnerTx, claim: Claim, now: datetime) -> None:
    """If this batch was to create its group tag, lets a waiting batch create it."""
    if await group_tags.stop_creating(tx, claim.customer_id, claim.group_tag, claim.id, now):
        await hasten_waiting(tx, claim, now)


async def hasten_waiting(tx: PartnerTx, claim: Claim, now: datetime) -> None:
    """Makes the batches that wait for the group tag due now. The caller holds the tag's row."""
    waiting = await batches.hasten_tag(tx, claim.customer_id, claim.group_tag, now)
    if waiting:
        tx.wake(WakeKind.BATCHES, lanes=waiting)


async def hold_batch(runtime: Runtime, claim: Claim) -> None:
    """Holds a batch because a reason of the customer has arisen before it was sent, and publishes that.

    Checks again under the lock: if the reason has ended meanwhile, this batch was not among those released.
    """
    now = runtime.now()
    async with runtime.transaction(claim) as tx:
        reasons = await customers.holds_for_share(tx, claim.customer_id)
        await _lock(tx, claim)
        if not reasons:
            await release(tx, claim, now, now)
            return
        await batches.write_claimed(tx, claim, {**holds.stored(reasons), **BATCHES.ended, "updated_at": now})
        await publish(tx, await order_news(tx, claim.order_id), now)

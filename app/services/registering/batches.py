"""Advances a batch by one step: claims it and does what its state asks for.

Each step is claim and intent (one transaction), the call, the outcome (another transaction). If a step dies,
its lease ends and the batch is claimed again; what the step may have done at Microsoft then counts as
unknown. An unexpected exception does not stop the lane: the batch is retried with growing pauses, and finally
ended with an outcome that shows the error.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError

from app.db import batch_claims, batches, connections, customers
from app.db.batches import Claim
from app.db.engine import is_passing
from app.db.leases import LostClaim
from app.domain import catalogue, consent, schedule
from app.domain.batch import BatchState
from app.domain.upstream import (
    ConnectionTrouble,
    HeldBack,
    NoRelationship,
    OutcomeUnknown,
    Refused,
    TagOtherwise,
    Throttled,
    UpstreamFailure,
)
from app.kernel import metrics
from app.kernel.handover import hand_over_patiently
from app.kernel.metrics import LeaseEnd
from app.kernel.telemetry import logger, origin
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.connections import troubles
from app.services.connections.access import is_trouble, note_trouble
from app.services.consents.consents import apply_change
from app.services.registering import lookup, polling, submission
from app.services.registering.outcomes import give_up, refuse_batch, release

log = logger("batches")

MAX_UNANSWERED = 240
"""Consecutive steps without a usable answer before the outcome is given up. With pauses that soon grow to
five minutes this is 20 hours of trying, longer than Microsoft's longest outages."""
MAX_DEFECTS = 30
"""Consecutive steps with an unexpected exception before the batch is ended. With the same pauses this is two
hours, in which a corrected release or row still saves it."""
BROKEN = catalogue.lookup("batch_broken").code


@dataclass(frozen=True, slots=True)
class Step:
    """What a worker did, for its log and its decision whether to go on."""

    batch_id: str
    state: str


async def advance_next(runtime: Runtime) -> Step | None:
    """Claims the next due batch, fairly, and advances it by one step; None when nothing is due."""
    async with runtime.system_transaction() as tx:
        claim = await batch_claims.claim_one(
            tx,
            owner=uuid4(),
            worker_id=runtime.presence.worker_id,
            now=runtime.now(),
            lease=runtime.settings.lease,
            customer_window=runtime.settings.customer_window,
            connection_window=runtime.settings.connection_window,
            lanes=runtime.settings.worker_lanes,
        )
    if claim is None:
        return None
    try:
        await _advance(runtime, claim)
    except LostClaim:
        metrics.leases_ended(LeaseEnd.CLAIM_LOST)
        log.warning("claim_lost", batch_id=str(claim.id))
    except asyncio.CancelledError:
        # The worker is stopping: let another one claim the batch at once.
        await asyncio.shield(_hand_over(runtime, claim, runtime.now()))
        raise
    except Exception as error:  # noqa: BLE001 - the lane must go on with other batches
        if is_passing(error):
            # Deadlock, restart or lost connection: nothing was committed.
            log.warning("step_not_recorded", batch_id=str(claim.id), error=origin(error)["error"])
            await hand_over_patiently(lambda: _hand_over(runtime, claim, _pause(runtime, claim)))
        else:
            log.error("step_failed", batch_id=str(claim.id), state=claim.state.value, **origin(error))
            await _after_defect(runtime, claim, origin(error)["error"])
    return Step(str(claim.id), claim.state.value)


async def _advance(runtime: Runtime, claim: Claim) -> None:
    try:
        async with asyncio.timeout(runtime.settings.step_timeout_s):
            await _step(runtime, claim)
            await troubles.end_after_step(runtime, claim)
    except TimeoutError:
        log.error("step_took_too_long", batch_id=str(claim.id), state=claim.state.value)
        await _hand_over(runtime, claim, _pause(runtime, claim))
    except UpstreamFailure as failure:
        await _after_failure(runtime, claim, failure)


def _pause(runtime: Runtime, claim: Claim, retry_after: timedelta | None = None) -> datetime:
    return schedule.next_attempt(claim.troubles + 1, runtime.now(), runtime.random(), retry_after)


async def _step(runtime: Runtime, claim: Claim) -> None:
    # First, so that nothing is read or written for a call that is not allowed now.
    await runtime.budgets.gate(claim.connection_id, runtime.now).check()
    match claim.state:
        case BatchState.QUEUED | BatchState.SUBMITTING:
            await submission.submit(runtime, claim)
        case BatchState.SUBMITTED:
            await polling.poll(runtime, claim)
        case BatchState.UNKNOWN:
            if claim.submitted_at is None:
                await submission.submit(runtime, claim)
            else:
                await lookup.look_up(runtime, claim)
        case BatchState.HELD | BatchState.SETTLED | BatchState.CANCELLED:
            raise LostClaim
        case _:
            assert_never(claim.state)


async def _after_failure(runtime: Runtime, claim: Claim, failure: UpstreamFailure) -> None:
    if isinstance(failure, HeldBack):
        await _hold_back(runtime, claim, failure)
        return
    if isinstance(failure, NoRelationship):
        await _doubt_relationship(runtime, claim)
    if not _is_hopeless(runtime, claim, failure):
        await _postpone(runtime, claim, failure)
    elif claim.state is BatchState.QUEUED:
        await refuse_batch(runtime, claim, code=failure.code, said=str(failure.said))
    else:
        await give_up(runtime, claim, said=str(failure.said))


def _is_hopeless(runtime: Runtime, claim: Claim, failure: UpstreamFailure) -> bool:
    """Whether to give up: the same refusal repeatedly, or no answer for most of a day.

    A batch never gives up because of its connection or the network.
    """
    if isinstance(failure, TagOtherwise):
        return False  # bounded by the number of submissions
    if isinstance(failure, NoRelationship) and claim.state is BatchState.SUBMITTED:
        return False  # bounded by the deadline of polling
    if isinstance(failure, Refused):
        again = claim.failure_code == failure.code
        return again and claim.troubles >= runtime.settings.max_submissions
    uncertain = claim.state is not BatchState.QUEUED
    return isinstance(failure, OutcomeUnknown) and uncertain and claim.troubles >= MAX_UNANSWERED


async def _hold_back(runtime: Runtime, claim: Claim, failure: HeldBack) -> None:
    """Puts the batch back because the connection's budget allows no call now. It keeps its turn, and this
    counts as no trouble."""
    now = runtime.now()
    due_at = now + failure.retry_after
    async with runtime.transaction(claim) as tx:
        await connections.postpone(tx, claim.connection_id, due_at)
        if claim.state is BatchState.QUEUED:
            await customers.give_turn_back(tx, claim.customer_id, claim.id, now)
        await release(tx, claim, due_at, now)
    log.debug("batch_held_back", batch_id=str(claim.id), code=failure.code, due_at=due_at.isoformat())


async def _postpone(runtime: Runtime, claim: Claim, failure: UpstreamFailure) -> None:
    """Retries the call at the right time, because no answer has settled anything.

    For look-ups, and for calls that certainly had no effect; a submission with unknown effect has already
    been marked uncertain.
    """
    now = runtime.now()
    retry_after = failure.retry_after if isinstance(failure, Throttled) else None
    due_at = _pause(runtime, claim, retry_after)
    began = claim.lease_until - runtime.settings.lease
    if isinstance(failure, ConnectionTrouble):
        due_at = await note_trouble(runtime, claim, claim.connection_id, failure, began=began)
    elif is_trouble(failure):
        await note_trouble(runtime, claim, claim.connection_id, failure, began=began)
    async with runtime.transaction(claim) as tx:
        if retry_after is not None:
            await connections.postpone(tx, claim.connection_id, now + retry_after)
        if isinstance(failure, ConnectionTrouble) and await troubles.was_repaired_after(
            tx, claim.connection_id, began
        ):
            due_at = now  # repaired since the trouble was noted, so nothing else makes this batch due
        await release(
            tx,
            claim,
            due_at,
            now,
            {
                "troubles": claim.troubles + 1,
                "failure_code": failure.code,
                "failure_said": str(failure.said) or None,
            },
        )
    log.info("batch_postponed", batch_id=str(claim.id), code=failure.code, due_at=due_at.isoformat())


async def _doubt_relationship(runtime: Runtime, claim: Claim) -> None:
    """Makes the customers list due at once, because Microsoft says that there is no relationship."""
    async with runtime.transaction(claim) as tx:
        state = await customers.consent_for_share(tx, claim.customer_id)
    change = None if state is None else consent.after_refusal(state)
    async with runtime.transaction(claim) as tx:
        # Locks the connection before the consent, as a reading of the list does.
        await connections.hasten_customers(tx, claim.connection_id, runtime.now())
        if change is not None:
            await apply_change(runtime, tx, claim.customer_id, change)
        tx.wake(WakeKind.CONSENT)


async def _after_defect(runtime: Runtime, claim: Claim, kind: str) -> None:
    """Retries a batch after an unexpected exception, and ends it after MAX_DEFECTS of them."""
    try:
        ending = await _put_off(runtime, claim, kind)
        if ending is not None:
            await _end_broken(runtime, ending, kind)
    except LostClaim:
        log.warning("claim_lost", batch_id=str(claim.id))
    except Exception as again:  # noqa: BLE001 - not even the end can be stored: log it and retry later
        log.error("batch_not_ended", batch_id=str(claim.id), **origin(again))
        await _hand_over(runtime, claim, _pause(runtime, claim))


async def _put_off(runtime: Runtime, claim: Claim, kind: str) -> Claim | None:
    """Releases the batch with a growing pause. After the last pause returns its current claim instead."""
    now = runtime.now()
    async with runtime.transaction(claim) as tx:
        batch = await batches.lock_claimed(tx, claim)
        if batch is None:
            raise LostClaim
        defects = 1 + (batch.troubles if batch.failure_code == BROKEN else 0)
        if defects >= MAX_DEFECTS:
            return replace(claim, state=batch.state, uncertain=batch.uncertain)
        due_at = schedule.next_attempt(defects, now, runtime.random())
        news = {"troubles": defects, "failure_code": BROKEN, "failure_said": kind}
        await release(tx, claim, due_at, now, news)
    return None


async def _end_broken(runtime: Runtime, claim: Claim, kind: str) -> None:
    """Ends the batch: as failed if certainly nothing was sent, otherwise as unknown."""
    if claim.state is BatchState.QUEUED and not claim.uncertain:
        await refuse_batch(runtime, claim, code=BROKEN, said=kind)
    else:
        await give_up(runtime, claim, said=kind)


async def _hand_over(runtime: Runtime, claim: Claim, due_at: datetime) -> bool:
    """Releases the batch of an interrupted step, to be repeated. False if that could not be stored."""
    try:
        async with runtime.transaction(claim) as tx:
            await release(tx, claim, due_at, runtime.now(), {"troubles": claim.troubles + 1})
    except LostClaim:
        log.warning("claim_lost", batch_id=str(claim.id))
    except (SQLAlchemyError, OSError):
        # The claim ends with its lease.
        log.warning("claim_not_handed_over", batch_id=str(claim.id))
        return False
    return True

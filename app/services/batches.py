"""Advancing a batch by one step: claim it, look at its state, do what that state asks for.

Each step is claim and intent (one transaction), the call, the outcome (another transaction). A
step that dies anywhere is found again by its lease; what it may have done at Microsoft is then
uncertain, and is treated so.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never
from uuid import uuid4

from sqlalchemy.exc import DBAPIError

from app.db import batches, connections, customers
from app.db.batches import Claim
from app.domain import consent, schedule
from app.domain.batch import BatchState
from app.domain.consent import ConsentState
from app.domain.upstream import (
    ConnectionTrouble,
    NoRelationship,
    Refused,
    Throttled,
    UpstreamFailure,
)
from app.queue import WakeKind
from app.runtime import Runtime
from app.services import lookup, polling, submission
from app.services.access import note_trouble
from app.services.consents import apply_change
from app.services.settlement import LostClaim, refuse_batch, release
from app.telemetry import logger

log = logger("batches")


@dataclass(frozen=True, slots=True)
class Step:
    """What a worker did: for its log and its decision whether to go on."""

    batch_id: str
    state: str


async def advance_next(runtime: Runtime) -> Step | None:
    """Claims the next due batch, fairly, and advances it by one step; None when nothing is due."""
    async with runtime.system_transaction() as tx:
        claim = await batches.claim_one(
            tx.session,
            owner=uuid4(),
            now=runtime.now(),
            lease=runtime.settings.lease,
            customer_window=runtime.settings.customer_window,
            connection_window=runtime.settings.connection_window,
        )
    if claim is None:
        return None
    try:
        async with asyncio.timeout(runtime.settings.step_timeout_s):
            await _step(runtime, claim)
    except LostClaim:
        log.warning("claim_lost", batch_id=str(claim.id))
    except asyncio.CancelledError:
        await asyncio.shield(_hand_over(runtime, claim))
        raise
    except TimeoutError:
        log.error("step_took_too_long", batch_id=str(claim.id), state=claim.state.value)
        await _hand_over(runtime, claim)
    except UpstreamFailure as failure:
        await _after_failure(runtime, claim, failure)
    except DBAPIError as error:
        # Deadlock, restart, lost connection: nothing was committed; the lease brings it back.
        log.warning("step_not_recorded", batch_id=str(claim.id), error=type(error.orig).__name__)
        await _hand_over(runtime, claim)
    return Step(str(claim.id), claim.state.value)


async def _step(runtime: Runtime, claim: Claim) -> None:
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
    unsent = claim.state is BatchState.QUEUED
    if isinstance(failure, NoRelationship):
        await _doubt_relationship(runtime, claim)
    elif isinstance(failure, Refused) and unsent and claim.troubles >= runtime.settings.max_submissions:
        # Not even the look for its group tag is answered: a person has to see it.
        await refuse_batch(runtime, claim, code=failure.code, said=str(failure.said))
        return
    await postpone(runtime, claim, failure)


async def postpone(runtime: Runtime, claim: Claim, failure: UpstreamFailure) -> None:
    """The call did not get an answer that settles anything: again later, at the right time.

    For a call that certainly had no effect and for look-ups; a submission with unknown effect has
    been marked uncertain before it comes here.
    """
    now = runtime.now()
    retry_after = failure.retry_after if isinstance(failure, Throttled) else None
    due_at = schedule.next_attempt(claim.troubles + 1, now, runtime.random(), retry_after)
    if isinstance(failure, ConnectionTrouble):
        due_at = await note_trouble(runtime, claim.partner_id, claim.connection_id, failure)
    async with runtime.transaction(claim.partner_id) as tx:
        if retry_after is not None:
            await connections.postpone(tx.session, claim.partner_id, claim.connection_id, now + retry_after)
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
    """Microsoft says there is no relationship: have the customers list read now, which decides."""
    async with runtime.transaction(claim.partner_id) as tx:
        state = await customers.consent_for_share(tx.session, claim.partner_id, claim.customer_id)
    change = None if state is None else consent.after_refusal(ConsentState(state))
    async with runtime.transaction(claim.partner_id) as tx:
        if change is not None:
            await apply_change(runtime, tx, claim.partner_id, claim.customer_id, change)
        await connections.hasten_customers(tx.session, claim.partner_id, claim.connection_id, runtime.now())
        tx.wake(WakeKind.CONSENT)


async def _hand_over(runtime: Runtime, claim: Claim) -> None:
    """The step was broken off: another worker may take the batch at once."""
    now = runtime.now()
    try:
        async with runtime.transaction(claim.partner_id) as tx:
            await release(tx, claim, now + timedelta(seconds=1), now, {})
    except (DBAPIError, OSError, LostClaim):
        log.warning("claim_not_handed_over", batch_id=str(claim.id))

"""Delivers events to webhook endpoints: one attempt at a time, with the pauses of Standard Webhooks."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy.exc import DBAPIError

from app.db import delivery_claims, events, leases, webhook_secrets
from app.db.delivery_claims import DeliveryClaim
from app.db.engine import is_passing, stamp
from app.db.events import NewEvent
from app.db.ids import new_row_id
from app.db.paging import Page, PageRequest
from app.db.sqlstate import sqlstate_of
from app.domain import endpoint_health, schedule, signature
from app.domain.actor import Principal
from app.domain.address import Allowance
from app.domain.attempt import DeliveryState, Kind, Outcome
from app.domain.endpoint_health import EndpointState
from app.domain.errors import Conflict, NotFound
from app.domain.event import EndpointTestData, EventType
from app.domain.webhook import Delivery, DeliveryAttempt, Endpoint, HeldEndpoint, SigningSecret, StoredEvent
from app.kernel import metrics
from app.kernel.handover import hand_over_patiently
from app.kernel.metrics import LeaseEnd
from app.kernel.telemetry import logger, origin
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.access import networks
from app.services.access.identities import Caller
from app.services.webhooks import endpoint_secrets, subscriptions
from app.services.webhooks.endpoint_secrets import lock
from app.services.webhooks.endpoints import find_endpoint

log = logger("webhooks")


async def send_test(runtime: Runtime, principal: Principal, endpoint_id: UUID) -> Delivery:
    """Queues a test event for this endpoint only; returns the delivery to follow.

    Raises NotFound, or Conflict for a disabled endpoint.
    """
    now, event_id, delivery_id = runtime.now(), new_row_id(), new_row_id()
    data = EndpointTestData(endpoint_id, "This is a test.")
    async with runtime.transaction(principal) as tx:
        await _lock_open_endpoint(tx, endpoint_id)
        await events.add_events(
            tx, [NewEvent(event_id, EventType.ENDPOINT_TEST, None, None, None, data)], now
        )
        await events.add_deliveries(tx, [(delivery_id, event_id, endpoint_id)], now)
        tx.wake(WakeKind.DELIVERIES)
    return await get_delivery(runtime, principal, delivery_id)


async def get_delivery(runtime: Runtime, principal: Principal, delivery_id: UUID) -> Delivery:
    async with runtime.reading(principal) as tx:
        record = await events.get_delivery(tx, delivery_id)
    if record is None:
        raise NotFound("not_found", f"There is no delivery {delivery_id}.")
    return record


async def payload_of(runtime: Runtime, caller: Caller, delivery: Delivery) -> bytes | None:
    """Returns the body that was or will be signed; None if the key may not read the event's data.

    Raises NotFound when the event has just been deleted.
    """
    if not subscriptions.may_read(caller, delivery.event_type):
        return None
    async with runtime.reading(caller) as tx:
        event = await events.get_event(tx, delivery.event_id)
    if event is None:
        raise NotFound("not_found", f"There is no delivery {delivery.id}.")
    return payload(event)


async def attempts(runtime: Runtime, principal: Principal, delivery_id: UUID) -> list[DeliveryAttempt]:
    async with runtime.reading(principal) as tx:
        return await events.delivery_attempts(tx, delivery_id)


async def list_deliveries(
    runtime: Runtime,
    principal: Principal,
    page: PageRequest,
    *,
    endpoint_id: UUID | None = None,
    state: str | None = None,
) -> Page[Delivery]:
    async with runtime.reading(principal) as tx:
        return await events.list_deliveries(tx, page, endpoint_id=endpoint_id, state=state)


async def redeliver(runtime: Runtime, caller: Caller, delivery_id: UUID) -> Delivery:
    """Delivers again from the first attempt on, whatever the delivery's state; the event keeps its id.

    Raises NotFound, Forbidden if the key may not read the event's data, or Conflict while the endpoint is
    disabled.
    """
    delivery = await get_delivery(runtime, caller, delivery_id)
    subscriptions.require_event(caller, delivery.event_type)
    endpoint = await find_endpoint(runtime, caller, delivery.endpoint_id)
    if endpoint.is_deleted:
        raise Conflict(
            "invalid_state", "The webhook endpoint has been deleted; its deliveries can only be read."
        )
    async with runtime.transaction(caller) as tx:
        await _lock_open_endpoint(tx, delivery.endpoint_id)
        if not await events.redeliver(tx, delivery_id, runtime.now()):
            raise NotFound("not_found", f"There is no delivery {delivery_id}.")
        tx.wake(WakeKind.DELIVERIES)
    return await get_delivery(runtime, caller, delivery_id)


async def _lock_open_endpoint(tx: PartnerTx, endpoint_id: UUID) -> None:
    """Locks the endpoint and ends its pause, so that a delivery requested by a user does not wait for it."""
    endpoint = await lock(tx, endpoint_id)
    if endpoint.state == EndpointState.DISABLED:
        raise Conflict("invalid_state", "The webhook endpoint is disabled; enable it first.")
    await delivery_claims.end_pause(tx, endpoint_id)


async def deliver_next(runtime: Runtime) -> bool:
    """Claims the next due delivery and makes one attempt; False when none is due."""
    claim = await claim_next(runtime)
    if claim is None:
        return False
    try:
        await _attempt(runtime, claim)
    except asyncio.CancelledError:
        await asyncio.shield(_hand_over(runtime, claim))
        raise
    except OSError:
        await hand_over_patiently(lambda: _hand_over(runtime, claim))
        raise  # the database is down: for the lane, as if nothing had been claimed
    except Exception as error:  # noqa: BLE001 - the lane must go on with other deliveries
        # Sent or not, it will be sent again with the same id: when the lease has ended, or sooner if the
        # database was down only briefly and the claim could be released.
        log.error(
            "attempt_not_recorded", delivery_id=str(claim.id), sqlstate=sqlstate_of(error), **origin(error)
        )
        if is_passing(error):
            await hand_over_patiently(lambda: _hand_over(runtime, claim))
    return True


async def claim_next(runtime: Runtime) -> DeliveryClaim | None:
    """Claims the next due delivery, of the partner whose turn it is."""
    settings = runtime.settings
    async with runtime.system_transaction() as tx:
        workers = await delivery_claims.take_the_floor(tx, heard_since=runtime.now() - settings.silence)
        return await delivery_claims.claim_delivery(
            tx,
            owner=uuid4(),
            worker_id=runtime.presence.worker_id,
            now=runtime.now(),
            lease=settings.lease,
            bounds=endpoint_health.lane_bounds(settings.delivery_lanes * max(workers, 1)),
        )


async def _attempt(runtime: Runtime, claim: DeliveryClaim) -> None:
    async with runtime.transaction(claim) as tx:
        event = await events.get_event(tx, claim.event_id)
        endpoint = await events.get_endpoint(tx, claim.endpoint_id)
        others = await webhook_secrets.signing(tx, claim.endpoint_id, runtime.now())
        own = await networks.allowed_to(tx)
    if event is None or endpoint is None:
        return  # deleted meanwhile, and the delivery with it
    if endpoint.state == EndpointState.DISABLED or endpoint.is_deleted:
        # Disabled or deleted while the event was being written: end waiting deliveries as was done then.
        async with runtime.transaction(claim) as tx:
            await events.exhaust_deliveries(tx, claim.endpoint_id, runtime.now())
        return
    started_at = runtime.now()
    try:
        outcome = await _post(runtime, endpoint, others, own, event, started_at)
    except Exception as error:  # noqa: BLE001 - counts as an attempt, so that retries end
        log.error("delivery_failed", delivery_id=str(claim.id), **origin(error))
        said = "An error inside Registrar; the operator's log has it under this delivery's id."
        outcome = Outcome(Kind.INTERNAL, None, None, "", said, 0)
    await _record_attempt(runtime, claim, started_at, outcome)


async def _post(
    runtime: Runtime,
    endpoint: Endpoint,
    others: Sequence[SigningSecret],
    own: Sequence[Allowance],
    event: StoredEvent,
    now: datetime,
) -> Outcome:
    """`others`: the sealed previous secrets, which still sign. `own`: the partner's networks."""
    secrets = endpoint_secrets.opened(runtime, endpoint, others)
    if not secrets:
        return Outcome(Kind.UNSIGNED, None, None, "", "The endpoint's signing secret does not open.", 0)
    body = payload(event)
    headers = {
        "content-type": "application/json",
        "user-agent": "Registrar-Webhooks/1",
        **signature.sign(secrets, str(event.id), now, body),
    }
    patience = endpoint_health.patience(endpoint.consecutive_failures, runtime.settings.webhook_timeout_s)
    return await runtime.outbound.post(endpoint.url, content=body, headers=headers, timeout=patience, own=own)


async def _hand_over(runtime: Runtime, claim: DeliveryClaim) -> bool:
    """Releases the delivery for the next claim at once. False if that could not be recorded."""
    try:
        async with runtime.transaction(claim) as tx:
            await leases.give_up(tx, leases.DELIVERIES, claim)
            tx.wake(WakeKind.DELIVERIES)
    except (DBAPIError, OSError):
        log.warning("delivery_not_handed_over", delivery_id=str(claim.id))
        return False
    return True


def payload(event: StoredEvent) -> bytes:
    """The signed body: the same bytes at every attempt."""
    data = {**event.data, "sequence": event.sequence}
    return orjson.dumps({"type": event.type, "timestamp": stamp(event.occurred_at), "data": data})


async def _record_attempt(
    runtime: Runtime, claim: DeliveryClaim, started_at: datetime, outcome: Outcome
) -> None:
    now = runtime.now()
    succeeded, gone = outcome.kind is Kind.SUCCEEDED, outcome.kind is Kind.GONE
    due_at = (
        None
        if succeeded or gone
        else schedule.next_delivery(claim.attempts + 1, now, runtime.random(), outcome.retry_after)
    )
    if succeeded:
        state = DeliveryState.SUCCEEDED
    else:
        state = DeliveryState.EXHAUSTED if due_at is None else DeliveryState.RETRYING
    async with runtime.transaction(claim) as tx:
        endpoint = await events.lock_endpoint(tx, claim.endpoint_id)
        if endpoint is None:
            return
        await delivery_claims.add_attempt(
            tx,
            claim,
            attempt_id=new_row_id(),
            status=outcome.status,
            kind=outcome.kind.value,
            excerpt=outcome.excerpt or outcome.detail or None,
            duration_ms=outcome.duration_ms,
            started_at=started_at,
        )
        held = await delivery_claims.finish_delivery_attempt(
            tx,
            claim,
            state=state.value,
            status=outcome.status,
            kind=outcome.kind.value,
            due_at=due_at,
            now=now,
        )
        await _judge_endpoint(tx, claim, endpoint, succeeded=succeeded, gone=gone, now=now)
        tx.committed.append(lambda: metrics.delivery_attempted(outcome.kind))
        if not held:
            tx.committed.append(lambda: metrics.leases_ended(LeaseEnd.CLAIM_LOST))
        if held and due_at is not None:
            tx.wake(WakeKind.DELIVERIES, at=due_at)
    if held and state is DeliveryState.EXHAUSTED:
        log.error("delivery_exhausted", delivery_id=str(claim.id), endpoint_id=str(claim.endpoint_id))


async def _judge_endpoint(
    tx: PartnerTx, claim: DeliveryClaim, endpoint: HeldEndpoint, *, succeeded: bool, gone: bool, now: datetime
) -> None:
    """Updates the endpoint's failures, state and pause. The endpoint is locked, so attempts that end together
    count one after another, and one that ends after the endpoint was disabled does not enable it."""
    old = EndpointState(endpoint.state)
    failures = 0 if succeeded else endpoint.consecutive_failures + 1
    if gone or old is EndpointState.DISABLED:
        state = EndpointState.DISABLED
    else:
        state = EndpointState.DEGRADED if endpoint_health.is_degraded(failures) else EndpointState.ENABLED
    if failures == endpoint.consecutive_failures and state is old:
        return
    values: dict[str, Any] = {"consecutive_failures": failures}
    if state is not old:
        values |= {"state": state.value, "updated_at": now}
        log.warning(
            "endpoint_state_changed", endpoint_id=str(claim.endpoint_id), was=old.value, state=state.value
        )
    await events.update_endpoint(tx, claim.endpoint_id, values)
    if wait := endpoint_health.pause(failures):
        await delivery_claims.pause(tx, claim.endpoint_id, now + wait)
        tx.wake(WakeKind.DELIVERIES, at=now + wait)
    elif old is EndpointState.DEGRADED:
        await delivery_claims.end_pause(tx, claim.endpoint_id)
        tx.wake(WakeKind.DELIVERIES, lanes=endpoint_health.WINDOW)
    if gone:
        await events.exhaust_deliveries(tx, claim.endpoint_id, now)

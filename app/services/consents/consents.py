"""Consent: its changes, and their effect on waiting work.

A grant releases held work without a new request; a revocation holds what is not yet sent.
"""

from datetime import datetime, timedelta
from uuid import UUID

from app.db import batches, connections, customers, holds, orders
from app.db.ids import new_row_id
from app.domain import consent
from app.domain.actor import ActingFor, Principal
from app.domain.connection import Connection, ConnectionMode
from app.domain.consent import Change, ConsentChange, ConsentState, Evidence
from app.domain.customer import Customer
from app.domain.errors import Conflict, NotFound, Unprocessable
from app.domain.event import ConsentData, EventType
from app.domain.hold import HoldReason
from app.domain.quota import KEPT_BY_HAND
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.access.identities import Caller
from app.services.events.publishing import Happening, order_news, publish

log = logger("consents")


async def apply_change(runtime: Runtime, tx: PartnerTx, customer_id: UUID, change: Change) -> bool:
    """Changes the state, with its history, its effect on waiting work and its events.

    Checks again under the lock: False if another process was quicker or the move is not legal.
    """
    now = runtime.now()
    row = await customers.consent_for_update(tx, customer_id)
    if row is None:
        return False
    old = row.state
    if change.state not in consent.CONSENT_TRANSITIONS[old]:
        return False
    await customers.set_consent(
        tx,
        customer_id,
        change_id=new_row_id(),
        from_state=old,
        to_state=change.state,
        evidence=change.evidence,
        now=now,
        note=change.note,
        made_by=tx.actor.key_id if change.evidence is Evidence.MANUAL else None,
    )
    log.info("consent_changed", customer_id=str(customer_id), was=old.value, state=change.state.value)
    if consent.lets_pass(old) == consent.lets_pass(change.state):
        return True
    await _move_work(tx, customer_id, change, now)
    return True


async def _move_work(tx: PartnerTx, customer_id: UUID, change: Change, now: datetime) -> None:
    """Releases or holds the customer's waiting batches. Orders are locked first, as everywhere."""
    affected = await orders.waiting_of_customer(tx, customer_id)
    for order_id in affected:
        await orders.lock(tx, order_id)
    if consent.lets_pass(change.state):
        moved = await holds.remove(tx, customer_id, HoldReason.CONSENT, now)
        event = EventType.CONSENT_GRANTED
        hastened = await batches.hasten_under_way(tx, customer_id, now)
        if moved or hastened:
            tx.wake(WakeKind.BATCHES, lanes=len(moved) + hastened)
    else:
        moved = await holds.add(tx, customer_id, HoldReason.CONSENT, now)
        event = EventType.CONSENT_REVOKED
    told = ConsentData(customer_id, change.state, change.evidence, devices=sum(moved))
    happenings = [Happening(event, told, customer_id=customer_id)]
    for order_id in affected:
        happenings += await order_news(tx, order_id)
    await publish(tx, happenings, now)


async def doubt_all(runtime: Runtime, tx: PartnerTx, connection_id: UUID) -> None:
    """Doubts all consents of a connection that has a new tenant: they were given to the old one.

    Unsent work is held until the new tenant's customers list has been read, which is due at once.
    """
    for row in await customers.list_of_connection(tx, connection_id):
        change = consent.after_tenant_change(row.consent_state)
        if change is not None:
            await apply_change(runtime, tx, row.id, change)


async def get_customer(runtime: Runtime, principal: Principal, customer_id: UUID) -> Customer:
    async with runtime.reading(principal) as tx:
        customer = await customers.get(tx, customer_id)
    if customer is None:
        raise NotFound("unknown_customer")
    return customer


async def history(runtime: Runtime, principal: Principal, customer_id: UUID) -> list[ConsentChange]:
    async with runtime.reading(principal) as tx:
        return await customers.consent_history(tx, customer_id)


async def record(
    runtime: Runtime, caller: Caller, customer_id: UUID, state: ConsentState, note: str
) -> Customer:
    """Records consent that a person has seen at the portal or been told of, and returns the customer.

    Only for platforms that do not show consent: elsewhere the next reading of the list would undo it.
    Recording `granted` again renews the proof.
    """
    now = runtime.now()
    change = Change(state, Evidence.MANUAL, note)
    async with runtime.transaction(caller) as tx:
        customer = await customers.get(tx, customer_id)
        if customer is None:
            raise NotFound("unknown_customer", f"There is no customer {customer_id}.")
        connection = await connections.get(tx, customer.connection_id)
        if connection is None or _is_looked_up(runtime, connection):
            raise Unprocessable("consent_is_looked_up")
        row = await customers.consent_for_update(tx, customer_id)
        old = ConsentState.UNKNOWN if row is None else row.state
        if old is not state:
            if not await apply_change(runtime, tx, customer_id, change):
                raise Conflict(
                    "invalid_state", f"The consent is {old.value}: it cannot become {state.value}."
                )
        elif state is ConsentState.GRANTED:
            await customers.set_consent(
                tx,
                customer_id,
                change_id=new_row_id(),
                from_state=old,
                to_state=state,
                evidence=change.evidence,
                now=now,
                note=note,
                made_by=tx.actor.key_id,
            )
        if state is ConsentState.GRANTED:
            await customers.note_proof(tx, customer_id, now)
        await customers.forget_consents_by_hand(tx, customer_id, keep=KEPT_BY_HAND)
    return await get_customer(runtime, caller, customer_id)


def _is_looked_up(runtime: Runtime, connection: Connection) -> bool:
    shows_consent = runtime.abilities[connection.platform].consent is not None
    return connection.mode is ConnectionMode.API and shows_consent


async def age(runtime: Runtime) -> int:
    """Marks old proofs of consent as stale. For the sweep."""
    now = runtime.now()
    valid_for = timedelta(days=runtime.settings.consent_valid_days)
    async with runtime.system_transaction() as tx:
        aged = await customers.aged_consents(tx, proved_before=now - valid_for)
    changed = 0
    for row in aged:
        principal, customer_id = ActingFor(row.partner_id), row.customer_id
        async with runtime.transaction(principal) as tx:
            known = await customers.consent_for_update(tx, customer_id)
            if known is None:
                continue
            change = consent.after_time(
                known.state,
                proved_at=known.proved_at or known.since,
                now=now,
                valid_for=valid_for,
            )
            if change is not None:
                changed += await apply_change(runtime, tx, customer_id, change)
    return changed

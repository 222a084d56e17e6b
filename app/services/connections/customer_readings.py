"""Reads a connection's customers list, the evidence of consent.

The list is always read completely; a customer on it has consented.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy.exc import SQLAlchemyError

from app.db import connections, customers, leases
from app.db.engine import is_passing
from app.db.leases import LostClaim
from app.domain import consent
from app.domain.actor import Principal
from app.domain.connection import ReadingClaim
from app.domain.consent import Change, ConsentState, Evidence
from app.domain.customer import Customer
from app.domain.errors import Unprocessable
from app.domain.upstream import (
    ConnectionTrouble,
    HeldBack,
    NotUnderstood,
    Refused,
    Said,
    Throttled,
    UpstreamFailure,
)
from app.kernel import metrics
from app.kernel.handover import hand_over_patiently
from app.kernel.metrics import LeaseEnd
from app.kernel.telemetry import logger, origin
from app.kernel.transactions import PartnerTx
from app.platforms.base import ConsentEvidence
from app.runtime import Runtime
from app.services.connections import troubles
from app.services.connections.access import ConnectionAccess, is_trouble, note_trouble, open_access
from app.services.consents.consents import apply_change, get_customer

log = logger("consents")

UNREAD_PATIENCE = timedelta(minutes=15)
"""How long outages may prevent the reading of the customers list before the connection is in trouble."""
FIRST_PAUSE = timedelta(seconds=15)
"""The first pause after a failed reading; each is half of the time that the trouble has lasted."""


@dataclass(frozen=True, slots=True)
class Reading:
    changes: int


@dataclass
class _Lease:
    """A worker's claim of a reading, renewed while the reading runs."""

    runtime: Runtime
    claim: ReadingClaim
    _kept_at: datetime

    async def keep(self) -> None:
        """Raises LostClaim."""
        if self.runtime.now() - self._kept_at >= self.runtime.settings.lease / 4:
            async with self.runtime.transaction(self.claim) as tx:
                await self.renew(tx)

    async def renew(self, tx: PartnerTx) -> None:
        """Raises LostClaim. No other worker can take the reading until the transaction ends."""
        now = self.runtime.now()
        if not await leases.renew(tx, leases.READINGS, self.claim, now + self.runtime.settings.lease):
            raise LostClaim
        self._kept_at = now


async def read_customers(
    runtime: Runtime, principal: Principal, connection_id: UUID, lease: _Lease | None = None
) -> Reading:
    """Reads the connection's customers list and applies it. Raises LostClaim with a `lease`, and
    UpstreamFailure. A failure that is more than temporary has then been recorded as the connection's
    trouble."""
    started_at = runtime.now()
    access = await open_access(runtime, principal, connection_id)
    evidence = _evidence(access)
    try:
        listed = set[UUID]()
        async for customer in evidence.customers(access):
            listed.add(customer.tenant_id)
            if lease is not None:
                await lease.keep()
    except UpstreamFailure as failure:
        trouble = _trouble_of(access, failure, runtime.now())
        if trouble is not None:
            await note_trouble(runtime, principal, connection_id, trouble, began=started_at)
        raise
    return await _apply_listing(runtime, access, listed, started_at, lease)


def _evidence(access: ConnectionAccess) -> ConsentEvidence:
    """Raises Unprocessable if the platform shows no consent."""
    if access.abilities.consent is None:
        raise Unprocessable("platform_cannot_tell", f"{access.platform.title} does not show who consented.")
    return access.abilities.consent


def _trouble_of(access: ConnectionAccess, failure: UpstreamFailure, now: datetime) -> UpstreamFailure | None:
    """The failure as trouble to show, or None. Orders lack consent while the list cannot be read."""
    if is_trouble(failure):
        return failure
    if isinstance(failure, Throttled | HeldBack):
        return None
    last_read = access.record.customers_read_at or access.record.created_at
    if isinstance(failure, Refused) or now - last_read > UNREAD_PATIENCE:
        return ConnectionTrouble("customers_not_read", failure.said)
    return None


async def _apply_listing(
    runtime: Runtime,
    access: ConnectionAccess,
    listed: Collection[UUID],
    started_at: datetime,
    lease: _Lease | None,
) -> Reading:
    """Stores a reading. Of two concurrent readings the one that began later wins, whichever ends first."""
    now, connection_id = runtime.now(), access.connection_id
    async with runtime.transaction(access.principal) as tx:
        if not await _is_still_of(tx, access, for_change=True):
            return Reading(0)
        if lease is not None:
            await lease.renew(tx)
        if not await connections.note_reading(tx, connection_id, started_at):
            return Reading(0)
        known = await customers.list_of_connection(tx, connection_id)
        seen = [row.id for row in known if row.entra_tenant_id in listed]
        await customers.note_consent_checked(tx, connection_id, listed=seen, now=now)
        await troubles.end_after_reading(runtime, tx, connection_id, unless_code=access.unprovable)
    changed = 0
    for row in known:
        change = consent.after_listing(row.consent_state, listed=row.entra_tenant_id in listed)
        if change is not None:
            if lease is not None:
                await lease.keep()
            # One transaction for each customer, so that much waiting work of one does not delay the others.
            async with runtime.transaction(access.principal) as tx:
                if not await _is_still_of(tx, access):
                    break
                changed += await apply_change(runtime, tx, row.id, change)
    return Reading(changed)


async def _is_still_of(tx: PartnerTx, access: ConnectionAccess, *, for_change: bool = False) -> bool:
    """Whether the connection still has the tenant whose list was read. True until the transaction ends.
    Locks the connection before any consent, as everywhere, to avoid deadlocks."""
    present = await connections.hold_identity(tx, access.connection_id, for_change=for_change)
    return present is not None and present.entra_tenant_id == access.entra_tenant_id


async def recheck(runtime: Runtime, principal: Principal, customer_id: UUID) -> Customer:
    """Reads the list at once and returns the customer with the resulting consent."""
    customer = await get_customer(runtime, principal, customer_id)
    await read_customers(runtime, principal, customer.connection_id)
    return await get_customer(runtime, principal, customer_id)


async def request(runtime: Runtime, principal: Principal, customer_id: UUID) -> str:
    """Returns the link for the customer's administrator, and records that consent was requested."""
    began = runtime.now()
    customer = await get_customer(runtime, principal, customer_id)
    access = await open_access(runtime, principal, customer.connection_id)
    try:
        link = await _evidence(access).consent_link(access)
    except NotUnderstood as unread:
        await note_trouble(runtime, principal, access.connection_id, unread, began=began)
        raise
    state = customer.consent_state
    if not consent.lets_pass(state) and state is not ConsentState.REQUESTED:
        async with runtime.transaction(principal) as tx:
            await apply_change(runtime, tx, customer_id, Change(ConsentState.REQUESTED, Evidence.LINK_ISSUED))
    return link


async def read_due(runtime: Runtime) -> bool:
    """Reads one connection's customers list if one is due; False if none is. For the workers."""
    now = runtime.now()
    async with runtime.system_transaction() as tx:
        claim = await connections.claim_customers_reading(
            tx,
            owner=uuid4(),
            worker_id=runtime.presence.worker_id,
            now=now,
            lease=runtime.settings.lease,
            interval=timedelta(seconds=runtime.settings.consent_interval_s),
        )
    if claim is None:
        return False
    try:
        again_at = await _read_claimed(runtime, claim, now)
    except LostClaim:
        metrics.leases_ended(LeaseEnd.CLAIM_LOST)
        log.warning("reading_lost", connection_id=str(claim.id))
    except asyncio.CancelledError:
        # The worker is stopping: let another one read the list at once.
        await asyncio.shield(_hand_over(runtime, claim, runtime.now()))
        raise
    except Exception:
        await hand_over_patiently(lambda: _hand_over(runtime, claim, now + FIRST_PAUSE))
        raise
    else:
        await _hand_over(runtime, claim, again_at)
    return True


async def _read_claimed(runtime: Runtime, claim: ReadingClaim, now: datetime) -> datetime | None:
    """Reads the list. Returns when to read it again, if that is before the usual time. Raises LostClaim, and
    database errors that a retry may overcome."""
    try:
        await read_customers(runtime, claim, claim.id, _Lease(runtime, claim, now))
    except Throttled as throttled:
        async with runtime.transaction(claim) as tx:
            await connections.postpone(tx, claim.id, now + (throttled.retry_after or timedelta(minutes=1)))
    except Unprocessable:
        pass  # the platform shows no consent
    except ConnectionTrouble:
        pass  # recorded; the next reading at the usual time tests whether it works again
    except HeldBack as held:
        return now + held.retry_after
    except UpstreamFailure as failure:
        log.warning("customers_not_read", connection_id=str(claim.id), said=str(failure.said))
        return await _next_after_failure(runtime, claim)
    except LostClaim:
        raise
    except Exception as error:
        if is_passing(error):
            raise
        # Go on with the readings of the other connections.
        log.error("customers_reading_failed", connection_id=str(claim.id), **origin(error))
        said = Said(description=f"Registrar failed while reading it: {origin(error)['error']}")
        broken = ConnectionTrouble("customers_not_read", said)
        await note_trouble(runtime, claim, claim.id, broken, began=now)
    return None


async def _next_after_failure(runtime: Runtime, claim: ReadingClaim) -> datetime:
    """When to read again after a failure: soon, then with growing pauses up to the usual interval."""
    now = runtime.now()
    async with runtime.transaction(claim) as tx:
        record = await connections.get(tx, claim.id)
    since = record.trouble_since if record is not None else None
    return now + max(FIRST_PAUSE, (now - (since or now)) / 2)


async def _hand_over(runtime: Runtime, claim: ReadingClaim, again_at: datetime | None) -> bool:
    try:
        async with runtime.transaction(claim) as tx:
            if await leases.give_up(tx, leases.READINGS, claim) and again_at is not None:
                await connections.hasten_customers(tx, claim.id, again_at)
    except (SQLAlchemyError, OSError):
        # The list is read again when the lease ends.
        log.warning("reading_not_handed_over", connection_id=str(claim.id))
        return False
    return True

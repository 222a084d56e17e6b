"""Accepts an order: checks it and stores it whole, or refuses it whole with the reason."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from anyio import to_thread
from sqlalchemy.exc import IntegrityError

from app.db import customers, group_tags, orders
from app.db.orders import TakenReference
from app.domain.actor import Principal
from app.domain.catalogue import Finding
from app.domain.connection import ConnectionMode
from app.domain.customer import OrderableCustomer
from app.domain.errors import Conflict, FieldError, Unprocessable
from app.domain.hold import HoldReason, of_customer
from app.domain.identity import Given
from app.domain.planning import OrderRules, Plan, PlannedRow
from app.domain.quota import Quota
from app.domain.registration import RegistrationState
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.access import quotas
from app.services.connections.terms import order_rules, read_orderable, refuse_long_tag
from app.services.devices import earlier_registrations
from app.services.devices.earlier_registrations import Patterns
from app.services.orders import birth
from app.services.orders.birth import first_counts
from app.services.orders.order_writer import OrderStorage
from app.services.orders.orders import OrderView

log = logger("acceptance")

MAX_SHOWN_ERRORS = 100
"""The most rows named in a refusal; all are counted."""


@dataclass(frozen=True, slots=True)
class NewOrder:
    customer_id: UUID
    reference: str
    devices: Sequence[Given]
    body_digest: bytes
    purchase_order: str | None = None
    group_tag: str | None = None
    reject_invalid: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """The effect of accepting the order."""

    plan: Plan
    holds: frozenset[HoldReason]
    """Why the valid devices wait instead of being sent at once."""
    mode: ConnectionMode
    """In portal mode, each batch is a file that a person uploads."""

    @property
    def counts(self) -> dict[RegistrationState, int]:
        return first_counts(valid=self.plan.valid, invalid=self.plan.invalid, holds=self.holds)


@dataclass(frozen=True, slots=True)
class Acceptance:
    view: OrderView
    preview: Preview


@dataclass(frozen=True, slots=True)
class _Basis:
    """What an order is checked against, read when the order arrives."""

    customer: OrderableCustomer
    rules: OrderRules
    known_tags: Mapping[str, str]
    now: datetime

    def plan(self, late: Mapping[int, Finding] | None = None) -> Plan:
        return Plan(self.rules, self.known_tags, self.now, late)


async def preview(runtime: Runtime, principal: Principal, new: NewOrder) -> Preview:
    """Runs the checks of `accept` and stores nothing."""
    basis = await _basis(runtime, principal, new)
    plan = basis.plan()
    async with runtime.transaction(principal) as tx:
        taken = await orders.get_by_reference(tx, new.reference)
        async for _ in _planned(tx, new, plan, None):
            pass
        if plan.late:
            plan = basis.plan(plan.late)
            async for _ in _planned(tx, new, plan, None):
                pass
    _refuse_if_asked(new, plan)
    if taken is not None:
        raise _reference_taken(new, taken)
    holds = of_customer(basis.customer.consent_state)
    return Preview(plan, holds, basis.customer.mode)


@asynccontextmanager
async def accept(
    runtime: Runtime, principal: Principal, new: NewOrder
) -> AsyncIterator[tuple[PartnerTx, Acceptance]]:
    """Checks and stores the order whole: rows, hashes, batches, first events, in one transaction.

    The transaction commits when the block ends, so that the answer to an Idempotency-Key is stored together
    with the order. Raises NotFound, Unprocessable (also `quota_exceeded`) or Conflict; then nothing is
    stored.
    """
    basis = await _basis(runtime, principal, new)
    try:
        async with _stored(runtime, principal, new, basis) as (tx, acceptance):
            yield tx, acceptance
            # Last, because the lock lasts until the commit and the partner's other orders wait for it.
            await quotas.require(tx, Quota.DEVICES, adding=len(new.devices))
    except IntegrityError as error:
        async with runtime.transaction(principal) as tx:
            taken = await orders.get_by_reference(tx, new.reference)
        if taken is None:
            raise
        raise _reference_taken(new, taken) from error
    plan = acceptance.preview.plan
    log.info(
        "order_accepted",
        order_id=str(acceptance.view.record.id),
        devices=len(plan.rows),
        invalid=plan.invalid,
        batches=len(plan.batches),
        holds=sorted(acceptance.preview.holds),
    )


class _Late(Exception):
    """Invalid rows have been stored as valid: roll back and plan again."""

    def __init__(self, late: Mapping[int, Finding]) -> None:
        super().__init__()
        self.late = late


@asynccontextmanager
async def _stored(
    runtime: Runtime, principal: Principal, new: NewOrder, basis: _Basis
) -> AsyncIterator[tuple[PartnerTx, Acceptance]]:
    """Stores the order without committing it; plans again if rows are found late to be invalid."""
    plan = basis.plan()
    while True:
        try:
            async with runtime.transaction(principal) as tx:
                await quotas.look_ahead(tx, Quota.DEVICES, adding=len(new.devices))
                yield tx, await _store(runtime, tx, new, basis.customer, plan)
        except _Late as found:
            plan = basis.plan(found.late)
            continue
        return


CHUNK = 1000
"""Rows checked together while the previous ones are being stored. Passing them to the database occupies the
event loop for ten milliseconds, so large orders go to the intake process, which has no other callers."""


async def _planned(
    tx: PartnerTx, new: NewOrder, plan: Plan, order_id: UUID | None
) -> AsyncIterator[list[PlannedRow]]:
    """Yields the rows chunk by chunk. A thread checks the next chunk while the caller stores one."""
    devices, patterns = new.devices, Patterns()
    following = asyncio.ensure_future(to_thread.run_sync(plan.check, devices[:CHUNK]))
    try:
        for start in range(CHUNK, len(devices) + CHUNK, CHUNK):
            checked = await following
            if start < len(devices):
                piece = devices[start : start + CHUNK]
                following = asyncio.ensure_future(to_thread.run_sync(plan.check, piece))
            names = [device.names for device in checked]
            said = await earlier_registrations.compare(
                tx, new.customer_id, names, patterns=patterns, but_order=order_id
            )
            yield plan.add(checked, said)
    finally:
        following.cancel()


async def _basis(runtime: Runtime, principal: Principal, new: NewOrder) -> _Basis:
    async with runtime.transaction(principal) as tx:
        customer = await read_orderable(runtime, tx, new.customer_id)
        tags = await group_tags.known(tx, new.customer_id)
    rules = order_rules(runtime, customer, new.group_tag)
    refuse_long_tag(runtime.settings, rules.group_tag)
    return _Basis(customer, rules, tags, runtime.now())


def _refuse_if_asked(new: NewOrder, plan: Plan) -> None:
    if not (new.reject_invalid and plan.invalid):
        return
    errors = [
        row_error(number, finding)
        for number, row in enumerate(plan.rows, start=1)
        for finding in row.findings
        if finding.is_error
    ]
    raise Unprocessable(
        "order_rejected",
        f"{plan.invalid} of {len(plan.rows)} rows are invalid; nothing was stored.",
        errors[:MAX_SHOWN_ERRORS],
    )


def row_error(number: int, finding: Finding) -> FieldError:
    """`number` counts the order's devices from 1; JSON pointers count from 0."""
    pointer = f"/devices/{number - 1}" + (f"/{finding.field}" if finding.field else "")
    return FieldError(pointer, finding.code, finding.detail, row=number)


def _reference_taken(new: NewOrder, taken: TakenReference) -> Conflict:
    same = taken.body_digest == new.body_digest
    words = "with the same content: nothing was lost" if same else "with other content"
    return Conflict(
        "reference_taken",
        f"Order {taken.id} has the reference {new.reference!r} already, {words}.",
        links={"order_id": str(taken.id)},
    )


async def _store(
    runtime: Runtime, tx: PartnerTx, new: NewOrder, customer: OrderableCustomer, plan: Plan
) -> Acceptance:
    """Raises _Late if the rows must be planned again."""
    now = runtime.now()
    # Consent is read again under a lock, so that it cannot be revoked before this order is stored.
    holds = await customers.holds_for_share(tx, new.customer_id)
    order = await birth.add(
        tx,
        customer,
        reference=new.reference,
        purchase_order=new.purchase_order,
        group_tag=plan.group_tag,
        device_count=len(new.devices),
        body_digest=new.body_digest,
        created_by=tx.actor.key_id,
        now=now,
    )
    storage = OrderStorage(tx, order, holds=holds, now=now)
    async for rows in _planned(tx, new, plan, order.id):
        if not (new.reject_invalid and plan.invalid):
            await storage.add(plan, rows)
    if plan.late:
        raise _Late(plan.late)
    _refuse_if_asked(new, plan)
    await storage.close(plan)
    counts = {"valid": plan.valid, "invalid": plan.invalid}
    view = await birth.announce(
        runtime, tx, order, **counts, batch_count=len(plan.batches), holds=holds, now=now
    )
    return Acceptance(view, Preview(plan, holds, customer.mode))

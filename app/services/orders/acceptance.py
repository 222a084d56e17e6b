"""Accepting an order: checked and stored whole, or refused whole with the reason."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from anyio import to_thread
from sqlalchemy.exc import IntegrityError

from app.db import connections, customers, group_tags, orders
from app.db.ids import new_row_id
from app.db.orders import TakenReference
from app.domain.actor import Principal
from app.domain.catalogue import Finding
from app.domain.connection import Connection, ConnectionMode
from app.domain.customer import Customer
from app.domain.errors import Conflict, FieldError, NotFound, Unprocessable
from app.domain.event import EventType
from app.domain.group_tag import tag_of
from app.domain.hold import HoldReason, first_state, of_new_work
from app.domain.identity import Given
from app.domain.order import Order
from app.domain.planning import Plan, PlannedRow, Terms
from app.domain.quota import Quota
from app.domain.registration import RegistrationState
from app.kernel import metrics
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.platforms.base import Platform
from app.runtime import Runtime
from app.services.access import quotas
from app.services.connections.terms import batch_size, refuse_barred, rules_of
from app.services.devices import earlier_registrations
from app.services.devices.earlier_registrations import Patterns
from app.services.events import waiting
from app.services.events.publishing import order_happening, order_news, publish
from app.services.orders.order_writer import OrderStorage
from app.services.orders.orders import OrderView

log = logger("acceptance")

MAX_SHOWN_ERRORS = 100
"""Rows named in a refusal; the rest is counted."""


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
    """What accepting the order does, or would do."""

    plan: Plan
    holds: frozenset[HoldReason]
    """Why the valid devices wait, and are not sent at once."""
    mode: ConnectionMode
    """Whether each batch is a file that a person uploads."""

    @property
    def counts(self) -> dict[RegistrationState, int]:
        waiting = RegistrationState(first_state(self.holds))
        return {waiting: self.plan.valid, RegistrationState.INVALID: self.plan.invalid}


@dataclass(frozen=True, slots=True)
class Acceptance:
    view: OrderView
    preview: Preview


@dataclass(frozen=True, slots=True)
class _Terms:
    """What an order is judged by."""

    customer: Customer
    connection: Connection
    platform: Platform
    judging: Terms


async def preview(runtime: Runtime, principal: Principal, new: NewOrder) -> Preview:
    """Runs the checks of `accept` and stores nothing."""
    terms = await _terms(runtime, principal, new)
    async with runtime.transaction(principal) as tx:
        taken = await orders.get_by_reference(tx, new.reference)
        plan = Plan(terms.judging)
        async for _ in _planned(tx, new, plan, None):
            pass
        if plan.is_spoilt:
            plan = Plan(terms.judging, whole=True)
            async for _ in _planned(tx, new, plan, None):
                pass
    _refuse_if_asked(new, plan)
    if taken is not None:
        raise _reference_taken(new, taken)
    return Preview(plan, of_new_work(terms.customer.consent_state), terms.connection.mode)


@asynccontextmanager
async def accept(
    runtime: Runtime, principal: Principal, new: NewOrder
) -> AsyncIterator[tuple[PartnerTx, Acceptance]]:
    """Checks and stores the order whole: rows, hashes, batches, first events, in one transaction.

    The transaction commits when the block ends, so that the answer to an Idempotency-Key is stored with what
    it tells of. Raises NotFound, Unprocessable (also `quota_exceeded`) or Conflict, and then has stored
    nothing.
    """
    terms = await _terms(runtime, principal, new)
    try:
        async with _stored(runtime, principal, new, terms) as (tx, acceptance):
            yield tx, acceptance
            # Last: the lock lasts until the commit, and the partner's other orders must not wait for it.
            await quotas.require(tx, Quota.DEVICES, adding=len(new.devices))
    except IntegrityError as error:
        async with runtime.transaction(principal) as tx:
            taken = await orders.get_by_reference(tx, new.reference)
        if taken is None:
            raise
        raise _reference_taken(new, taken) from error
    plan = acceptance.preview.plan
    metrics.devices_accepted(valid=plan.valid, invalid=plan.invalid)
    log.info(
        "order_accepted",
        order_id=str(acceptance.view.record.id),
        devices=len(plan.rows),
        invalid=plan.invalid,
        batches=len(plan.batches),
        holds=sorted(acceptance.preview.holds),
    )


class _Spoilt(Exception):
    """Rows have been stored as valid that are not: nothing of it may be committed."""


@asynccontextmanager
async def _stored(
    runtime: Runtime, principal: Principal, new: NewOrder, terms: _Terms
) -> AsyncIterator[tuple[PartnerTx, Acceptance]]:
    """The order, stored but not committed. Planned chunk by chunk, or as a whole where chunks do not do."""
    for whole in (False, True):
        try:
            async with runtime.transaction(principal) as tx:
                await quotas.look_ahead(tx, Quota.DEVICES, adding=len(new.devices))
                yield tx, await _store(runtime, tx, new, terms, whole=whole)
        except _Spoilt:
            if whole:
                raise
            continue
        return


CHUNK = 1000
"""Rows checked in one piece, while those before them are being stored. Handing a piece to the database takes
the event loop ten milliseconds: large orders are for the intake process, which answers nobody else."""


async def _planned(
    tx: PartnerTx, new: NewOrder, plan: Plan, order_id: UUID | None
) -> AsyncIterator[list[PlannedRow]]:
    """The rows chunk by chunk. The next chunk is being checked, in a thread, while one is handed out."""
    devices, patterns = new.devices, Patterns()
    size = len(devices) if plan.whole else CHUNK
    following = asyncio.ensure_future(to_thread.run_sync(plan.check, devices[:size]))
    try:
        for start in range(size, len(devices) + size, size):
            checked = await following
            if start < len(devices):
                piece = devices[start : start + size]
                following = asyncio.ensure_future(to_thread.run_sync(plan.check, piece))
            said = await earlier_registrations.compare(
                tx, new.customer_id, checked, patterns=patterns, but_order=order_id
            )
            yield plan.add(checked, said)
    finally:
        following.cancel()


async def _terms(runtime: Runtime, principal: Principal, new: NewOrder) -> _Terms:
    async with runtime.transaction(principal) as tx:
        customer = await customers.get(tx, new.customer_id)
        if customer is None:
            raise NotFound("unknown_customer", f"There is no customer {new.customer_id}.")
        connection = await connections.get(tx, customer.connection_id)
        assert connection is not None  # a foreign key holds it
        tags = await group_tags.known(tx, new.customer_id)
    platform = runtime.platforms[connection.platform]
    refuse_barred(platform, connection.partner_role, connection.mode)
    settings = runtime.settings
    group_tag = tag_of(new.group_tag, customer.default_group_tag, connection.default_group_tag)
    if len(group_tag) > settings.max_group_tag:
        detail = f"A group tag has at most {settings.max_group_tag} characters."
        raise Unprocessable(
            "validation_failed", detail, [FieldError("/group_tag", "group_tag_too_long", detail)]
        )
    rules = rules_of(runtime, platform, mode=connection.mode, group_tag=group_tag)
    judging = Terms(rules, group_tag, tags, batch_size(settings, platform), runtime.now())
    return _Terms(customer, connection, platform, judging)


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
    """`number` counts the order's devices from 1; pointers count from 0."""
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
    runtime: Runtime,
    tx: PartnerTx,
    new: NewOrder,
    terms: _Terms,
    *,
    whole: bool,
) -> Acceptance:
    """Raises _Spoilt where the rows must be planned as a whole."""
    now = runtime.now()
    # Consent is looked at again under a lock: nobody revokes between look and write.
    holds = of_new_work(await customers.consent_for_share(tx, new.customer_id))
    order = Order(
        id=new_row_id(),
        partner_id=tx.partner_id,
        customer_id=new.customer_id,
        connection_id=terms.connection.id,
        platform=terms.platform.name,
        reference=new.reference,
        purchase_order=new.purchase_order,
        group_tag=terms.judging.group_tag,
        device_count=len(new.devices),
        body_digest=new.body_digest,
        created_by=tx.actor.key_id,
        last_sequence=0,
        announced_state=None,
        created_at=now,
        updated_at=now,
        has_open_batches=False,
        mode=terms.connection.mode,
    )
    await orders.add(tx, order)
    storage = OrderStorage(tx, order, holds=holds, now=now)
    plan = Plan(terms.judging, whole=whole)
    async for rows in _planned(tx, new, plan, order.id):
        if not (new.reject_invalid and plan.invalid):
            await storage.add(plan, rows)
    if plan.is_spoilt:
        raise _Spoilt
    _refuse_if_asked(new, plan)
    await storage.close(plan)
    outcome = Preview(plan, holds, terms.connection.mode)
    gathered = await waiting.gather_orders(runtime, tx, [order.id])
    view = OrderView(
        replace(order, has_open_batches=bool(plan.batches)),
        outcome.counts,
        waiting.explain_rows(gathered, now)[order.id],
    )
    reasons = [waiting.in_words(reason) for reason in view.waiting_for]
    accepted = order_happening(EventType.ORDER_ACCEPTED, view.record, view.state, outcome.counts, reasons)
    await publish(tx, [accepted, *await order_news(tx, order.id)], now)
    if plan.batches and not holds:
        tx.wake(WakeKind.BATCHES, lanes=min(len(plan.batches), runtime.settings.worker_lanes))
    return Acceptance(view, outcome)

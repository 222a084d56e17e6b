"""Accepting an order: checked and stored whole, or refused whole with the reason."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from anyio import to_thread
from sqlalchemy.exc import IntegrityError

from app.db import connections, customers, group_tags, orders, registrations, tables
from app.db.engine import encode_json, load
from app.db.ids import new_row_id, new_row_ids
from app.db.sql import Record
from app.domain import consent
from app.domain.batch import BatchState
from app.domain.catalogue import Finding
from app.domain.consent import ConsentState
from app.domain.errors import Conflict, FieldError, NotFound, Unprocessable
from app.domain.event import EventType
from app.domain.identity import Device, Rules
from app.domain.ids import PartnerId
from app.domain.registration import RegistrationState
from app.platforms.base import Platform
from app.queue import WakeKind
from app.runtime import Runtime, Tx
from app.services import portal_files
from app.services.events import order_happening, order_news, publish
from app.services.orders import OrderView
from app.services.planning import PlannedOrder, plan_order
from app.telemetry import logger

log = logger("acceptance")

MAX_SHOWN_ERRORS = 100
"""Rows named in a refusal; the rest is counted."""


@dataclass(frozen=True, slots=True)
class NewOrder:
    customer_id: UUID
    reference: str
    devices: Sequence[Device]
    body_digest: bytes
    purchase_order: str | None = None
    group_tag: str | None = None
    reject_invalid: bool = False
    created_by: UUID | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What accepting the order does, or would do."""

    planned: PlannedOrder
    held: bool
    """Whether the valid devices wait for the customer's consent."""

    @property
    def counts(self) -> dict[RegistrationState, int]:
        waiting = RegistrationState.HELD if self.held else RegistrationState.QUEUED
        return {waiting: self.planned.valid, RegistrationState.INVALID: self.planned.invalid}


@dataclass(frozen=True, slots=True)
class Acceptance:
    view: OrderView
    preview: Preview


@dataclass(frozen=True, slots=True)
class _Terms:
    """What an order is judged by."""

    customer: Record
    connection: Record
    platform: Platform
    known_tags: Mapping[str, str]


async def preview(runtime: Runtime, partner_id: PartnerId, new: NewOrder) -> Preview:
    """The very checks of `accept`, storing nothing."""
    terms = await _terms(runtime, partner_id, new.customer_id)
    planned = await _plan(runtime, new, terms)
    _refuse_if_asked(new, planned)
    async with runtime.transaction(partner_id) as tx:
        taken = await orders.get_by_reference(tx.session, partner_id, new.reference)
    if taken is not None:
        raise _reference_taken(new, taken)
    state = ConsentState(terms.customer["consent_state"])
    return Preview(planned, held=not consent.lets_pass(state))


async def accept(
    runtime: Runtime,
    partner_id: PartnerId,
    new: NewOrder,
    *,
    before_commit: Callable[[Tx, Acceptance], Awaitable[None]] | None = None,
) -> Acceptance:
    """Checks and stores the order whole: rows, hashes, batches, first events, in one transaction.

    Raises NotFound, Unprocessable or Conflict, and then has stored nothing. `before_commit` runs
    in the same transaction: the answer to an Idempotency-Key is stored with what it tells of.
    """
    terms = await _terms(runtime, partner_id, new.customer_id)
    planned = await _plan(runtime, new, terms)
    _refuse_if_asked(new, planned)
    try:
        async with runtime.transaction(partner_id) as tx:
            acceptance = await _store(runtime, tx, partner_id, new, terms, planned)
            if before_commit is not None:
                await before_commit(tx, acceptance)
    except IntegrityError as error:
        async with runtime.transaction(partner_id) as tx:
            taken = await orders.get_by_reference(tx.session, partner_id, new.reference)
        if taken is None:
            raise
        raise _reference_taken(new, taken) from error
    log.info(
        "order_accepted",
        order_id=str(acceptance.view.record["id"]),
        devices=len(planned.rows),
        invalid=planned.invalid,
        batches=len(planned.batches),
        held=acceptance.preview.held,
    )
    return acceptance


async def _terms(runtime: Runtime, partner_id: PartnerId, customer_id: UUID) -> _Terms:
    async with runtime.transaction(partner_id) as tx:
        customer = await customers.get(tx.session, partner_id, customer_id)
        if customer is None:
            raise NotFound("unknown_customer", f"There is no customer {customer_id}.")
        connection = await connections.get(tx.session, partner_id, customer["connection_id"])
        assert connection is not None  # a foreign key holds it
        tags = await group_tags.known(tx.session, partner_id, customer_id)
    platform = runtime.platforms[connection["platform"]]
    if not connection["portal"]:
        refuse_barred_role(platform, connection["partner_role"])
    return _Terms(customer, connection, platform, tags)


def refuse_barred_role(platform: Platform, role: str) -> None:
    """Says here what Microsoft would only answer with a 403."""
    if role in platform.barred_roles:
        raise Unprocessable(
            "partner_role_cannot_use_api",
            f"{platform.title} does not offer its API to partners of the role {role}.",
        )


async def _plan(runtime: Runtime, new: NewOrder, terms: _Terms) -> PlannedOrder:
    settings = runtime.settings
    capabilities = terms.platform.capabilities
    group_tag = new.group_tag or terms.customer["default_group_tag"] or terms.connection["default_group_tag"]
    if len(group_tag) > settings.max_group_tag:
        detail = f"A group tag has at most {settings.max_group_tag} characters."
        raise Unprocessable(
            "validation_failed", detail, [FieldError("/group_tag", "group_tag_too_long", detail)]
        )
    return await to_thread.run_sync(
        lambda: plan_order(
            new.devices,
            rules=Rules(
                capabilities.identities,
                max_group_tag=settings.max_group_tag,
                objection=portal_files.objection(runtime, terms.platform, group_tag)
                if terms.connection["portal"]
                else None,
            ),
            group_tag=group_tag,
            known_tags=terms.known_tags,
            max_devices=capabilities.max_devices,
            now=runtime.now(),
        )
    )


def _refuse_if_asked(new: NewOrder, planned: PlannedOrder) -> None:
    if not (new.reject_invalid and planned.invalid):
        return
    errors = [
        row_error(number, finding)
        for number, row in enumerate(planned.rows, start=1)
        for finding in row.device.findings
        if finding.is_error
    ]
    raise Unprocessable(
        "order_rejected",
        f"{planned.invalid} of {len(planned.rows)} rows are invalid; nothing was stored.",
        errors[:MAX_SHOWN_ERRORS],
    )


def row_error(number: int, finding: Finding) -> FieldError:
    """`number` counts the order's devices from 1; pointers count from 0."""
    pointer = f"/devices/{number - 1}" + (f"/{finding.field}" if finding.field else "")
    return FieldError(pointer, finding.code, finding.detail, row=number)


def _reference_taken(new: NewOrder, taken: Record) -> Conflict:
    same = taken["body_digest"] == new.body_digest
    words = "with the very same content: nothing was lost" if same else "with other content"
    return Conflict(
        "reference_taken",
        f"Order {taken['id']} has the reference {new.reference!r} already, {words}.",
        links={"order_id": str(taken["id"])},
    )


async def _store(
    runtime: Runtime,
    tx: Tx,
    partner_id: PartnerId,
    new: NewOrder,
    terms: _Terms,
    planned: PlannedOrder,
) -> Acceptance:
    now = runtime.now()
    # Consent is looked at again under a lock: nobody revokes between look and write.
    state = await customers.consent_for_share(tx.session, partner_id, new.customer_id)
    held = state is None or not consent.lets_pass(ConsentState(state))
    order_id = new_row_id()
    record = {
        "id": order_id,
        "customer_id": new.customer_id,
        "connection_id": terms.connection["id"],
        "platform": terms.platform.name,
        "reference": new.reference,
        "purchase_order": new.purchase_order,
        "group_tag": new.group_tag
        or terms.customer["default_group_tag"]
        or terms.connection["default_group_tag"],
        "device_count": len(planned.rows),
        "body_digest": new.body_digest,
        "created_by": new.created_by,
        "created_at": now,
        "updated_at": now,
    }
    await orders.add(tx.session, partner_id, record)
    batch_ids = await _store_batches(tx, partner_id, record, planned, held=held, now=now)
    await _store_rows(tx, partner_id, record, planned, batch_ids, now)
    outcome = Preview(planned, held)
    counts = outcome.counts
    more = {
        "partner_id": partner_id,
        "portal": terms.connection["portal"],
        "has_open_batches": bool(batch_ids),
    }
    view = OrderView({**record, **more}, counts)
    accepted = order_happening(EventType.ORDER_ACCEPTED, view.record, view.state, counts)
    news = [accepted, *await order_news(tx, partner_id, order_id)]
    await publish(tx, partner_id, news, now)
    if batch_ids and not held:
        tx.wake(WakeKind.BATCHES, lanes=min(len(batch_ids), runtime.settings.worker_lanes))
    return Acceptance(view, outcome)


async def _store_batches(
    tx: Tx, partner_id: PartnerId, order: Record, planned: PlannedOrder, *, held: bool, now: datetime
) -> list[UUID]:
    ids = new_row_ids(len(planned.batches))
    state = BatchState.HELD if held else BatchState.QUEUED
    columns = (
        "id",
        "partner_id",
        "order_id",
        "customer_id",
        "connection_id",
        "group_tag",
        "device_count",
        "state",
        "due_at",
        "correlation_id",
        "created_at",
        "updated_at",
    )
    await load(
        tx.session,
        tables.batches,
        columns,
        [
            (
                id,
                partner_id,
                order["id"],
                order["customer_id"],
                order["connection_id"],
                plan.group_tag,
                len(plan.rows),
                state.value,
                now,
                uuid4(),
                now,
                now,
            )
            for id, plan in zip(ids, planned.batches, strict=True)
        ],
    )
    return ids


async def _store_rows(
    tx: Tx,
    partner_id: PartnerId,
    order: Record,
    planned: PlannedOrder,
    batch_ids: Sequence[UUID],
    now: datetime,
) -> None:
    place = {
        index: (batch_id, position)
        for batch_id, plan in zip(batch_ids, planned.batches, strict=True)
        for position, index in enumerate(plan.rows)
    }
    ids = new_row_ids(len(planned.rows))
    rows = []
    hashes = []
    for index, (id, row) in enumerate(zip(ids, planned.rows, strict=True)):
        device = row.device
        batch_id, position = place.get(index, (None, None))
        error = next((finding for finding in device.findings if finding.is_error), None)
        is_valid = batch_id is not None
        rows.append(
            (
                id,
                partner_id,
                order["id"],
                order["customer_id"],
                batch_id,
                index + 1,
                position,
                (RegistrationState.QUEUED if is_valid else RegistrationState.INVALID).value,
                device.line_ref,
                row.group_tag,
                device.kind.value if device.kind is not None else None,
                device.search_serial,
                device.manufacturer,
                device.model,
                device.product_key,
                _findings(device.findings),
                None if error is None else error.code,
                None if error is None else error.detail,
                now,
                now,
                None if is_valid else now,
            )
        )
        if row.hash_data is not None:
            hashes.append((id, partner_id, row.hash_data))
    await registrations.add_many(tx.session, rows)
    await registrations.add_hashes(tx.session, hashes)


def _findings(findings: Sequence[Finding]) -> str | None:
    if not findings:
        return None
    return encode_json([{"code": f.code, "field": f.field, "detail": f.detail} for f in findings])

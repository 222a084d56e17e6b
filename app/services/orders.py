"""Orders: looking at them, cancelling what is not sent, trying what failed again."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.db import batches, customers, orders, registrations
from app.db.paging import Page, PageRequest
from app.db.sql import Record
from app.domain import batch, consent
from app.domain.batch import BatchState
from app.domain.consent import ConsentState
from app.domain.errors import Conflict, NotFound
from app.domain.ids import PartnerId
from app.domain.order import FINAL, OrderState, compute_state
from app.domain.registration import RETRYABLE, RegistrationState
from app.queue import WakeKind
from app.runtime import Runtime, Tx
from app.services.events import order_news, publish
from app.services.settlement import add_batch


@dataclass(frozen=True, slots=True)
class OrderView:
    record: Record
    counts: Mapping[RegistrationState, int]

    @property
    def state(self) -> OrderState:
        return compute_state(self.counts, has_open_batches=self.record["has_open_batches"])


async def get(runtime: Runtime, partner_id: PartnerId, order_id: UUID) -> OrderView:
    async with runtime.transaction(partner_id) as tx:
        return await _view(tx, partner_id, order_id)


async def _view(tx: Tx, partner_id: PartnerId, order_id: UUID) -> OrderView:
    record = await orders.get(tx.session, partner_id, order_id)
    if record is None:
        raise NotFound("not_found", f"There is no order {order_id}.")
    counts = await orders.counts(tx.session, partner_id, [order_id])
    return OrderView(record, counts[order_id])


async def list_page(
    runtime: Runtime,
    partner_id: PartnerId,
    page: PageRequest,
    *,
    customer_id: UUID | None = None,
    reference: str | None = None,
    purchase_order: str | None = None,
    state: OrderState | None = None,
    since: datetime | None = None,
) -> Page[OrderView]:
    async with runtime.transaction(partner_id) as tx:
        found = await orders.list_page(
            tx.session,
            partner_id,
            page,
            customer_id=customer_id,
            reference=reference,
            purchase_order=purchase_order,
            state=None if state is None else state.value,
            since=since,
        )
        counts = await orders.counts(tx.session, partner_id, [row["id"] for row in found.items])
    return Page([OrderView(row, counts[row["id"]]) for row in found.items], found.next_token)


async def cancel(runtime: Runtime, partner_id: PartnerId, order_id: UUID) -> OrderView:
    """Cancels what has not been sent; what is on its way goes on. Raises Conflict if nothing is left."""
    now = runtime.now()
    async with runtime.transaction(partner_id) as tx:
        if await orders.lock(tx.session, partner_id, order_id) is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        cancelled = await batches.cancel_waiting(tx.session, partner_id, order_id, now)
        if not cancelled:
            view = await _view(tx, partner_id, order_id)
            if view.state is OrderState.CANCELLED:
                return view
            words = "is over" if view.state in FINAL else "has been sent whole"
            raise Conflict("invalid_state", f"The order {words}: there is nothing left to cancel.")
        await registrations.cancel_batches(tx.session, partner_id, cancelled, now)
        await publish(tx, partner_id, await order_news(tx, partner_id, order_id), now)
        return await _view(tx, partner_id, order_id)


@dataclass(frozen=True, slots=True)
class Retry:
    view: OrderView
    retried: int
    without_hash: int
    """Rows that were sent by hash whose hash has been deleted meanwhile: they need a new order."""


async def retry_failed(runtime: Runtime, partner_id: PartnerId, order_id: UUID) -> Retry:
    """Puts the failed, conflicting and unknown rows into new batches. Raises Conflict if there are none."""
    now = runtime.now()
    async with runtime.transaction(partner_id) as tx:
        found = await orders.get(tx.session, partner_id, order_id)
        if found is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        # The consent before the order, as a change of consent takes them: or each would wait for the other.
        state = await customers.consent_for_share(tx.session, partner_id, found["customer_id"])
        held = state is None or not consent.lets_pass(ConsentState(state))
        order = await orders.lock(tx.session, partner_id, order_id)
        if order is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        rows = await registrations.retryable_of_order(tx.session, partner_id, order_id, RETRYABLE)
        ready = [row for row in rows if row["identity"] != "hardware_hash" or row["hashed"]]
        if not ready:
            detail = (
                "The hashes of the failed rows have been deleted: send them in a new order."
                if rows
                else "The order has no row that failed and whose batch is over."
            )
            raise Conflict("invalid_state", detail)
        await _requeue(runtime, tx, partner_id, order, ready, now, held=held)
        await publish(tx, partner_id, await order_news(tx, partner_id, order_id), now)
        view = await _view(tx, partner_id, order_id)
    return Retry(view, len(ready), len(rows) - len(ready))


async def _requeue(
    runtime: Runtime,
    tx: Tx,
    partner_id: PartnerId,
    order: Record,
    rows: Sequence[Record],
    now: datetime,
    *,
    held: bool,
) -> None:
    batch_state = BatchState.HELD if held else BatchState.QUEUED
    limit = runtime.platforms[order["platform"]].capabilities.max_devices
    by_tag: dict[str, list[UUID]] = defaultdict(list)
    for row in rows:
        by_tag[row["group_tag"]].append(row["id"])
    for tag, ids in by_tag.items():
        for plan in batch.plan([tag] * len(ids), limit):
            belongs_to = {
                "order_id": order["id"],
                "customer_id": order["customer_id"],
                "connection_id": order["connection_id"],
                "group_tag": tag,
            }
            batch_id = await add_batch(tx, partner_id, belongs_to, len(plan.rows), batch_state, now, now)
            await registrations.rebatch(tx.session, partner_id, batch_id, [ids[i] for i in plan.rows], now)
            if not held:
                tx.wake(WakeKind.BATCHES)

"""Orders: read them, cancel what is not sent, retry what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from app.db import batches, customers, orders, registrations
from app.db.batches import NewBatch
from app.db.chosen import EVERY_ROW, Choice
from app.db.paging import Page, PageRequest
from app.domain.actor import Principal
from app.domain.batch import BatchState, Cutting
from app.domain.errors import Conflict, NotFound
from app.domain.hold import HoldReason
from app.domain.identity import IdentityKind
from app.domain.order import FINAL, Order, OrderState, StoredOrder, compute_state
from app.domain.registration import RETRYABLE, RegistrationState
from app.domain.waiting import Waiting
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.connections.terms import batch_size
from app.services.events import waiting
from app.services.events.publishing import order_news, publish

RETRY_CHUNK = 1000
"""Rows that `retry_failed` reads at a time."""


@dataclass(frozen=True, slots=True)
class OrderView:
    record: Order
    counts: Mapping[RegistrationState, int]
    waiting_for: Sequence[Waiting] = ()
    """What its open batches wait for; reasons that need action come first."""

    @property
    def state(self) -> OrderState:
        return compute_state(self.counts, has_open_batches=self.record.has_open_batches)


async def get(runtime: Runtime, principal: Principal, order_id: UUID) -> OrderView:
    async with runtime.reading(principal) as tx:
        view = await _view(tx, order_id)
        gathered = await waiting.gather_orders(runtime, tx, _open([view]))
    [explained] = _explained([view], await waiting.explain(runtime, gathered))
    return explained


def _open(views: Sequence[OrderView]) -> list[UUID]:
    return [view.record.id for view in views if view.record.has_open_batches]


def _explained(views: Sequence[OrderView], reasons: waiting.Reasons) -> list[OrderView]:
    return [replace(view, waiting_for=reasons.get(view.record.id, ())) for view in views]


async def _view(tx: PartnerTx, order_id: UUID) -> OrderView:
    record = await orders.get(tx, order_id)
    if record is None:
        raise NotFound("not_found", f"There is no order {order_id}.")
    counts = await orders.counts(tx, [order_id])
    return OrderView(record, counts[order_id])


async def list_page(
    runtime: Runtime,
    principal: Principal,
    page: PageRequest,
    *,
    customer_id: UUID | None = None,
    reference: str | None = None,
    purchase_order: str | None = None,
    state: OrderState | None = None,
    since: datetime | None = None,
) -> Page[OrderView]:
    async with runtime.reading(principal) as tx:
        found = await orders.list_page(
            tx,
            page,
            customer_id=customer_id,
            reference=reference,
            purchase_order=purchase_order,
            state=None if state is None else state.value,
            since=since,
        )
        counts = await orders.counts(tx, [row.id for row in found.items])
        views = [OrderView(row, counts[row.id]) for row in found.items]
        gathered = await waiting.gather_orders(runtime, tx, _open(views))
    return Page(_explained(views, await waiting.explain(runtime, gathered)), found.next_token)


async def cancel(runtime: Runtime, principal: Principal, order_id: UUID) -> OrderView:
    """Cancels what has not been sent; the rest continues. Raises Conflict if nothing is left to cancel."""
    now = runtime.now()
    async with runtime.transaction(principal) as tx:
        if await orders.lock(tx, order_id) is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        waiting_ids = await batches.lock_waiting(tx, order_id)
        if not waiting_ids:
            view = await _view(tx, order_id)
            if view.state is OrderState.CANCELLED:
                return view
            words = "is over" if view.state in FINAL else "has been sent whole"
            raise Conflict("invalid_state", f"The order {words}: there is nothing left to cancel.")
        await registrations.cancel_batches(tx, waiting_ids, now)
        await batches.cancel(tx, waiting_ids, now)
        await publish(tx, await order_news(tx, order_id), now)
    return await get(runtime, principal, order_id)


@dataclass(frozen=True, slots=True)
class Retry:
    view: OrderView
    retried: int
    without_hash: int
    """Rows that were sent by hash and whose hash has since been deleted: they need a new order."""


async def retry_failed(
    runtime: Runtime, principal: Principal, order_id: UUID, choice: Choice = EVERY_ROW
) -> Retry:
    """Puts the chosen failed, conflicting and unknown rows into new batches.

    Raises Conflict if there are none.
    """
    now = runtime.now()
    async with runtime.transaction(principal) as tx:
        found = await orders.get(tx, order_id)
        if found is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        # Locks the consent before the order, as changes of consent do, to avoid deadlocks.
        holds = await customers.holds_for_share(tx, found.customer_id)
        order = await orders.lock(tx, order_id)
        if order is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        retried, without_hash = await _requeue(runtime, tx, order, choice, now, holds)
        if not retried:
            raise Conflict("invalid_state", _nothing_to_retry(choice, without_hash))
        await publish(tx, await order_news(tx, order_id), now)
    return Retry(await get(runtime, principal, order_id), retried, without_hash)


def _nothing_to_retry(choice: Choice, without_hash: int) -> str:
    if without_hash:
        return "The hashes of the failed rows have been deleted: send them in a new order."
    if choice != EVERY_ROW:
        return "None of the chosen rows has failed in a finished batch."
    return "The order has no row that failed and whose batch is over."


async def _requeue(
    runtime: Runtime,
    tx: PartnerTx,
    order: StoredOrder,
    choice: Choice,
    now: datetime,
    holds: frozenset[HoldReason],
) -> tuple[int, int]:
    """Moves the rows into new batches, tag by tag. Returns how many, and how many stay without a hash.

    Holds only a batch and a chunk of them at once, so that a failed order of the largest import needs no more
    memory than a small one.
    """
    cutting = Cutting(batch_size(runtime.settings, runtime.platforms[order.platform]))
    retried = without_hash = made = 0
    tag: str = ""
    ids: list[UUID] = []

    async def fill_batch() -> None:
        nonlocal made, ids
        if ids:
            owners = (order.id, order.customer_id, order.connection_id)
            new = NewBatch(*owners, tag, len(ids), BatchState.QUEUED, due_at=now)
            [batch_id] = await batches.add(tx, [new], now, holds=holds)
            await registrations.rebatch(tx, batch_id, ids, now)
            made, ids = made + 1, []

    found = registrations.retryable_of_order(tx, order.id, RETRYABLE, choice, chunk=RETRY_CHUNK)
    async for rows in found:
        for row in rows:
            if row.identity == IdentityKind.HARDWARE_HASH and not row.hashed:
                without_hash += 1
                continue
            _, position = cutting.place(row.group_tag)
            if position == 0:
                await fill_batch()
            tag = row.group_tag
            ids.append(row.id)
            retried += 1
    await fill_batch()
    if made and not holds:
        tx.wake(WakeKind.BATCHES, lanes=min(made, runtime.settings.worker_lanes))
    return retried, without_hash

"""The birth of an order: its row, its batches, its first events and wake-ups.

How its devices reach the database differs: by arrays where they come by JSON (`order_writer`), in SQL where
they are staged already (`imports.commit`). Everything else about a new order is said here.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from app.db import batches, orders
from app.db.batches import NewBatch
from app.db.ids import new_row_id
from app.domain.batch import BatchState
from app.domain.customer import OrderableCustomer
from app.domain.event import EventType
from app.domain.hold import HoldReason, first_state
from app.domain.order import Order
from app.domain.registration import RegistrationState
from app.kernel import metrics
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.events import waiting
from app.services.events.publishing import order_happening, order_news, publish
from app.services.orders.orders import OrderView


async def add(
    tx: PartnerTx,
    customer: OrderableCustomer,
    *,
    reference: str,
    purchase_order: str | None,
    group_tag: str,
    device_count: int,
    body_digest: bytes,
    created_by: UUID | None,
    now: datetime,
) -> Order:
    """The order itself; batches and devices follow. Raises IntegrityError for a reference that is taken."""
    order = Order(
        id=new_row_id(),
        partner_id=tx.partner_id,
        customer_id=customer.id,
        connection_id=customer.connection_id,
        platform=customer.platform,
        reference=reference,
        purchase_order=purchase_order,
        group_tag=group_tag,
        device_count=device_count,
        body_digest=body_digest,
        created_by=created_by,
        last_sequence=0,
        announced_state=None,
        created_at=now,
        updated_at=now,
        has_open_batches=False,
        mode=customer.mode,
    )
    await orders.add(tx, order)
    return order


async def add_batches(
    tx: PartnerTx,
    order: Order,
    planned: Iterable[tuple[str, int]],
    *,
    holds: Collection[HoldReason],
    now: datetime,
) -> list[UUID]:
    """`planned`: group tag and devices of each."""
    owners = (order.id, order.customer_id, order.connection_id)
    new = [NewBatch(*owners, tag, devices, BatchState.QUEUED, due_at=now) for tag, devices in planned]
    return await batches.add(tx, new, now, holds=holds)


def first_counts(*, valid: int, invalid: int, holds: Collection[HoldReason]) -> dict[RegistrationState, int]:
    """The devices of a new order by state."""
    waits = RegistrationState(first_state(holds))
    return {waits: valid, RegistrationState.INVALID: invalid}


async def announce(
    runtime: Runtime,
    tx: PartnerTx,
    order: Order,
    *,
    valid: int,
    invalid: int,
    batch_count: int,
    holds: Collection[HoldReason],
    now: datetime,
) -> OrderView:
    """Tells of the order once its devices are stored, and has workers begin when the transaction commits."""
    counts = first_counts(valid=valid, invalid=invalid, holds=holds)
    gathered = await waiting.gather_orders(runtime, tx, [order.id])
    reasons = waiting.explain_rows(gathered, now)[order.id]
    view = OrderView(replace(order, has_open_batches=batch_count > 0), counts, reasons)
    told = waiting.told(gathered, order.id, now)
    accepted = order_happening(EventType.ORDER_ACCEPTED, view.record, view.state, counts, told)
    await publish(tx, [accepted, *await order_news(tx, order.id)], now)
    tx.committed.append(lambda: metrics.devices_accepted(valid=valid, invalid=invalid))
    if batch_count and not holds:
        tx.wake(WakeKind.BATCHES, lanes=min(batch_count, runtime.settings.worker_lanes))
    return view

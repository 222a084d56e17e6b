"""Publishes events: writes them with the change that they report, and a delivery for each subscriber."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.db import events as events_table
from app.db import orders as orders_table
from app.db.ids import new_row_ids
from app.db.registrations import Settled
from app.domain.attempt import Kind
from app.domain.event import (
    EVENTS,
    EventType,
    OrderData,
    Payload,
    SettledData,
    SettledRow,
    WaitingReason,
    pages,
)
from app.domain.order import FINAL, Order, OrderState, StoredOrder, compute_state
from app.domain.registration import RegistrationState
from app.domain.subscription import hears
from app.domain.webhook import Subscriber
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.services.events import waiting

DELIVERY_LANES = 4


@dataclass(frozen=True, slots=True)
class Happening:
    type: EventType
    data: Payload
    order_id: UUID | None = None
    customer_id: UUID | None = None

    def __post_init__(self) -> None:
        if type(self.data) is not EVENTS[self.type].payload:
            raise TypeError(f"{self.type.value} does not tell {type(self.data).__name__}.")


async def publish(tx: PartnerTx, happenings: Sequence[Happening], now: datetime) -> None:
    """Writes the events and one delivery for each endpoint that subscribes to them, in this transaction."""
    if not happenings:
        return
    ids = new_row_ids(len(happenings))
    sequences = await _sequences(tx, happenings)
    await events_table.add_events(
        tx,
        [
            events_table.NewEvent(id, h.type, h.order_id, h.customer_id, sequence, h.data)
            for id, h, sequence in zip(ids, happenings, sequences, strict=True)
        ],
        now,
    )
    endpoints = await events_table.subscribers(tx)
    full, room = _by_backlog(endpoints)
    if made := _deliveries(ids, happenings, room):
        await events_table.add_deliveries(tx, made, now)
        tx.wake(WakeKind.DELIVERIES, lanes=min(len(made), DELIVERY_LANES))
    if left := _deliveries(ids, happenings, full):
        kind = Kind.BACKLOG_FULL.value
        await events_table.add_deliveries_not_tried(tx, left, kind, now)


def _by_backlog(endpoints: Sequence[Subscriber]) -> tuple[list[Subscriber], list[Subscriber]]:
    """Splits the endpoints into those whose backlog is full and the others."""
    full = [endpoint for endpoint in endpoints if endpoint.backlog_full_since is not None]
    return full, [endpoint for endpoint in endpoints if endpoint.backlog_full_since is None]


def _deliveries(
    ids: Sequence[UUID], happenings: Sequence[Happening], endpoints: Sequence[Subscriber]
) -> list[tuple[UUID, UUID, UUID]]:
    """(delivery, event, endpoint) for each endpoint that subscribes to the event."""
    pairs = [
        (id, endpoint.id)
        for id, happening in zip(ids, happenings, strict=True)
        for endpoint in endpoints
        if hears(endpoint.event_types, happening.type)
    ]
    return [
        (id, event, endpoint) for id, (event, endpoint) in zip(new_row_ids(len(pairs)), pairs, strict=True)
    ]


async def _sequences(tx: PartnerTx, happenings: Sequence[Happening]) -> list[int | None]:
    """Consecutive numbers within each order, in the order given."""
    wanted: dict[UUID, int] = {}
    for happening in happenings:
        if happening.order_id is not None:
            wanted[happening.order_id] = wanted.get(happening.order_id, 0) + 1
    following = {
        order_id: await orders_table.take_sequences(tx, order_id, count)
        for order_id, count in sorted(wanted.items())
    }
    numbers: list[int | None] = []
    for happening in happenings:
        if happening.order_id is None:
            numbers.append(None)
        else:
            numbers.append(following[happening.order_id])
            following[happening.order_id] += 1
    return numbers


def order_happening(
    type: EventType,
    order: Order,
    state: OrderState,
    counts: Mapping[RegistrationState, int],
    waiting_for: Sequence[WaitingReason] = (),
) -> Happening:
    data = OrderData(
        order_id=order.id,
        reference=order.reference,
        purchase_order=order.purchase_order,
        customer_id=order.customer_id,
        state=state,
        counts={name: n for name, n in counts.items() if n},
        waiting_for=waiting_for,
    )
    return Happening(type, data, order_id=data.order_id, customer_id=data.customer_id)


def settled_happenings(
    order: StoredOrder, rows: Sequence[Settled], was: Mapping[UUID, RegistrationState] | None = None
) -> list[Happening]:
    """registration.settled in pages of ROWS_PER_EVENT: ids, states, codes; no identities.

    `was`: the outcomes published before, for rows that are corrected. The event includes them, because a
    receiver may have to undo what it did after the first event.
    """
    was = was or {}
    order_id, reference, customer_id = order.id, order.reference, order.customer_id
    outcomes = [
        SettledRow(
            row.id,
            row.row_number,
            row.line_ref,
            row.state,
            row.error_code,
            was.get(row.id),
        )
        for row in sorted(rows, key=lambda row: row.row_number)
    ]
    return [
        Happening(
            EventType.REGISTRATION_SETTLED,
            SettledData(order_id, reference, customer_id, page),
            order_id=order_id,
            customer_id=customer_id,
        )
        for page in pages(outcomes)
    ]


_FINAL_EVENTS = {
    OrderState.COMPLETED: EventType.ORDER_COMPLETED,
    OrderState.COMPLETED_WITH_ERRORS: EventType.ORDER_COMPLETED_WITH_ERRORS,
    OrderState.FAILED: EventType.ORDER_FAILED,
    OrderState.CANCELLED: EventType.ORDER_CANCELLED,
}


async def order_news(tx: PartnerTx, order_id: UUID, *, corrected: bool = False) -> list[Happening]:
    """Returns the order event that this transaction's changes cause, if any.

    The caller holds the order's row, so if several batches finish together, exactly one sees the end.
    `announced_state` makes sure that each end is published once, even after a retry. `corrected`: publish the
    end again, because the first event had wrong counts.
    """
    order = await orders_table.get(tx, order_id)
    if order is None:
        raise LookupError("the order no longer exists")
    counts = (await orders_table.counts(tx, [order_id]))[order_id]
    state = compute_state(counts, has_open_batches=order.has_open_batches)
    announced = order.announced_state
    if state.value == announced and not (corrected and state in FINAL):
        return []
    if state in FINAL:
        news = [order_happening(_FINAL_EVENTS[state], order, state, counts)]
    elif state is OrderState.HELD:
        # A held order waits for consent, so its reasons do not depend on the time.
        reasons = await waiting.of_change(tx, order_id, order.updated_at)
        news = [order_happening(EventType.ORDER_HELD, order, state, counts, reasons)]
    else:
        news = []
    await orders_table.update(tx, order_id, {"announced_state": state.value})
    return news

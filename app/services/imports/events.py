"""Events of imports. They carry counts and ids, never a row."""

from collections.abc import Sequence

from app.domain.event import ORDERS_PER_EVENT, EventType, ImportEventData, ImportEventOrder
from app.domain.imports import Import, ImportedOrder
from app.services.events.publishing import Happening


def import_happening(type: EventType, record: Import, orders: Sequence[ImportedOrder] = ()) -> Happening:
    return Happening(
        type,
        ImportEventData(
            import_id=record.id,
            state=record.state,
            reference=record.reference,
            file_name=record.file_name,
            rows=record.rows_read,
            counts=record.counts,
            failure=record.failure_code,
            orders=[ImportEventOrder(order.order_id, order.reference) for order in orders[:ORDERS_PER_EVENT]],
            orders_total=len(orders),
        ),
        customer_id=record.customer_id,
    )

"""What is told of imports: counts and ids, never a row."""

from collections.abc import Sequence

from app.domain.event import EventType
from app.domain.imports import Import, ImportedOrder
from app.services.events import Happening

ORDERS_PER_EVENT = 40
"""Orders named in one event, whose references may have 249 characters each: it stays under 20 kB."""


def import_happening(type: EventType, record: Import, orders: Sequence[ImportedOrder] = ()) -> Happening:
    return Happening(
        type,
        {
            "import_id": str(record.id),
            "state": record.state,
            "reference": record.reference,
            "file_name": record.file_name,
            "rows": record.rows_read,
            "counts": record.counts,
            "failure": record.failure_code,
            "orders": [
                {"order_id": str(order.order_id), "reference": order.reference}
                for order in orders[:ORDERS_PER_EVENT]
            ],
            "orders_total": len(orders),
        },
        customer_id=record.customer_id,
    )

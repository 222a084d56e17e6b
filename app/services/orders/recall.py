"""Rebuilds the first answer to an order that was too large to be stored with its Idempotency-Key."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from app.db import recall
from app.db.recall import CutBatch, NotedRow
from app.domain.actor import Principal
from app.runtime import Runtime
from app.services.orders import orders
from app.services.orders.orders import OrderView


@dataclass(frozen=True, slots=True)
class Recalled:
    """The order with everything that its first answer had, in its current state."""

    view: OrderView
    batches: Sequence[CutBatch]
    noted: Sequence[NotedRow]
    noted_total: int


async def order(runtime: Runtime, principal: Principal, order_id: UUID, *, noted: int) -> Recalled:
    """Returns the order and its first `noted` rows with findings. Raises NotFound."""
    view = await orders.get(runtime, principal, order_id)
    async with runtime.reading(principal) as tx:
        return Recalled(
            view,
            await recall.batches(tx, order_id),
            await recall.noted_rows(tx, order_id, limit=noted),
            await recall.count_noted(tx, order_id),
        )

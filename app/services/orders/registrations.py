"""Reads registrations and batches. Changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.db import attempts, batches, orders, registration_lists
from app.db.attempts import Attempt
from app.db.paging import Page, PageRequest
from app.db.registration_lists import Filter
from app.domain.actor import Principal
from app.domain.batch import OPEN_BATCH, Batch
from app.domain.errors import NotFound
from app.domain.registration import Registration
from app.domain.waiting import Waiting
from app.runtime import Runtime
from app.services.events import waiting


@dataclass(frozen=True, slots=True)
class BatchView:
    record: Batch
    counts: Mapping[str, int]
    waiting_for: Sequence[Waiting] = ()


async def list_of_order(
    runtime: Runtime, principal: Principal, order_id: UUID, page: PageRequest, filter: Filter
) -> Page[Registration]:
    async with runtime.reading(principal) as tx:
        if await orders.get(tx, order_id) is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        return await registration_lists.list_of_order(tx, order_id, page, filter)


async def list_page(
    runtime: Runtime, principal: Principal, page: PageRequest, filter: Filter
) -> Page[Registration]:
    async with runtime.reading(principal) as tx:
        return await registration_lists.list_page(tx, page, filter)


async def get(runtime: Runtime, principal: Principal, registration_id: UUID) -> Registration:
    async with runtime.reading(principal) as tx:
        record = await registration_lists.get(tx, registration_id)
    if record is None:
        raise NotFound("not_found", f"There is no registration {registration_id}.")
    return record


async def list_batches(
    runtime: Runtime,
    principal: Principal,
    page: PageRequest,
    *,
    order_id: UUID | None,
    customer_id: UUID | None,
    state: str | None,
) -> Page[BatchView]:
    async with runtime.reading(principal) as tx:
        found = await batches.list_page(tx, page, order_id=order_id, customer_id=customer_id, state=state)
        counts = await batches.counts(tx, [row.id for row in found.items])
        gathered = await waiting.gather_batches(runtime, tx, _open(found.items))
    reasons = await waiting.explain(runtime, gathered)
    views = [BatchView(row, counts[row.id], reasons.get(row.id, ())) for row in found.items]
    return Page(views, found.next_token)


async def list_batches_of_order(
    runtime: Runtime, principal: Principal, order_id: UUID, page: PageRequest
) -> Page[BatchView]:
    async with runtime.reading(principal) as tx:
        if await orders.get(tx, order_id) is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
    return await list_batches(runtime, principal, page, order_id=order_id, customer_id=None, state=None)


def _open(records: Sequence[Batch]) -> list[UUID]:
    return [row.id for row in records if row.state in OPEN_BATCH]


async def get_batch(
    runtime: Runtime, principal: Principal, batch_id: UUID
) -> tuple[BatchView, list[Attempt]]:
    """The batch and its calls to Microsoft, newest first."""
    async with runtime.reading(principal) as tx:
        record = await batches.get(tx, batch_id)
        if record is None:
            raise NotFound("not_found", f"There is no batch {batch_id}.")
        counts = await batches.counts(tx, [batch_id])
        calls = await attempts.list_of_batch(tx, batch_id)
        gathered = await waiting.gather_batches(runtime, tx, _open([record]))
    reasons = await waiting.explain(runtime, gathered)
    return BatchView(record, counts[batch_id], reasons.get(batch_id, ())), calls

"""Facts about what orders and batches wait for; `app.domain.waiting` derives the reasons.

Two steps, because no call to Redis is made inside a transaction: `gather` looks at the database, `explain`
at the budgets of the connections that were found. Both cost the same however many devices an order has.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import heartbeats
from app.db import waiting as waiting_table
from app.db.waiting import ConnectionState, Standing, TagBeingCreated
from app.domain import waiting
from app.domain.budget import Budget, BudgetPolicy
from app.domain.catalogue import CATALOGUE, Advice
from app.domain.consent import ConsentState
from app.domain.event import WaitingReason
from app.domain.group_tag import tag_key
from app.domain.waiting import BatchFacts, ConnectionFacts, ServiceFacts, Waiting
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime

Reasons = Mapping[UUID, Sequence[Waiting]]
"""By the order's or the batch's id; for those that wait for nothing an empty list."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the database says."""

    ids: Sequence[UUID]
    batches: Mapping[UUID, Sequence[BatchFacts]]
    connections: Mapping[UUID, ConnectionState]
    service: ServiceFacts


async def gather_orders(runtime: Runtime, tx: PartnerTx, ids: Sequence[UUID]) -> Gathered:
    rows = await waiting_table.of_orders(tx, list(ids), runtime.now()) if ids else []
    return await _gather(runtime, tx, ids, rows)


async def gather_batches(runtime: Runtime, tx: PartnerTx, ids: Sequence[UUID]) -> Gathered:
    rows = await waiting_table.of_batches(tx, list(ids), runtime.now()) if ids else []
    return await _gather(runtime, tx, ids, rows)


async def gather_partner(runtime: Runtime, tx: PartnerTx) -> Gathered:
    """All open work; the id is the partner's own."""
    rows = await waiting_table.of_partner(tx, runtime.now())
    return await _gather(runtime, tx, [tx.partner_id], rows)


async def _gather(runtime: Runtime, tx: PartnerTx, ids: Sequence[UUID], rows: Sequence[Standing]) -> Gathered:
    if not rows:
        return Gathered(ids, {}, {}, ServiceFacts())
    connections = await _connections(tx, rows)
    last = await heartbeats.last(tx)
    alive = last is not None and runtime.now() - last <= runtime.settings.silence
    batches = _by_id(rows, await _tags(tx, rows))
    return Gathered(ids, batches, connections, ServiceFacts(workers_alive=alive, worker_seen_at=last))


async def _connections(tx: PartnerTx, rows: Sequence[Standing]) -> Mapping[UUID, ConnectionState]:
    wanted = sorted({row.connection_id for row in rows})
    found = await waiting_table.connections_of(tx, wanted)
    return {row.id: row for row in found}


Tags = Mapping[tuple[UUID, str], TagBeingCreated]
"""By customer and tag key."""


async def _tags(tx: PartnerTx, rows: Sequence[Standing]) -> Tags:
    customers = sorted({row.customer_id for row in rows if row.customer_id is not None})
    if not customers:
        return {}
    found = await waiting_table.tags_being_created(tx, customers)
    return {(tag.customer_id, tag.tag_key): tag for tag in found}


def _by_id(rows: Sequence[Standing], tags: Tags) -> Mapping[UUID, Sequence[BatchFacts]]:
    batches: dict[UUID, list[BatchFacts]] = defaultdict(list)
    for row in rows:
        batches[row.id].append(_batch(row, tags))
    return batches


def _batch(row: Standing, tags: Tags) -> BatchFacts:
    tag = None
    if row.customer_id is not None and row.group_tag is not None:
        tag = tags.get((row.customer_id, tag_key(row.group_tag)))
    return BatchFacts(
        connection_id=row.connection_id,
        state=row.state,
        devices=row.devices,
        created_at=row.created_at,
        updated_at=row.updated_at,
        due_at=row.due_at,
        submitted_at=row.submitted_at,
        uncertain_since=row.uncertain_since,
        failure_code=row.failure_code,
        failure_said=row.failure_said,
        consent=None if row.consent is None else ConsentState(row.consent),
        tag_creator=None if tag is None else tag.creator,
        tag_since=None if tag is None else tag.since,
        tag_due_at=None if tag is None else tag.due_at,
    )


def _connection(row: ConnectionState, budget: Budget | None) -> ConnectionFacts:
    return ConnectionFacts(
        portal=row.portal,
        trouble_code=row.trouble_code,
        trouble_said=row.trouble_said,
        trouble_since=row.trouble_since,
        not_before=row.not_before,
        budget=budget,
    )


async def explain(runtime: Runtime, gathered: Gathered) -> Reasons:
    """The reasons, with what the connections' budgets say. Not inside a transaction."""
    called = [id for id, row in gathered.connections.items() if not row.portal]
    if not called:
        return explain_rows(gathered, runtime.now())
    seen = await runtime.budgets.look(called, runtime.now)
    service = ServiceFacts(
        workers_alive=gathered.service.workers_alive,
        worker_seen_at=gathered.service.worker_seen_at,
        redis=seen.shared,
        redis_away_since=None if seen.shared else seen.now - seen.away_for,
    )
    connections = {id: _connection(row, seen.budgets.get(id)) for id, row in gathered.connections.items()}
    return {
        id: waiting.reasons(gathered.batches.get(id, ()), connections, service, seen.policy, seen.now)
        for id in gathered.ids
    }


def explain_rows(gathered: Gathered, now: datetime) -> Reasons:
    """The reasons as far as the database knows them: for what is told of a change that is being made."""
    connections = {id: _connection(row, None) for id, row in gathered.connections.items()}
    return {
        id: waiting.reasons(gathered.batches.get(id, ()), connections, gathered.service, BudgetPolicy(), now)
        for id in gathered.ids
    }


async def of_change(tx: PartnerTx, order_id: UUID, now: datetime) -> list[WaitingReason]:
    """What an order waits for as its events tell it."""
    rows = await waiting_table.of_orders(tx, [order_id], now)
    tags, connections = await _tags(tx, rows), await _connections(tx, rows)
    return told(Gathered([order_id], _by_id(rows, tags), connections, ServiceFacts()), order_id, now)


def told(gathered: Gathered, order_id: UUID, now: datetime) -> list[WaitingReason]:
    """The reasons as an event tells them: what the order's own rows and its connection say.

    Whether workers and Redis are alive is another matter, which the API's answers add.
    """
    reasons = explain_rows(replace(gathered, service=ServiceFacts()), now)[order_id]
    return [WaitingReason(**fields(reason)) for reason in reasons]


def fields(reason: Waiting) -> dict[str, Any]:
    """A reason with what the catalogue says of its code; also a code that only a later release knows."""
    entry = CATALOGUE.get(reason.code)
    return {
        "code": reason.code,
        "title": entry.title if entry else reason.code,
        "advice": entry.advice if entry else Advice.PERSON,
        "since": reason.since,
        "until": reason.until,
        "remedy": entry.remedy if entry else "See the release notes of the newer Registrar beside this one.",
        "detail": reason.detail,
        "devices": reason.devices,
    }

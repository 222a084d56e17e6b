"""Collects the facts about what orders and batches wait for; `app.domain.waiting` derives the reasons.

Two steps, because no call to Redis is made inside a transaction: `gather` reads the database, `explain` the
budgets of the connections found. Both cost the same however many devices an order has.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import heartbeats
from app.db import waiting as waiting_table
from app.db.waiting import TagBeingCreated
from app.domain import waiting
from app.domain.budget import BudgetPolicy
from app.domain.catalogue import CATALOGUE, Advice
from app.domain.connection import ConnectionMode
from app.domain.event import WaitingReason
from app.domain.group_tag import tag_key
from app.domain.hold import BatchFacts, ConnectionFacts
from app.domain.waiting import ServiceFacts, Waiting
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime

Reasons = Mapping[UUID, Sequence[Waiting]]
"""By the id of the order or batch; an empty list if it waits for nothing."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The facts from the database."""

    ids: Sequence[UUID]
    batches: Mapping[UUID, Sequence[BatchFacts]]
    connections: Mapping[UUID, ConnectionFacts]
    service: ServiceFacts


async def gather_orders(runtime: Runtime, tx: PartnerTx, ids: Sequence[UUID]) -> Gathered:
    rows = await waiting_table.of_orders(tx, list(ids), runtime.now()) if ids else []
    return await _gather(runtime, tx, ids, rows)


async def gather_batches(runtime: Runtime, tx: PartnerTx, ids: Sequence[UUID]) -> Gathered:
    rows = await waiting_table.of_batches(tx, list(ids), runtime.now()) if ids else []
    return await _gather(runtime, tx, ids, rows)


async def gather_partner(runtime: Runtime, tx: PartnerTx) -> Gathered:
    """All open work, under the partner's id."""
    rows = await waiting_table.of_partner(tx, runtime.now())
    return await _gather(runtime, tx, [tx.partner_id], rows)


async def _gather(
    runtime: Runtime, tx: PartnerTx, ids: Sequence[UUID], rows: Sequence[BatchFacts]
) -> Gathered:
    if not rows:
        return Gathered(ids, {}, {}, ServiceFacts())
    connections = await _connections(tx, rows)
    last = await heartbeats.last(tx)
    alive = last is not None and runtime.now() - last <= runtime.settings.silence
    batches = _by_id(rows, await _tags(tx, rows))
    return Gathered(ids, batches, connections, ServiceFacts(workers_alive=alive, worker_seen_at=last))


async def _connections(tx: PartnerTx, rows: Sequence[BatchFacts]) -> Mapping[UUID, ConnectionFacts]:
    wanted = sorted({row.connection_id for row in rows})
    found = await waiting_table.connections_of(tx, wanted)
    return {row.id: row for row in found}


Tags = Mapping[tuple[UUID, str], TagBeingCreated]
"""By customer and tag key."""


async def _tags(tx: PartnerTx, rows: Sequence[BatchFacts]) -> Tags:
    customers = sorted({row.customer_id for row in rows if row.customer_id is not None})
    if not customers:
        return {}
    found = await waiting_table.tags_being_created(tx, customers)
    return {(tag.customer_id, tag.tag_key): tag for tag in found}


def _by_id(rows: Sequence[BatchFacts], tags: Tags) -> Mapping[UUID, Sequence[BatchFacts]]:
    batches: dict[UUID, list[BatchFacts]] = defaultdict(list)
    for row in rows:
        batches[row.id].append(_with_creator(row, tags))
    return batches


def _with_creator(row: BatchFacts, tags: Tags) -> BatchFacts:
    if row.customer_id is None or row.group_tag is None:
        return row
    tag = tags.get((row.customer_id, tag_key(row.group_tag)))
    if tag is None:
        return row
    return replace(row, tag_creator=tag.creator, tag_since=tag.since, tag_due_at=tag.due_at)


async def explain(runtime: Runtime, gathered: Gathered) -> Reasons:
    """Adds what the connections' budgets say, and returns the reasons. Not inside a transaction."""
    called = [id for id, row in gathered.connections.items() if row.mode is ConnectionMode.API]
    if not called:
        return explain_rows(gathered, runtime.now())
    seen = await runtime.budgets.look(called, runtime.now)
    service = ServiceFacts(
        workers_alive=gathered.service.workers_alive,
        worker_seen_at=gathered.service.worker_seen_at,
        redis=seen.shared,
        redis_away_since=None if seen.shared else seen.now - seen.away_for,
    )
    connections = {id: replace(row, budget=seen.budgets.get(id)) for id, row in gathered.connections.items()}
    return {
        id: waiting.reasons(gathered.batches.get(id, ()), connections, service, seen.policy, seen.now)
        for id in gathered.ids
    }


def explain_rows(gathered: Gathered, now: datetime) -> Reasons:
    """The reasons without Redis: for events, which are written inside the transaction of a change."""
    return {
        id: waiting.reasons(
            gathered.batches.get(id, ()), gathered.connections, gathered.service, BudgetPolicy(), now
        )
        for id in gathered.ids
    }


async def of_change(tx: PartnerTx, order_id: UUID, now: datetime) -> list[WaitingReason]:
    """What an order waits for, as its events say it."""
    rows = await waiting_table.of_orders(tx, [order_id], now)
    tags, connections = await _tags(tx, rows), await _connections(tx, rows)
    return told(Gathered([order_id], _by_id(rows, tags), connections, ServiceFacts()), order_id, now)


def told(gathered: Gathered, order_id: UUID, now: datetime) -> list[WaitingReason]:
    """The reasons for an event: only those of the order's own rows and its connection.

    The API's answers also say whether workers and Redis are alive.
    """
    reasons = explain_rows(replace(gathered, service=ServiceFacts()), now)[order_id]
    return [WaitingReason(**fields(reason)) for reason in reasons]


def fields(reason: Waiting) -> dict[str, Any]:
    """A reason with its entry in the catalogue, if this release knows the code."""
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

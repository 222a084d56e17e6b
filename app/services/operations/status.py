"""Status of the whole installation for one partner: what runs, what waits, and what needs action.

For people who want to see at a glance whether all is well. Reads the database once, Redis and the budgets
once; changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from app.db import heartbeats, schema
from app.db import waiting as waiting_table
from app.db.waiting import FailingEndpoint, OpenByState, StuckWork, WaitingDeliveries, WaitingImports
from app.domain.actor import Principal
from app.domain.budget import Breaker
from app.domain.quota import Use
from app.domain.waiting import Waiting
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.events import waiting
from app.services.operations import limits
from app.services.operations.limits import ConnectionLimits

MOST_DELIVERIES = 10_000
"""Waiting deliveries are counted up to this number."""


class Level(StrEnum):
    OK = "ok"
    ATTENTION = "attention"  # everything runs; something needs action
    DOWN = "down"  # something that everything needs is down


@dataclass(frozen=True, slots=True)
class Worker:
    started_at: datetime
    seen_at: datetime
    alive: bool


@dataclass(frozen=True, slots=True)
class Status:
    at: datetime
    schema_at: str
    schema_wanted: str
    redis: bool
    workers: Sequence[Worker]
    work: Sequence[OpenByState]
    waiting_for: Sequence[Waiting]
    connections: Sequence[ConnectionLimits]
    endpoints: Sequence[FailingEndpoint]
    """Endpoints that fail or are disabled."""
    deliveries: WaitingDeliveries
    imports: WaitingImports
    stuck: Sequence[StuckWork]
    quotas: Sequence[Use]
    """Quotas that are nearly or fully used up."""

    @property
    def schema_serves(self) -> bool:
        """The schema of a later release serves as well: it only adds."""
        later = self.schema_at.isdigit() and self.schema_at > self.schema_wanted
        return self.schema_at == self.schema_wanted or later

    @property
    def has_worker(self) -> bool:
        return any(worker.alive for worker in self.workers)

    @property
    def level(self) -> Level:
        if not (self.schema_serves and self.redis and self.has_worker):
            return Level.DOWN
        troubled = any(needs_attention(each) for each in self.connections)
        full = any(use.is_used_up and not use.passes for use in self.quotas)
        return Level.ATTENTION if troubled or self.endpoints or self.stuck or full else Level.OK


def needs_attention(connection: ConnectionLimits) -> bool:
    return connection.record.trouble_code is not None or connection.breaker is Breaker.OPEN


async def look(runtime: Runtime, principal: Principal) -> Status:
    redis = await runtime.queue.ping()
    seen = await limits.look(runtime, principal)
    now = runtime.now()
    async with runtime.reading(principal) as tx:
        version = await schema.current(tx.session)
        beats = await heartbeats.workers(tx)
        work = await waiting_table.by_state(tx)
        gathered = await waiting.gather_partner(runtime, tx)
        endpoints = await waiting_table.failing_endpoints(tx)
        deliveries = await waiting_table.deliveries_waiting(tx, limit=MOST_DELIVERIES)
        imports = await waiting_table.imports_waiting(tx)
        stuck = await _stuck(runtime, tx, now)
    reasons = await waiting.explain(runtime, gathered)
    silence = runtime.settings.silence
    return Status(
        at=now,
        schema_at=version,
        schema_wanted=schema.newest(),
        redis=redis,
        workers=[Worker(row.started_at, row.beat_at, now - row.beat_at <= silence) for row in beats],
        work=work,
        waiting_for=reasons[UUID(str(principal.partner_id))],
        connections=seen.connections,
        endpoints=endpoints,
        deliveries=deliveries,
        imports=imports,
        stuck=stuck,
        quotas=[use for use in seen.quotas if use.is_near],
    )


async def _stuck(runtime: Runtime, tx: PartnerTx, now: datetime) -> Sequence[StuckWork]:
    patience = timedelta(seconds=runtime.settings.sweep_patience_s)
    return await waiting_table.stuck(tx, before=now - patience)

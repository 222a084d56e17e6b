"""Reasons why work waits, derived from facts about batches, their connections and the service.

A reason is a code of the catalogue, which says what to do. Several reasons can apply at once, and all are
reported; those that need action come first. Nothing is looked up here.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from app.domain import budget as budgets
from app.domain.batch import BatchState
from app.domain.budget import TURN_TIMEOUT, BudgetPolicy, Pause, Why
from app.domain.catalogue import CATALOGUE, Advice
from app.domain.connection import ConnectionMode
from app.domain.hold import BatchFacts, ConnectionFacts, of_batch


@dataclass(frozen=True, slots=True)
class Waiting:
    """One reason why devices wait."""

    code: str
    devices: int
    since: datetime | None = None
    until: datetime | None = None
    """When it ends, or when Registrar tries again; None if that is not known."""
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """Facts about workers and Redis. `None`: not looked up, so not reported as a reason."""

    workers_alive: bool | None = None
    worker_seen_at: datetime | None = None
    redis: bool | None = None
    redis_away_since: datetime | None = None


def reasons(
    batches: Iterable[BatchFacts],
    connections: Mapping[UUID, ConnectionFacts],
    service: ServiceFacts,
    policy: BudgetPolicy,
    now: datetime,
) -> list[Waiting]:
    """The reasons why these batches wait, each once; those that need action come first."""
    merged: dict[str, Waiting] = {}
    for batch in batches:
        for reason in _of_batch(batch, connections[batch.connection_id], service, policy, now):
            known = merged.get(reason.code)
            merged[reason.code] = reason if known is None else _together(known, reason)
    return sorted(merged.values(), key=_rank)


def _together(one: Waiting, other: Waiting) -> Waiting:
    return replace(
        one,
        devices=one.devices + other.devices,
        since=_earlier(one.since, other.since),
        until=_earlier(one.until, other.until),
        detail=one.detail or other.detail,
    )


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)


# No other work is tried without a worker, and no consent is read while the connection is in trouble.
_FIRST = ("no_worker_alive", "redis_unavailable")
_LAST = ("consent_revoked", "consent_missing", "portal_upload_due", "portal_outcome_due", "batch_broken")
_BY_ADVICE = (Advice.PERSON, Advice.NEVER, Advice.RETRY, Advice.NONE)


def _rank(reason: Waiting) -> tuple[int, int, str]:
    """Sort order: what needs action (service, connection, customer), then what ends by itself."""
    entry = CATALOGUE.get(reason.code)
    advice = _BY_ADVICE.index(entry.advice if entry else Advice.PERSON)
    if reason.code in _FIRST:
        return advice, _FIRST.index(reason.code), ""
    if reason.code in _LAST:
        return advice, len(_FIRST) + 1 + _LAST.index(reason.code), ""
    return advice, len(_FIRST), reason.code


def _of_batch(
    batch: BatchFacts,
    connection: ConnectionFacts,
    service: ServiceFacts,
    policy: BudgetPolicy,
    now: datetime,
) -> Iterator[Waiting]:
    held = [
        Waiting(hold.code, batch.devices, hold.since, None, hold.detail)
        for hold in of_batch(batch, connection)
    ]
    if connection.mode is ConnectionMode.PORTAL:
        yield from held
        return
    found = [*_of_service(batch, service), *held]
    if batch.holds:
        yield from found
        return
    if not found:
        found += _of_budget(batch, connection, policy, now)
    if batch.state is BatchState.UNKNOWN:
        since = batch.submitted_at or batch.uncertain_since or batch.updated_at
        found.append(Waiting("outcome_being_looked_up", batch.devices, since, _later(batch.due_at, now)))
    if not found:
        found += _of_batch_alone(batch, now)
    yield from found


def _of_service(batch: BatchFacts, service: ServiceFacts) -> Iterator[Waiting]:
    if service.workers_alive is False:
        seen = service.worker_seen_at
        words = "None has been seen yet." if seen is None else None
        yield Waiting("no_worker_alive", batch.devices, seen, None, words)
    if service.redis is False:
        yield Waiting("redis_unavailable", batch.devices, service.redis_away_since)


def _of_budget(
    batch: BatchFacts, connection: ConnectionFacts, policy: BudgetPolicy, now: datetime
) -> Iterator[Waiting]:
    """The reason that delays the connection's next call, if there is one."""
    known = connection.budget
    decision = None if known is None else budgets.enter(known, now, policy, TURN_TIMEOUT)[1]
    if known is not None and isinstance(decision, Pause):
        until = now + decision.wait
        match decision.why:
            case Why.BREAKER:
                code, since = "upstream_unavailable", budgets.opened_since(known, policy)
            case Why.RETRY_AFTER:
                code, since = "upstream_throttled", known.throttled_at
            case Why.RATE:
                code, since = "call_rate_used_up", batch.updated_at
        said = batch.failure_said if batch.failure_code == code else None
        yield Waiting(code, batch.devices, since, until, said)
    elif (again_at := _later(connection.not_before, now)) is not None:
        yield Waiting("call_rate_used_up", batch.devices, batch.updated_at, again_at)


def _of_batch_alone(batch: BatchFacts, now: datetime) -> Iterator[Waiting]:
    again_at = _later(batch.due_at, now)
    if batch.failure_code is not None and again_at is not None:
        since = batch.uncertain_since or batch.updated_at
        yield Waiting(batch.failure_code, batch.devices, since, again_at, batch.failure_said)
    elif batch.tag_creator is not None:
        words = f"Batch {batch.tag_creator} creates it."
        until = _later(batch.tag_due_at, now)
        yield Waiting("group_tag_being_created", batch.devices, batch.tag_since, until, words)
    elif batch.state is BatchState.QUEUED:
        yield Waiting("waiting_for_turn", batch.devices, batch.created_at, again_at)
    elif batch.state is BatchState.SUBMITTED:
        yield Waiting("processing_at_microsoft", batch.devices, batch.submitted_at, again_at)


def _later(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment is not None and moment > now else None

"""The figures of `/metrics` that come from the database and Redis, read at most every few seconds."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from app.db import figures
from app.db.engine import OUTAGES
from app.domain.attempt import OPEN_DELIVERY
from app.domain.batch import OPEN_BATCH
from app.domain.budget import Breaker, breaker
from app.domain.imports import MOVING
from app.kernel import metrics
from app.kernel.metrics import Figures, Waiting
from app.kernel.transactions import SystemTx
from app.runtime import Runtime

KEPT_S: Final = 5.0
"""Seconds for which figures are reused, so that several Prometheus servers cost one query."""
PATIENCE_S: Final = 5.0
"""Together with Redis' timeout this is below Prometheus' usual scrape timeout of ten seconds."""
BREAKERS_READ: Final = 200
"""The most connections whose breaker is read."""

STATES: Final[dict[str, frozenset[str]]] = {
    "batch": frozenset(OPEN_BATCH),
    "portal_batch": frozenset(OPEN_BATCH),
    "delivery": frozenset(OPEN_DELIVERY),
    "import": frozenset(MOVING),
}
"""All kinds and states that are shown, with 0 where nothing waits, so that alerts resolve."""


@dataclass
class Gauge:
    """Reads the figures of one installation and hands them to `app.kernel.metrics`."""

    runtime: Runtime
    _read_at: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> None:
        async with self._lock:
            if self._read_at is not None and time.monotonic() - self._read_at < KEPT_S:
                return
            metrics.observe(await _read(self.runtime))
            self._read_at = time.monotonic()


async def _read(runtime: Runtime) -> Figures:
    try:
        async with asyncio.timeout(PATIENCE_S), runtime.system_transaction() as tx:
            found, connection_ids = await _from_database(runtime, tx)
    except OUTAGES:  # TimeoutError is an OSError
        return Figures(database=False)
    seen = await runtime.budgets.look(connection_ids, runtime.now)
    if not seen.shared:
        return found
    states = Counter(breaker(budget, seen.now).value for budget in seen.budgets.values())
    return Figures(
        database=True,
        waiting=found.waiting,
        workers=found.workers,
        troubles=found.troubles,
        endpoints=found.endpoints,
        breakers={state.value: states[state.value] for state in Breaker},
    )


async def _from_database(runtime: Runtime, tx: SystemTx) -> tuple[Figures, list[UUID]]:
    now = runtime.now()
    found = Figures(
        database=True,
        waiting=_complete(await figures.waiting(tx, now), now),
        workers=await figures.workers_alive(tx, now, silence=runtime.settings.silence),
        troubles=await figures.troubles(tx),
        endpoints=await figures.endpoints(tx),
    )
    rows = await figures.automated_connections(tx, limit=BREAKERS_READ)
    return found, rows


def _complete(rows: Sequence[figures.Waiting], now: datetime) -> list[Waiting]:
    found = {(row.kind, row.state): row for row in rows}
    return [
        _waiting(kind, state, found.get((kind, state)), now)
        for kind, states in STATES.items()
        for state in sorted(states)
    ]


def _waiting(kind: str, state: str, row: figures.Waiting | None, now: datetime) -> Waiting:
    if row is None:
        return Waiting(kind, state, 0, 0.0, 0.0)
    return Waiting(kind, state, row.n, _since(row.oldest, now), _since(row.due, now))


def _since(moment: datetime | None, now: datetime) -> float:
    return max((now - moment).total_seconds(), 0.0) if moment is not None else 0.0

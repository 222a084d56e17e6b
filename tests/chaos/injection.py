"""Carries out a schedule: sends signals to processes at chosen moments, arms rules at the simulator.

A kill is only useful at the right moment, so each accident first waits for it: a call held open, a
transaction waiting for a lock that this module holds, a request under way. If the moment does not come within
a few seconds, the kill happens anyway, and the report says that it missed.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import redis

from app.local.stack import Stack
from tests.chaos.intake import Intake
from tests.chaos.records import connect
from tests.chaos.schedule import UPLOADS, Accident, Schedule, Step

MOMENT = 6.0
"""Seconds to wait for the right moment."""
LOOK = 0.02
HELD_MS = 2000
"""Milliseconds a call is held for a kill; below the upstream timeout, so that a miss does no harm."""

_SUBMITTED = "SELECT count(*) FROM batches WHERE state = 'submitted' AND owner IS NULL AND due_at > now()"
_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = $1 AND wait_event_type = 'Lock' AND state = 'active'
"""


@dataclass
class Injection:
    stack: Stack
    simulator: httpx.Client
    intake: Intake
    stop: threading.Event
    accidents: list[tuple[str, float]] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    armed: list[dict[str, Any]] = field(default_factory=list)

    def perform(self, schedule: Schedule) -> None:
        for step in schedule.steps:
            if self.stop.wait(step.pause):
                return
            if isinstance(step.what, Accident):
                hit = self._happen(step.what, step)
                self.hits[step.what] += hit
                if not hit:
                    self.missed.append(step.what)
            else:
                self._arm(*step.rules)

    def calm(self) -> None:
        """Ends all disturbance: disarms rules and releases held calls."""
        self.armed = self.simulator.get("/control/faults").json()
        self.simulator.delete("/control/faults").raise_for_status()
        self.simulator.post("/control/release", json={}).raise_for_status()

    # --- accidents ------------------------------------------------------------------------------------

    def _happen(self, what: Accident, step: Step) -> bool:
        """Whether it happened at the intended moment."""
        match what:
            case Accident.WORKER_BEFORE_ARRIVAL:
                return self._kill_holding(what, step.victims, UPLOADS, phase="before", then="drop")
            case Accident.WORKER_AFTER_ACCEPTANCE:
                return self._kill_holding(what, step.victims, UPLOADS, phase="after", then="answer")
            case Accident.WORKER_DURING_POLL:
                return self._kill_holding(what, step.victims, ("status",), phase="after", then="answer")
            case Accident.WORKER_BETWEEN_POLLS:
                hit = self._until(lambda: asyncio.run(self._count(_SUBMITTED)) > 0)
                self._kill(what, step.victims)
                return hit
            case Accident.WORKER_RECORDING_ACCEPTANCE:
                return self._kill_recording_acceptance(what, step.victims)
            case Accident.WORKER_RECORDING_OUTCOMES:
                return asyncio.run(self._kill_at_lock(what, step.victims, _LOCK_AN_ORDER, "registrar-worker"))
            case Accident.API_DURING_REQUEST:
                hit = self._until(lambda: self.intake.under_way > 0)
                self._kill(what, step.victims)
                return hit
            case Accident.API_DURING_TRANSACTION:
                return asyncio.run(self._kill_at_lock(what, step.victims, _LOCK_ORDERS, "registrar-api"))
            case Accident.VALKEY_FLUSHED:
                return self._flush(what)
            case Accident.VALKEY_KILLED:
                return self._kill(what, step.victims)
            case Accident.POSTGRES_RESTARTED:
                return self._kill(what, step.victims, signal.SIGINT)
            case Accident.POSTGRES_CRASHED:
                return self._kill(what, step.victims, signal.SIGQUIT)

    def _kill(self, what: Accident, victims: tuple[str, ...], number: int = signal.SIGKILL) -> bool:
        """Waits until each victim runs, so that a kill hits a running process."""
        killed = 0
        for name in victims:
            if self._until(lambda name=name: self.stack.processes[name].pid is not None):  # type: ignore[misc]
                try:
                    self.stack.kill(name, number)
                    killed += 1
                except ProcessLookupError:
                    continue
        self.accidents.append((what, time.time()))
        return killed == len(victims)

    def _kill_holding(
        self, what: Accident, victims: tuple[str, ...], operations: tuple[str, ...], *, phase: str, then: str
    ) -> bool:
        """Holds a few calls open, so that each worker probably has one, and kills."""
        self._arm(
            *(
                {
                    "operation": operation,
                    "kind": "hold",
                    "phase": phase,
                    "then": then,
                    "count": 3,
                    "delay_ms": HELD_MS,
                }
                for operation in operations
            )
        )
        hit = self._until(lambda: any(held["phase"] == phase for held in self._held(operations)))
        self._kill(what, victims)
        return hit

    def _kill_recording_acceptance(self, what: Accident, victims: tuple[str, ...]) -> bool:
        """Takes the batch's row while its upload is held after acceptance; the worker then waits for it."""
        rules = (
            {"kind": "hold", "phase": "after", "delay_ms": HELD_MS, "operation": name} for name in UPLOADS
        )
        self._arm(*rules)
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [held for held in self._held(UPLOADS) if held["phase"] == "after"]
            return bool(found)

        if not self._until(look):
            self._kill(what, victims)
            return False
        wanted = found[0]

        def release() -> None:
            self.simulator.post("/control/release", json={"id": wanted["id"]})

        return asyncio.run(
            self._kill_at_lock(
                what, victims, _LOCK_A_BATCH, "registrar-worker", wanted["request_id"], after_lock=release
            )
        )

    async def _kill_at_lock(
        self,
        what: Accident,
        victims: tuple[str, ...],
        statement: str,
        waits: str,
        *arguments: str,
        after_lock: Callable[[], None] | None = None,
    ) -> bool:
        """Kills while a session of `waits` is inside its transaction, waiting for what is locked here."""
        try:
            connection = await connect(self.stack.database_url)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            self._kill(what, victims)
            return False
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '4s'")
                await connection.execute(statement, *arguments)
                if after_lock is not None:
                    after_lock()
                deadline = time.monotonic() + MOMENT
                hit = False
                while not hit and time.monotonic() < deadline and not self.stop.is_set():
                    # Within a transaction PostgreSQL keeps showing the activity of the first query.
                    await connection.execute("SELECT pg_stat_clear_snapshot()")
                    hit = bool(await connection.fetchval(_WAITING, waits))
                    await asyncio.sleep(LOOK)
                self._kill(what, victims)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            self._kill(what, victims)
            return False
        finally:
            connection.terminate()
        return hit

    def _flush(self, what: Accident) -> bool:
        try:
            client = redis.Redis.from_url(self.stack.redis_url, socket_timeout=5)
            client.flushall()
            client.close()
        except redis.RedisError:
            return False
        self.accidents.append((what, time.time()))
        return True

    # --- looking --------------------------------------------------------------------------------------

    def _arm(self, *rules: dict[str, Any]) -> None:
        self.simulator.post("/control/faults", json=list(rules)).raise_for_status()

    def _held(self, operations: tuple[str, ...]) -> list[dict[str, Any]]:
        held: list[dict[str, Any]] = self.simulator.get("/control/held").json()
        return [call for call in held if call["operation"] in operations]

    def _until(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + MOMENT
        while time.monotonic() < deadline and not self.stop.is_set():
            if condition():
                return True
            self.stop.wait(LOOK)
        return False

    async def _count(self, query: str) -> int:
        try:
            connection = await connect(self.stack.database_url)
            try:
                return int(await connection.fetchval(query))
            finally:
                await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return 0


_LOCK_A_BATCH = "SELECT id FROM batches WHERE request_id = $1::text::uuid FOR NO KEY UPDATE"
_LOCK_AN_ORDER = """
SELECT id FROM orders WHERE id IN (SELECT order_id FROM batches WHERE state = 'submitted')
FOR NO KEY UPDATE
"""
_LOCK_ORDERS = "LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE"
"""Writers of an order wait; readers and workers between their own writes go on."""

"""Runs one seed: start everything, send, disturb, wait, compare.

Every wait has a deadline, and a deadline for the whole run ends the process. A run's files are removed if all
is well, otherwise their place is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from app.local.stack import Stack
from tests.chaos import records
from tests.chaos.injection import Injection
from tests.chaos.intake import Intake
from tests.chaos.receiving import Receiver, told
from tests.chaos.scene import PARTNERS, Scene, open_scene
from tests.chaos.schedule import Schedule, plan
from tests.chaos.verdict import Evidence, Verdict, judge

UPSTREAM_TIMEOUT_S = 3.0
LEASE_S = 8.0
ENVIRONMENT = {
    "REGISTRAR_UPSTREAM_TIMEOUT_S": f"{UPSTREAM_TIMEOUT_S:g}",
    "REGISTRAR_STEP_TIMEOUT_S": "6",
    "REGISTRAR_LEASE_S": f"{LEASE_S:g}",
    "REGISTRAR_SWEEP_PATIENCE_S": "30",
    "REGISTRAR_SWEEP_INTERVAL_S": "1",
    "REGISTRAR_HEARTBEAT_S": "1",
    "REGISTRAR_WEBHOOK_TIMEOUT_S": "3",
    "REGISTRAR_POLL_FIRST_S": "0.3",
    "REGISTRAR_POLL_CEILING_S": "2",
    "REGISTRAR_POLL_DEADLINE_S": "6",
    "REGISTRAR_LOOKUP_ATTEMPTS": "2",
    "REGISTRAR_CONSENT_INTERVAL_S": "4",
    "REGISTRAR_BUDGET_START": "40",
    "REGISTRAR_BUDGET_FLOOR": "10",
    "REGISTRAR_BUDGET_CEILING": "200",
    "REGISTRAR_BREAKER_PAUSE_S": "1",
    "REGISTRAR_BREAKER_CEILING_S": "4",
    "REGISTRAR_LOG_LEVEL": "INFO",
}
"""Time limits of seconds instead of production's minutes, in the same order."""
SPREAD_S = 20.0
"""Seconds over which the orders are sent: the accidents happen meanwhile."""
SEED_S = 150.0
"""Seconds a seed may take from its first order."""
LOOK = 0.2


@dataclass
class Result:
    seed: int
    deduplicates: bool
    verdict: Verdict
    seconds: float
    orders: int
    hits: Counter[str]
    missed: list[str]
    repetitions: int
    replays: int
    kept: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.verdict.good and not self.notes


def run(seed: int, *, devices: int, customers: int, say: Callable[[str], None], keep: bool = False) -> Result:
    """Raises StackFailed or EmbeddedUnavailable if nothing can be started."""
    begun = time.monotonic()
    schedule = plan(seed, upstream_timeout_s=UPSTREAM_TIMEOUT_S, lease_s=LEASE_S)
    directory = Path(tempfile.mkdtemp(prefix="registrar-chaos-"))
    with _ended_by(begun + SEED_S + 90, directory), contextlib.ExitStack() as exits:
        receivers = [exits.enter_context(Receiver()) for _ in range(PARTNERS)]
        stack = exits.enter_context(
            Stack.start(directory, sandbox=True, workers=2, durable=False, environment=ENVIRONMENT)
        )
        simulator = exits.enter_context(
            httpx.Client(base_url=stack.simulator_url or "", timeout=60, trust_env=False)
        )
        _set_weather(simulator, schedule)
        scene = open_scene(
            stack.settings,
            stack.api_url,
            simulator,
            receivers,
            seed=seed,
            device_count=devices,
            customer_count=customers,
        )
        say(f"seed {seed}: {len(scene.sent)} devices, set up in {time.monotonic() - begun:.0f} s")
        injection, notes = _disturb(stack, simulator, scene, schedule)
        evidence, ledger = _gather(stack, simulator, scene, receivers, injection)
        verdict = judge(evidence)
        result = Result(
            seed=seed,
            deduplicates=schedule.deduplicates,
            verdict=verdict,
            seconds=time.monotonic() - begun,
            orders=len(injection.intake.accepted),
            hits=injection.hits,
            missed=injection.missed,
            repetitions=injection.intake.repetitions,
            replays=injection.intake.replays,
            notes=notes,
        )
        if keep or not result.good:
            _leave_papers(directory, stack, result, injection, ledger)
    if result.good and not keep:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        result.kept = directory
    return result


def _set_weather(simulator: httpx.Client, schedule: Schedule) -> None:
    simulator.put("/control/chance", json={"seed": schedule.seed}).raise_for_status()
    simulator.patch("/control/switches", json=schedule.switches).raise_for_status()


def _disturb(
    stack: Stack, simulator: httpx.Client, scene: Scene, schedule: Schedule
) -> tuple[Injection, list[str]]:
    """Sends the orders while the schedule happens, then waits until nothing is under way any more."""
    deadline, stop = time.monotonic() + SEED_S, threading.Event()
    intake = Intake(deadline, stop)
    injection = Injection(stack, simulator, intake, stop)
    notes: list[str] = []
    try:
        senders = [intake.start(stack.api_url, account, SPREAD_S) for account in scene.accounts]
        injection.perform(schedule)
        injection.calm()
        for sender in senders:
            sender.join(max(deadline - time.monotonic(), 0))
        if not _quiet(stack, simulator, injection, deadline):
            notes.append("work was still under way at the deadline")
        notes += [f"order {reference} was refused: {why}" for reference, why in intake.refused.items()]
    finally:
        stop.set()
    return injection, notes


def _quiet(stack: Stack, simulator: httpx.Client, injection: Injection, deadline: float) -> bool:
    """Waits until no batch, delivery or job moves any more."""
    never = sum(armed["hits"] for armed in injection.armed if armed["rule"]["kind"] == "never_finish")
    while time.monotonic() < deadline:
        try:
            batches, deliveries = asyncio.run(records.open_work(stack.database_url))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            batches = 1
        if not batches and not deliveries:
            totals = simulator.get("/control/totals").json()
            if totals["jobs_unfinished"] <= never and not simulator.get("/control/held").json():
                return True
        time.sleep(LOOK)
    return False


def _gather(
    stack: Stack, simulator: httpx.Client, scene: Scene, receivers: list[Receiver], injection: Injection
) -> tuple[Evidence, dict[str, Any]]:
    ledger: dict[str, Any] = simulator.get("/control/ledger").json()
    rows, batches, attempts, events = asyncio.run(records.read(stack.database_url))
    return (
        Evidence(
            sent=scene.sent,
            accepted=frozenset(injection.intake.accepted),
            rows=rows,
            batches=batches,
            attempts=attempts,
            held=records.held_of(ledger),
            uploads=records.uploads_of(ledger),
            events=events,
            told=told(receivers),
            accidents=injection.accidents,
            longest_intake_outage=injection.intake.longest_outage,
        ),
        ledger,
    )


def _leave_papers(
    directory: Path, stack: Stack, result: Result, injection: Injection, ledger: dict[str, Any]
) -> None:
    """Writes what helps to find the cause, besides the logs and the database."""
    papers = {
        "verdict.json": {
            "zeros": result.verdict.zeros,
            "examples": result.verdict.examples,
            "notes": result.notes,
            "recovery": [result.verdict.recovery, result.verdict.recovery_of],
            "accidents": injection.accidents,
            "missed": injection.missed,
        },
        "calls.json": ledger["calls"],
        "batches.json": asyncio.run(records.troubled_batches(stack.database_url)),
        "rules.json": injection.armed,
    }
    for name, content in papers.items():
        (directory / name).write_text(json.dumps(content, indent=1, default=str))


@contextlib.contextmanager
def _ended_by(moment: float, directory: Path) -> Iterator[None]:
    """Ends the process and everything it started if the body does not end in time."""

    def end() -> None:
        os.write(2, f"chaos: hung, ended by force; logs are in {directory}\n".encode())
        os._exit(3)

    timer = threading.Timer(max(moment - time.monotonic(), 1), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

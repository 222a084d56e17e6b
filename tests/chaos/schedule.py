"""The schedule of faults in a chaos run: a pure function of the seed.

It decides which accidents happen to which process and which calls to Microsoft are disturbed, in order and
with pauses. So a seed can be shown, and a failing one repeated, without starting anything. Where the
accidents hit depends on the machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Accident(StrEnum):
    """Accidents of processes. `injection` carries them out."""

    WORKER_BEFORE_ARRIVAL = "worker killed, call never arrived"
    WORKER_AFTER_ACCEPTANCE = "worker killed, call accepted, not answered"
    WORKER_BETWEEN_POLLS = "worker killed between two polls"
    WORKER_DURING_POLL = "worker killed during a poll"
    WORKER_RECORDING_ACCEPTANCE = "worker killed recording an acceptance"
    WORKER_RECORDING_OUTCOMES = "worker killed recording outcomes"
    API_DURING_REQUEST = "API killed with requests under way"
    API_DURING_TRANSACTION = "API killed inside its transaction"
    VALKEY_FLUSHED = "FLUSHALL"
    VALKEY_KILLED = "Valkey killed"
    POSTGRES_RESTARTED = "PostgreSQL restarted"
    POSTGRES_CRASHED = "PostgreSQL crashed"


class Disturbance(StrEnum):
    """Disturbances of calls."""

    ANSWER_LOST = "answer lost after acceptance"
    CONNECTION_RESET = "connection reset"
    ANSWER_CUT = "answer cut short"
    THROTTLED = "429 with Retry-After"
    SERVER_ERROR = "500, 502, 503 without a body"
    SERVER_ERROR_AFTER = "500, 502, 503 after acceptance"
    TOKEN_EXPIRED = "401 with an expired token"
    TOKENS_DOWN = "tokens endpoint down"
    TOO_SLOW = "slow answer past the timeout"
    ARRIVES_LATE = "call arrives after its repetition"
    NO_LOCATION = "Location missing"
    SHUFFLED = "devicesStatus shuffled"
    NEVER_FINISHES = "job that never finishes"
    CUSTOMERS_BROKEN = "customers list broken off"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do after `pause` seconds: an accident with its victim, or rules for the simulator."""

    pause: float
    what: Accident | Disturbance
    victims: tuple[str, ...] = ()
    rules: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: int
    deduplicates: bool
    """Whether the simulator answers a repeated MS-RequestId as before; takes turns by seed."""
    switches: dict[str, Any]
    steps: tuple[Step, ...] = field(repr=False)


WORKERS = ("worker-1", "worker-2")
PAUSES = (0.05, 0.6)
"""Seconds between two steps, at least and at most."""


def plan(seed: int, *, upstream_timeout_s: float, lease_s: float) -> Schedule:
    """The schedule of this seed. Every accident and every disturbance is in it at least once."""
    chance = random.Random(seed)
    happenings: list[Accident | Disturbance] = [*Accident, *Disturbance]
    happenings += chance.sample(
        [Disturbance.ANSWER_LOST, Disturbance.SERVER_ERROR, Disturbance.THROTTLED, Disturbance.TOO_SLOW], 2
    )
    chance.shuffle(happenings)
    steps = tuple(
        Step(
            pause=chance.uniform(*PAUSES),
            what=what,
            victims=_victims(what, chance) if isinstance(what, Accident) else (),
            rules=()
            if isinstance(what, Accident)
            else tuple(_rules(what, chance, upstream_timeout_s, lease_s)),
        )
        for what in happenings
    )
    return Schedule(
        seed=seed,
        deduplicates=seed % 2 == 0,
        switches={
            "request_id_dedup": seed % 2 == 0,
            "processing_min_ms": 150,
            "processing_max_ms": chance.choice((600, 1500)),
            "status_regress_rate": 0.2,
            "shuffle_device_status": chance.random() < 0.5,
            "location_style": chance.choice(("header", "absolute", "body")),
            "batch_status_hides_errors": chance.random() < 0.5,
            "device_status_while_running": chance.random() < 0.5,
        },
        steps=steps,
    )


def _victims(what: Accident, chance: random.Random) -> tuple[str, ...]:
    match what:
        case Accident.WORKER_RECORDING_ACCEPTANCE | Accident.WORKER_RECORDING_OUTCOMES:
            return WORKERS  # whichever of them is recording
        case Accident.API_DURING_REQUEST | Accident.API_DURING_TRANSACTION:
            return ("api",)
        case Accident.VALKEY_FLUSHED | Accident.VALKEY_KILLED:
            return ("valkey",)
        case Accident.POSTGRES_RESTARTED | Accident.POSTGRES_CRASHED:
            return ("postgres",)
        case _:
            return chance.choice((WORKERS, WORKERS[:1], WORKERS[1:]))


UPLOADS = ("create", "append")


def _rules(
    what: Disturbance, chance: random.Random, upstream_timeout_s: float, lease_s: float
) -> list[dict[str, Any]]:
    """Rules as `POST /control/faults` takes them."""
    upload = chance.choice(UPLOADS)
    other = chance.choice(("status", "list_batches", "list_devices"))
    errors = chance.sample((500, 502, 503), 3)
    match what:
        case Disturbance.ANSWER_LOST:
            return [{"operation": name, "kind": "drop", "phase": "after", "count": 2} for name in UPLOADS]
        case Disturbance.CONNECTION_RESET:
            return [{"operation": name, "kind": "drop", "phase": "before"} for name in (upload, other)]
        case Disturbance.ANSWER_CUT:
            return [
                {"operation": name, "kind": "drop", "phase": "after", "mode": "truncate"}
                for name in (upload, "status")
            ]
        case Disturbance.THROTTLED:
            seconds = chance.choice((1, 2))
            return [
                {"operation": name, "kind": "throttle", "retry_after": seconds} for name in (upload, other)
            ]
        case Disturbance.SERVER_ERROR:
            return [
                {"operation": name, "kind": "status", "status": error, "count": count}
                for error, (name, count) in zip(errors, ((upload, 2), (other, 1), ("status", 2)), strict=True)
            ]
        case Disturbance.SERVER_ERROR_AFTER:
            return [
                {"operation": name, "kind": "status", "status": error, "phase": "after"}
                for name in UPLOADS
                for error in errors
            ]
        case Disturbance.TOKEN_EXPIRED:
            return [{"operation": name, "kind": "expired_token"} for name in (upload, "status")]
        case Disturbance.TOKENS_DOWN:
            # Together with expired tokens, or nothing would ask for new ones.
            return [
                {"operation": "token", "kind": "status", "status": 503, "count": 2},
                {"operation": "token", "kind": "drop", "phase": chance.choice(("before", "after"))},
                {"operation": "status", "kind": "expired_token", "count": 2},
            ]
        case Disturbance.TOO_SLOW:
            delay = round(1000 * upstream_timeout_s * 1.4)
            phases = chance.sample(("before", "after"), 2)
            return [
                {"operation": name, "kind": "slow", "phase": phase, "delay_ms": delay}
                for name, phase in zip(UPLOADS, phases, strict=True)
            ]
        case Disturbance.ARRIVES_LATE:
            delay = round(1000 * (lease_s + chance.uniform(0, 3)))
            return [{"operation": name, "kind": "hold", "delay_ms": delay} for name in UPLOADS]
        case Disturbance.NO_LOCATION:
            return [{"operation": name, "kind": "no_location"} for name in UPLOADS]
        case Disturbance.SHUFFLED:
            return [{"operation": name, "kind": "shuffle", "count": 5} for name in (*UPLOADS, "status")]
        case Disturbance.NEVER_FINISHES:
            return [{"operation": name, "kind": "never_finish"} for name in UPLOADS]
        case Disturbance.CUSTOMERS_BROKEN:
            return [
                {"operation": "customers", "kind": "drop", "phase": "after", "mode": "truncate"},
                {"operation": "customers", "kind": "status", "status": errors[0], "count": 2},
            ]

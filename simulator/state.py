"""The stand-in's whole memory: one object, replaced by a reset.

All randomness comes from one seeded source and all times from one clock that a test may move, so a run can be
repeated. Two built programs share nothing, and nothing is written to disk.
"""

from __future__ import annotations

import random
import time

from simulator.customers import Directory
from simulator.devices import Registry
from simulator.faults import Faults
from simulator.jobs import Jobs
from simulator.ledger import Ledger
from simulator.notifications import Notifications
from simulator.switches import Switches
from simulator.tokens import Tokens
from simulator.wire import Answer


class Clock:
    """Seconds since 1970, which a control route can move forward."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> float:
        return time.time() + self.offset


class State:
    """The memory of a built program. `reset` forgets all of it except the notification key."""

    def __init__(self, notifications: Notifications) -> None:
        self.notifications = notifications
        self.faults = Faults()
        self.chance = random.Random()
        self.reset(None)

    def reset(self, seed: int | None) -> None:
        """Start from scratch. Without a seed one is drawn, and shown, so that a run can be repeated."""
        self.faults.release()
        self.reseed(random.SystemRandom().getrandbits(32) if seed is None else seed)
        self.clock = Clock()
        self.switches = Switches()
        self.directory = Directory()
        self.tokens = Tokens(self.chance)
        self.registry = Registry()
        self.jobs = Jobs(self.registry, self.chance)
        self.faults = Faults()
        self.ledger = Ledger()
        self.notifications.forget()
        self._replies: dict[tuple[str, ...], tuple[float, Answer]] = {}
        self._windows: dict[str, tuple[float, int]] = {}

    def reseed(self, seed: int) -> None:
        """Seeds all randomness from here on."""
        self.seed = seed
        self.chance.seed(seed)

    def settle(self) -> float:
        """Decides the jobs that are due. Returns the present time."""
        now = self.clock.now()
        self.jobs.settle(now, self.switches)
        return now

    def remembered(self, key: tuple[str, ...], now: float) -> Answer | None:
        """The first result given to this MS-RequestId, inside the window."""
        reply = self._replies.get(key)
        return reply[1] if reply is not None and reply[0] >= now else None

    def remember(self, key: tuple[str, ...], answer: Answer, now: float) -> None:
        if len(self._replies) > 50_000:
            self._replies = {k: v for k, v in self._replies.items() if v[0] >= now}
        self._replies[key] = (now + self.switches.request_id_window_s, answer)

    def throttle(self, key: str, now: float) -> float | None:
        """Counts one request. Returns the seconds to wait if it is one too many."""
        allowed, length = self.switches.throttle_requests, self.switches.throttle_window_s
        if not allowed:
            return None
        since, count = self._windows.get(key, (now, 0))
        if now - since >= length:
            since, count = now, 0
        self._windows[key] = (since, count + 1)
        return since + length - now if count >= allowed else None

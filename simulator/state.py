"""The stand-in's whole memory: one object, replaced by a reset.

Everything random comes from one seeded source and every time from one clock that a test may move, so a run
can be repeated. Nothing is shared between two built programs and nothing is written to disk.
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
    """What a built program remembers. `reset` forgets all of it but the notification key."""

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
        """Make everything random from here on follow from the seed."""
        self.seed = seed
        self.chance.seed(seed)

    def settle(self) -> float:
        """Decide the jobs that are due; gives the present time."""
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
        """Count one request; the seconds to wait when it is one too many."""
        allowed, length = self.switches.throttle_requests, self.switches.throttle_window_s
        if not allowed:
            return None
        since, count = self._windows.get(key, (now, 0))
        if now - since >= length:
            since, count = now, 0
        self._windows[key] = (since, count + 1)
        return since + length - now if count >= allowed else None

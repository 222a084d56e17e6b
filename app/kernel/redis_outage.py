"""Errors that Redis raises during an outage, and the pause before it is asked again.

Callers go on without Redis, log the outage once, and try again after a pause, so that not every call waits
for it.
"""

import time
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

REDIS_OUTAGES: Final = (RedisError, OSError)
"""Exceptions of a Redis that is down. TimeoutError is an OSError."""
PAUSE: Final = 2.0
"""Seconds between a failure and the next try."""


@dataclass
class Outage:
    """An outage as one caller sees it."""

    is_on: bool = False
    _pause_until: float = 0.0
    _began: float = 0.0

    @property
    def is_pausing(self) -> bool:
        return time.monotonic() < self._pause_until

    def begin(self) -> bool:
        """Starts a pause, after a failure or while one call tries Redis for all. Returns whether this is
        new."""
        self._pause_until = time.monotonic() + PAUSE
        is_news, self.is_on = not self.is_on, True
        if is_news:
            self._began = time.monotonic()
        return is_news

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._began if self.is_on else 0.0

    def end(self) -> bool:
        """Ends the outage, because Redis has answered. Returns whether this is new."""
        self._pause_until = 0.0
        is_news, self.is_on = self.is_on, False
        return is_news

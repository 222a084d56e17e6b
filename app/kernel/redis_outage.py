"""Errors that Redis raises during an outage, and the pause before it is asked again.

Redis is dispensable: a caller goes on without it, logs that once, and asks again after a pause, so that
no call waits for it over and over.
"""

import time
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

REDIS_OUTAGES: Final = (RedisError, OSError)
"""What a Redis that is away raises; TimeoutError is an OSError."""
PAUSE: Final = 2.0
"""Seconds in which Redis is left alone after it failed."""


@dataclass
class Outage:
    """One asker's view of it."""

    is_on: bool = False
    _pause_until: float = 0.0
    _began: float = 0.0

    @property
    def is_pausing(self) -> bool:
        return time.monotonic() < self._pause_until

    def begin(self) -> bool:
        """Redis has failed, or is being tried again by one for all: a pause. Whether that is news."""
        self._pause_until = time.monotonic() + PAUSE
        is_news, self.is_on = not self.is_on, True
        if is_news:
            self._began = time.monotonic()
        return is_news

    @property
    def seconds(self) -> float:
        """For how long it has been on."""
        return time.monotonic() - self._began if self.is_on else 0.0

    def end(self) -> bool:
        """Redis has answered. Whether that is news."""
        self._pause_until = 0.0
        is_news, self.is_on = self.is_on, False
        return is_news

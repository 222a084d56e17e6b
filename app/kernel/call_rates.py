"""The rate limit of API keys: calls left in the minute, counted by all API processes in Redis.

`app.kernel.budgets`, which uses the same connections, holds back our calls to Microsoft; this module counts
others' calls to us. Redis has only the count. Without Redis, calls pass uncounted: a protection against one
caller must not stop all of them.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from uuid import UUID

from redis.asyncio import Redis

from app.kernel.redis_outage import REDIS_OUTAGES, Outage
from app.kernel.telemetry import logger

log = logger("call_rates")

WINDOW = 60
"""Seconds. Each key's windows begin at a different second, so that waiting callers do not all return at
once."""
KEPT = 2 * WINDOW
"""Seconds Redis keeps a count: one window, and some more because clocks differ a little."""
REDIS_TIMEOUT = 0.2
"""Seconds counting may take before the call goes on uncounted."""

_SCRIPT = """
local used = redis.call('INCR', KEYS[1])
if used == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return used
"""
"""(seconds kept) -> the calls of this window, this one included."""


@dataclass(frozen=True, slots=True)
class CallRate:
    """A key's use of its limit after a call."""

    limit: int
    used: int
    """Calls of the window, this one and refused ones included."""
    resets_in: int
    """Whole seconds after which the window is certainly over."""

    @property
    def remaining(self) -> int:
        return max(self.limit - self.used, 0)

    @property
    def is_exceeded(self) -> bool:
        return self.used > self.limit


@dataclass
class CallRates:
    """One per process."""

    redis: Redis
    limit: int
    """Calls of one key in a window; 0: any number."""
    _outage: Outage = field(default_factory=Outage)

    async def take(self, key_id: UUID, now: datetime) -> CallRate | None:
        """Counts a call. None if there is no limit or no Redis: the call passes."""
        if not self.limit or self._outage.is_pausing:
            return None
        if self._outage.is_on:
            self._outage.begin()  # this call tries Redis; the others pass meanwhile
        window, passed = divmod(now.timestamp() + key_id.int % WINDOW, WINDOW)
        try:
            async with asyncio.timeout(REDIS_TIMEOUT):
                used = await self.redis.execute_command(  # type: ignore[no-untyped-call]
                    "EVAL", _SCRIPT, 1, f"registrar:quota:{key_id}:{window:.0f}", KEPT
                )
        except REDIS_OUTAGES as error:
            if self._outage.begin():
                log.warning("calls_not_counted", error=type(error).__name__)
            return None
        if self._outage.end():
            log.info("calls_counted_again")
        return CallRate(self.limit, int(used), ceil(WINDOW - passed))

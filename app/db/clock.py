"""The time that all processes use: the database's, continued by this machine's monotonic clock.

One process writes leases, due times and expiries, and another one checks them. If each used its own machine's
time, a clock one hour ahead would delay work by an hour, and a clock behind would cause calls to be made
twice. Changes of this machine's clock have no effect; the database server's clock must be right
(docs/operate.md).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

READ_EVERY = 5.0
"""Seconds after which the database's time is read again, within a transaction that runs anyway."""
SLOWEST = 0.5
"""The most seconds that a reading may take: a slower one is too inexact."""


def utc_now() -> datetime:
    """This machine's time: used only until the database's has been read."""
    return datetime.now(UTC)


@dataclass
class DatabaseClock:
    steady: Callable[[], float] = time.monotonic
    """A clock that never goes back, in seconds."""
    local: Callable[[], datetime] = utc_now
    _read: datetime | None = field(default=None, init=False)
    _read_at: float = field(default=0.0, init=False)

    def now(self) -> datetime:
        if self._read is None:
            return self.local()
        return self._read + timedelta(seconds=self.steady() - self._read_at)

    @property
    def is_due(self) -> bool:
        return self._read is None or self.steady() - self._read_at >= READ_EVERY

    async def read(self, session: AsyncConnection) -> None:
        asked_at = self.steady()
        moment: datetime = (await session.execute(text("SELECT clock_timestamp()"))).scalar_one()
        took = self.steady() - asked_at
        if self._read is None or took <= SLOWEST:
            self._read, self._read_at = moment, asked_at + took / 2

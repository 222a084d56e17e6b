"""The time that all processes go by: the database's, carried on by this machine's steady clock.

Leases, due times and expiries are written by one process and judged by another. Were each to use its
own machine's time, a clock an hour ahead would hold work back for an hour, and one behind would have
calls made twice. What people or a time service do to this machine's clock changes nothing here; the
database server's is the one to keep right (docs/operate.md).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

READ_EVERY = 5.0
"""Seconds after which the database is asked again, within a transaction that happens anyway."""
SLOWEST = 0.5
"""Seconds a reading may take: what took longer says too little about when it was made."""


def utc_now() -> datetime:
    """This machine's idea of the time: all there is until the database has been asked."""
    return datetime.now(UTC)


@dataclass
class DatabaseClock:
    steady: Callable[[], float] = time.monotonic
    """Seconds that only ever go on."""
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

"""Sends wake-ups, by which a committed change shortens a worker's wait.

The rows in PostgreSQL are the queue. A wake-up says only that there is work of a kind; the worker that takes
it claims what is due, fairly, until nothing is left. So a lost, late or repeated wake-up costs time, never
work. This module is the sending side of arq; `workers` is the other.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import orjson
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.kernel import transport
from app.kernel.redis_outage import REDIS_OUTAGES
from app.kernel.telemetry import logger
from app.kernel.wakeups import WakeKind, WakeUp

QUEUE_NAME = "registrar:wake"
EXPIRES_AFTER = timedelta(minutes=10)
"""Older wake-ups are worthless, because the sweep has found the row."""
LONGEST_DEFERRAL = timedelta(minutes=2)
"""Later work is left to the sweep, which runs every few seconds anyway."""
SLOT = 0.1
"""Seconds. Later wake-ups are moved to the end of a slot, and those of a slot are counted together."""
LANES_A_SLOT = 8
"""A worker's default number of lanes for batches."""

SEND_PATIENCE = 2.0
"""Seconds sending may take in all: a Redis that accepts connections but never answers must not delay a
request."""
PAUSE_AFTER_FAILURE = 1.0
"""Seconds without a try after a failure, so that not every request waits."""

log = logger("queue")


def redis_settings(url: str, *, attempts: int) -> RedisSettings:
    """arq's settings for a URL (redis://, rediss://, unix://).

    `attempts` retries of a quarter second each, for commands and for the first connection. A worker must
    survive a restart of Redis (arq's own exits at the first lost connection), while a request must not wait
    for one.
    """
    settings = RedisSettings.from_dsn(url)
    settings.username, settings.password = (
        part and unquote(part) for part in (settings.username, settings.password)
    )
    for name, value in transport.redis_tls(url).items():
        setattr(settings, name, value)
    settings.retry = Retry(ConstantBackoff(0.25), attempts)
    # The attempt to connect itself raises OSError.
    settings.retry_on_error = [RedisConnectionError, RedisTimeoutError, OSError]
    settings.retry_on_timeout = True
    settings.conn_retries = attempts // 4  # arq waits a second between them
    return settings


def serialize(job: dict[str, Any]) -> bytes:
    """Writes JSON. With arq's default, pickle, anybody who writes to Redis could run code here."""
    return orjson.dumps(job)


def deserialize(data: bytes) -> dict[str, Any]:
    value = orjson.loads(data)
    if not isinstance(value, dict):
        raise TypeError("a job is a JSON object")
    return value


class Queue:
    """The sending side. Connects lazily, because the API must start and take orders without Redis."""

    def __init__(self, url: str) -> None:
        self._settings = redis_settings(url, attempts=1)
        self._pool: ArqRedis | None = None
        self._connecting = asyncio.Lock()
        self._silent_until = 0.0
        self._planned: Counter[tuple[WakeKind, int]] = Counter()

    async def _connected(self) -> ArqRedis:
        async with self._connecting:
            if self._pool is None:
                self._pool = await create_pool(
                    self._settings,
                    job_serializer=serialize,
                    job_deserializer=deserialize,
                    default_queue_name=QUEUE_NAME,
                )
            return self._pool

    async def send(self, wake_ups: Sequence[WakeUp], now: datetime) -> None:
        """Sends wake-ups. `now` is by the same clock as their times.

        A failure is logged and forgotten, because the sweep finds the rows.
        """
        if time.monotonic() < self._silent_until:
            return
        wake_ups = [wanted for wake_up in wake_ups if (wanted := self._not_planned(wake_up, now)) is not None]
        if not wake_ups:
            return
        try:
            async with asyncio.timeout(SEND_PATIENCE):
                pool = await self._connected()
                for wake_up in wake_ups:
                    await _enqueue(pool, wake_up, now)
        except REDIS_OUTAGES as error:
            self._silent_until = time.monotonic() + PAUSE_AFTER_FAILURE
            self._planned.clear()  # planned lanes may not have arrived, or were lost with Redis
            log.warning("wake_up_not_sent", error=type(error).__name__, count=len(wake_ups))

    def _not_planned(self, wake_up: WakeUp, now: datetime) -> WakeUp | None:
        """The wake-up without the lanes that this process has already requested for about the same time. A
        lane takes everything that is due, so a hundred batches that are due together do not need a hundred
        lanes."""
        if wake_up.at is None:
            return wake_up
        if wake_up.at - now > LONGEST_DEFERRAL:
            return None  # left to the sweep
        # If the time passed during the transaction, use now: lanes of an earlier slot have already looked,
        # before this commit.
        slot = math.ceil(max(wake_up.at, now).timestamp() / SLOT)
        planned = self._planned[wake_up.kind, slot]
        lanes = min(wake_up.lanes, LANES_A_SLOT - planned)
        if lanes <= 0:
            return None
        if len(self._planned) > 1000:
            past = now.timestamp() / SLOT
            self._planned = Counter({key: n for key, n in self._planned.items() if key[1] > past})
        self._planned[wake_up.kind, slot] += lanes
        return WakeUp(wake_up.kind, lanes, datetime.fromtimestamp(slot * SLOT, UTC))

    async def ping(self) -> bool:
        try:
            async with asyncio.timeout(SEND_PATIENCE):
                return bool(await (await self._connected()).ping())
        except REDIS_OUTAGES:
            return False

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None


async def _enqueue(pool: ArqRedis, wake_up: WakeUp, now: datetime) -> None:
    # As a pause from now, because arq uses this machine's clock, which may be wrong.
    pause = max(wake_up.at - now, timedelta()) if wake_up.at is not None else timedelta()
    for _ in range(wake_up.lanes):
        await pool.enqueue_job(wake_up.kind.value, _defer_by=pause, _expires=EXPIRES_AFTER)

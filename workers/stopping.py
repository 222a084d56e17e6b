"""Shutdown of a worker: first its lanes, then our own parts, then arq's brief tidying of Redis.

arq does it the other way round, and retries Redis as long as a running worker does: a worker that is told to
stop while Redis is down would take a minute, fail, and never remove its heartbeat. What arq would tidy
expires by itself.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from signal import Signals
from typing import Any, Final

from arq.worker import Worker

from app.kernel.redis_outage import REDIS_OUTAGES
from app.kernel.telemetry import logger

log = logger("worker")

REDIS_GOODBYE: Final = 2.0
"""Seconds that each of arq's last Redis calls may take: those of its jobs, then its own."""


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks until they are over.

    Once is not enough: a cancellation may get lost during a reconnect to Redis, and the task then goes on
    (seen with redis 5.3.1 in one of eight shutdowns).
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=REDIS_GOODBYE)


class PromptWorker(Worker):
    """arq's worker, changed so that a lost Redis does not keep it from stopping."""

    async def _wait_for_tasks_to_complete(self, signum: Signals) -> None:
        """What arq does on SIGTERM: waits for the jobs, then cancels its main task."""
        await super()._wait_for_tasks_to_complete(signum)
        if self.main_task is not None:
            await end_tasks([self.main_task])

    async def _sleep_until_tasks_complete(self) -> None:
        """The tasks that arq waits for when it stops. After its lane, a task only talks to Redis."""
        while True:
            if self.job_tasks:
                await asyncio.wait(self.job_tasks.values())
            if self.tasks:
                await asyncio.wait(self.tasks.values(), timeout=REDIS_GOODBYE)
            if not self.job_tasks:  # A wake-up that arrived just before may have become a lane meanwhile.
                return

    async def close(self) -> None:
        await self._end_tasks()
        if self._pool is None:
            return  # It never started.
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
            self.on_shutdown = None
        try:
            async with asyncio.timeout(REDIS_GOODBYE):
                await super().close()
        except REDIS_OUTAGES as error:
            log.warning("redis_not_tidied", error=type(error).__name__)

    async def _end_tasks(self) -> None:
        """Ends all lanes. A cancelled one is followed by Redis calls as well."""
        self.allow_pick_jobs = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._job_completion_wait):
                await self._sleep_until_tasks_complete()
        tasks = list(self.tasks.values())
        await end_tasks(tasks)
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                log.warning("wake_up_not_finished", error=type(ended).__name__)
        self.tasks.clear()

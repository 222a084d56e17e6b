"""The shutdown of a worker: its lanes first, then what is ours, then a brief tidying of Redis by arq.

arq does it the other way round, and waits for its Redis as patiently as a worker at work: one that is told
to stop while Redis is down would take a minute, fail, and never remove its heartbeat. What arq tidies
there expires by itself.
"""

import asyncio
import contextlib
from typing import Final

from arq.worker import Worker

from app.redis_outage import REDIS_OUTAGES
from app.telemetry import logger

log = logger("worker")

REDIS_GOODBYE: Final = 2.0
"""Seconds that each of arq's last Redis calls may take: those of its jobs, then its own."""


class PromptWorker(Worker):
    """arq's worker, changed so that a lost Redis does not keep it from stopping."""

    async def _sleep_until_tasks_complete(self) -> None:
        """The tasks that arq waits for when it stops. A task whose lane is over only talks to Redis."""
        while True:
            if self.job_tasks:
                await asyncio.wait(self.job_tasks.values())
            if self.tasks:
                await asyncio.wait(self.tasks.values(), timeout=REDIS_GOODBYE)
            if not self.job_tasks:  # A wake-up taken just before may have become a lane meanwhile.
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
        for patience in (self._job_completion_wait, REDIS_GOODBYE):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._sleep_until_tasks_complete()
            for task in self.tasks.values():
                task.cancel()
        for ended in await asyncio.gather(*self.tasks.values(), return_exceptions=True):
            if isinstance(ended, Exception):
                log.warning("wake_up_not_finished", error=type(ended).__name__)
        self.tasks.clear()

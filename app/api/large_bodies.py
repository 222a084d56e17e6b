"""Large bodies take turns: so many in a process at a time, so many of one partner, and fairly.

A body of 64 MB needs its own size twice while it is decoded, and decoding keeps other work of the process
waiting. The others of the same partner wait behind its own, and not in front of another partner's.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import Final

from app.domain.errors import Busy
from app.domain.ids import PartnerId

LARGE_BODY: Final = 512 * 1024
"""Bytes. A larger body waits for its turn before it is read."""
PATIENCE_S: Final = 30.0
"""Seconds for which a large body waits before it is refused; the client has not sent it yet."""
RETRY_AFTER: Final = 10


class LargeBodies:
    def __init__(self, per_process: int, per_partner: int, patience: float = PATIENCE_S) -> None:
        self._per_process = per_process
        self._per_partner = per_partner
        self._patience = patience
        self._running: Counter[PartnerId] = Counter()
        self._waiting: dict[PartnerId, deque[asyncio.Future[None]]] = {}
        """In rounds: a partner that was served goes to the end."""

    @contextlib.asynccontextmanager
    async def turn(self, partner_id: PartnerId) -> AsyncIterator[None]:
        """Lasts as long as the block runs. Raises Busy when it does not come in time."""
        await self._take(partner_id)
        try:
            yield
        finally:
            self._give_back(partner_id)

    async def _take(self, partner_id: PartnerId) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(partner_id, deque()).append(granted)
        self._serve()
        try:
            async with asyncio.timeout(self._patience):
                await granted
        except TimeoutError:
            self._give_up(partner_id, granted)
            raise Busy(
                "large_bodies_waiting",
                f"At most {self._per_process} bodies over {LARGE_BODY // 1024} kB are read at a time, "
                f"{self._per_partner} of one partner. It was not its turn for {self._patience:.0f} s.",
                retry_after=RETRY_AFTER,
            ) from None
        except asyncio.CancelledError:
            self._give_up(partner_id, granted)
            raise

    def _give_back(self, partner_id: PartnerId) -> None:
        self._running[partner_id] -= 1
        if not self._running[partner_id]:
            del self._running[partner_id]
        self._serve()

    def _serve(self) -> None:
        """Gives the free turns to those who wait, in rounds over the partners."""
        for partner_id in list(self._waiting):
            if self._running.total() >= self._per_process:
                return
            if self._running.get(partner_id, 0) < self._per_partner:
                self._grant(partner_id)

    def _grant(self, partner_id: PartnerId) -> None:
        waiting = self._waiting.pop(partner_id)
        while waiting:
            granted = waiting.popleft()
            if not granted.done():  # otherwise its request has just ended
                granted.set_result(None)
                self._running[partner_id] += 1
                break
        if waiting:
            self._waiting[partner_id] = waiting

    def _give_up(self, partner_id: PartnerId, granted: asyncio.Future[None]) -> None:
        if not granted.cancelled():
            # The turn came at the very moment at which nobody waited for it any more.
            self._give_back(partner_id)
            return
        waiting = self._waiting.get(partner_id, deque())
        if granted in waiting:
            waiting.remove(granted)
        if not waiting:
            self._waiting.pop(partner_id, None)

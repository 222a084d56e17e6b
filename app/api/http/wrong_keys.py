"""Wrong API keys, counted by client: logged once, and answered slowly beyond a limit.

A wrong key is answered 401, and 429 once its client has sent too many. A valid key from the same address is
always answered: people who share an address must not lock each other out. The keys of a client over the limit
are looked up one at a time, so that guessing keeps at most one database connection busy. Its wrong ones are
answered one after the other, PAUSE_S apart, so that guessing keeps no processor busy either.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from app.api.http.peers import client_name
from app.domain.address import Address
from app.domain.errors import RateLimited, Refusal, Unauthenticated
from app.kernel import metrics
from app.kernel.telemetry import logger
from app.services.access.identities import REFUSED_KEY, RefusedKey

log = logger("api")

WINDOW: Final = timedelta(minutes=1)
MAX_CLIENTS: Final = 4096
"""The most clients that are remembered. The one whose last wrong key is oldest is forgotten first."""
MAX_LINES: Final = 8
"""The most log lines about one client in a window: one for each key and reason."""
PAUSE_S: Final = 0.05
"""Seconds from one wrong key to the answer to the next, for a client over the limit."""
LOCAL: Final = "local"
"""Callers on a Unix socket."""


@dataclass
class _Client:
    since: datetime
    count: int = 0
    told: set[RefusedKey] = field(default_factory=set)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    pause: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Delays only answers to wrong keys. Valid keys never wait for it."""


class WrongKeys:
    def __init__(self, per_minute: int) -> None:
        """`per_minute`: how many get 401 before 429; 0 for no limit."""
        self._per_minute = per_minute
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clients)

    @asynccontextmanager
    async def turn(self, address: Address | None, now: datetime) -> AsyncIterator[None]:
        """Held while a key is looked up: at once, or one at a time for a client over the limit."""
        client = self._clients.get(_name(address))
        if client is None or not self._is_over(client, now):
            yield
            return
        async with client.turn:
            yield

    async def pause(self, address: Address | None, now: datetime) -> None:
        """Waits before a wrong key of a client over the limit is answered. Holds nothing meanwhile."""
        client = self._clients.get(_name(address))
        if client is None or not self._is_over(client, now):
            return
        async with client.pause:
            await asyncio.sleep(PAUSE_S)

    def refusal(self, address: Address | None, wrong: RefusedKey, now: datetime) -> Refusal:
        """Counts and logs a wrong key and returns the error, which never says what is wrong with the key."""
        metrics.key_refused(wrong.reason)
        client = self._client(_name(address), now)
        client.count += 1
        self._tell(client, address, wrong)
        if not self._is_over(client, now):
            return Unauthenticated("unauthenticated", REFUSED_KEY)
        wait = max(1, ceil((client.since + WINDOW - now).total_seconds()))
        words = f"More than {self._per_minute:,} calls from your address had a wrong key in the last minute."
        return RateLimited("too_many_wrong_keys", words, retry_after=wait)

    def _client(self, name: str, now: datetime) -> _Client:
        client = self._clients.get(name)
        if client is None or now - client.since >= WINDOW:
            client = self._clients[name] = _Client(now)
        self._clients.move_to_end(name)
        while len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        return client

    def _is_over(self, client: _Client, now: datetime) -> bool:
        return 0 < self._per_minute < client.count and now - client.since < WINDOW

    def _tell(self, client: _Client, address: Address | None, wrong: RefusedKey) -> None:
        if wrong in client.told or len(client.told) >= MAX_LINES:
            return
        client.told.add(wrong)
        log.warning(
            "key_refused",
            reason=wrong.reason.value,
            key_prefix=wrong.prefix,
            partner_id=str(wrong.partner_id) if wrong.partner_id else None,
            client=str(address) if address else LOCAL,
            is_last_line_of_minute=len(client.told) == MAX_LINES,
        )


def _name(address: Address | None) -> str:
    return client_name(address) if address is not None else LOCAL

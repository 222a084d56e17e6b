"""Webhook endpoints: as many as the quota allows, each of which wastes the time of its caller."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from anyio.from_thread import start_blocking_portal

from tests.attacks.attack import Attack, Target, status_of
from tests.support.receiver import Serve, listening

WANTED = 60
"""Endpoints that A asks for; the quota is less."""
DEVICES = 1000
"""Deliveries of each order: ten events and two, for each endpoint."""
Manner = Callable[[asyncio.StreamWriter, str], Awaitable[None]]


async def _never(writer: asyncio.StreamWriter, host: str) -> None:
    await asyncio.Event().wait()


async def _trickle(writer: asyncio.StreamWriter, host: str) -> None:
    """A header that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.5)


async def _redirect(writer: asyncio.StreamWriter, host: str) -> None:
    writer.write(f"HTTP/1.1 307 X\r\nLocation: http://{host}/again\r\nContent-Length: 0\r\n\r\n".encode())
    await writer.drain()


async def _huge(writer: asyncio.StreamWriter, host: str) -> None:
    """A body without an end."""
    writer.write(b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        await writer.drain()


@contextmanager
def _receiver(manner: Manner) -> Iterator[str]:
    """Its address. It answers in this manner from a thread of its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled when the attack is over. Otherwise the stream's callback would print a traceback for each.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await manner(writer, f"127.0.0.1:{port}")
        writer.close()

    with _in_background(answer) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _in_background(serve: Serve) -> Iterator[int]:
    """`listening` on an event loop in a thread of its own. Connections still open at the end are dropped."""
    with start_blocking_portal() as portal:
        listener: AbstractContextManager[int] = portal.wrap_async_context_manager(listening(serve))
        with listener as number:
            yield number


def _run(manner: Manner) -> Callable[[Target], Counter[str]]:
    def attack(target: Target) -> Counter[str]:
        answers: Counter[str] = Counter()
        with _receiver(manner) as url, target.client() as client:
            for number in range(WANTED):
                if target.over:
                    return answers
                body = {"url": f"{url}/{number}", "event_types": []}
                answers[status_of(client, "POST", "/v1/webhook-endpoints", json=body)] += 1
            for number in itertools.count():
                if target.over:
                    return answers
                said = status_of(client, "POST", "/v1/orders", json=_order(target, number))
                answers[f"order {said}"] += 1
        raise AssertionError

    return attack


def _order(target: Target, number: int) -> object:
    serial = f"ATTACK{target.begun:.0f}X{number:05d}"
    return {
        "customer_id": target.customers[number % len(target.customers)],
        "reference": serial,
        "devices": [
            {"serial_number": f"{serial}X{row:04d}", "manufacturer": "Contoso", "model": "Book"}
            for row in range(DEVICES)
        ],
    }


_MANY = f"has {WANTED} endpoints made and orders {DEVICES} devices at a time; they"
ATTACKS = [
    Attack("silent-endpoints", f"{_MANY} never answer", _run(_never)),
    Attack("slow-endpoints", f"{_MANY} answer a byte in half a second", _run(_trickle)),
    Attack("redirecting-endpoints", f"{_MANY} redirect to themselves", _run(_redirect)),
    Attack("huge-endpoints", f"{_MANY} answer without an end", _run(_huge)),
]

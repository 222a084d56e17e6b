"""Bodies that are small on the wire and huge when parsed, wrong in very many places, or endless."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.attacks.attack import Attack, Target, in_loops

LOOPS = 4
SIZE = 60_000_000
"""Bytes of one body; made piece by piece, so that the attacker holds one piece."""
PIECE = 64 * 1024
JSON = {"Content-Type": "application/json"}
Body = Callable[[], bytes | Iterator[bytes]]
Case = tuple[str, Body]
"""Where a body is sent, and the body."""


def endless(head: bytes, item: bytes) -> Body:
    """The head and then the item, up to SIZE."""

    def pieces() -> Iterator[bytes]:
        yield head
        piece = item * (PIECE // len(item))
        for _ in range(SIZE // len(piece)):
            yield piece

    return pieces


def whole(body: bytes) -> Body:
    return lambda: body


BUILT = (
    ("/v1/customers", endless(b'{"x":[', b'{"a":{"b":{}}},')),
    ("/v1/orders", endless(b'{"x":[', b'{"a":{"b":{}}},')),
    ("/v1/orders", endless(b'{"devices":[', b"{},")),
    ("/v1/orders", endless(b'{"devices":[', b"0,")),
    ("/v1/orders", endless(b"{", b'"name":0,')),
    ("/v1/orders", endless(b"", b"[")),
    ("/v1/vendor-profiles", endless(b'{"definition":{', b'"a":{},')),
)


def _wrong() -> tuple[Case, ...]:
    """As much as the bound lets pass: 10,000 devices with 9 misspelt names each, 10,000 wrong rows."""
    device = {f"n{n}": 0 for n in range(9)}
    order = json.dumps({"reference": "R", "devices": [device] * 10_000}, separators=(",", ":")).encode()
    rows = json.dumps({"rows": [{"x": 0}] * 10_000}).encode()
    nowhere = "00000000-0000-4000-8000-000000000001"
    long = json.dumps({"reference": "x" * 40_000_000}).encode()
    return (
        ("/v1/orders", whole(order)),
        (f"/v1/batches/{nowhere}:record-outcome", whole(rows)),
        ("/v1/orders", whole(long)),
    )


def send(target: Target, cases: tuple[Case, ...]) -> Counter[str]:
    """All cases in turn, again and again, in LOOPS threads."""

    def step(client: httpx.Client, number: int) -> list[str]:
        path, body = cases[number % len(cases)]
        try:
            return [str(client.post(path, headers=JSON, content=body()).status_code)]
        except httpx.TransportError:
            return ["cut off"]  # refused while it was still being sent; the connection is closed then

    return in_loops(target, LOOPS, step, timeout=5.0)


def _trickled(target: Target) -> Counter[str]:
    """Announces large orders and sends a little of them at intervals."""

    def pieces() -> Iterator[bytes]:
        yield b'{"reference":"'
        while not target.over:
            yield b"x" * 2048
            time.sleep(0.2)
        raise httpx.WriteError("broken off: the attack is over")

    def loop(_: int) -> Counter[str]:
        with target.client() as client:
            headers = {**JSON, "Content-Length": "40000000"}
            try:
                return Counter(
                    [str(client.post("/v1/orders", headers=headers, content=pieces()).status_code)]
                )
            except httpx.TransportError:
                return Counter(["cut off"])

    with ThreadPoolExecutor(20) as pool:
        return sum(pool.map(loop, range(20)), Counter())


ATTACKS = [
    Attack("built", "sends JSON of 60 MB that is gigabytes once built", lambda target: send(target, BUILT)),
    Attack("wrong", "sends bodies wrong in 90,000 places", lambda target: send(target, _wrong())),
    Attack("trickled", "announces 20 orders of 40 MB and sends 10 kB a second of each", _trickled),
]

"""Calls without a valid key: heads that do not end or are too large, bodies that trickle, wrong keys.

A calls from an address of its own, as an attacker on another machine would: the limits by address are part
of what is measured.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.attacks.attack import Attack, Target

ADDRESS = "127.0.0.2"
UNFINISHED = 800
"""Connections that A holds at the same time at most."""
SENDERS = 4
LARGE = 20 * 1024 * 1024
"""Bytes of one head. A sends as many as are taken from it."""
PIECE = 64 * 1024
GUESSERS = 10
PATIENCE_S = 2.0
"""Seconds that one step of A may take."""
PAUSE_S = 1.0
"""Seconds between two bytes of what trickles."""


def _connect(target: Target) -> socket.socket:
    return socket.create_connection(
        (target.host, target.port), timeout=PATIENCE_S, source_address=(ADDRESS, 0)
    )


def _status(received: bytes) -> str:
    """In words: the status of an answer, or how the connection ended without one."""
    return received[9:12].decode("latin-1") if received.startswith(b"HTTP/1.1 ") else "cut off"


def _ended(held: socket.socket) -> str | None:
    """How the service has ended this connection; None while it has not."""
    held.settimeout(0)
    try:
        return _status(held.recv(4096))
    except BlockingIOError:
        return None
    except OSError:
        return "cut off"
    finally:
        held.settimeout(PATIENCE_S)


def _holding(begin: bytes, more: bytes) -> Callable[[Target], Counter[str]]:
    """Opens connections that begin a request, and sends more of it at intervals. Reopens those that were
    ended."""

    def run(target: Target) -> Counter[str]:
        answers: Counter[str] = Counter()
        held: list[socket.socket] = []
        while not target.over:
            still = []
            for each in held:
                if (ended := _ended(each)) is not None:
                    answers[ended] += 1
                    each.close()
                    continue
                try:
                    each.sendall(more)
                except OSError:
                    answers["cut off"] += 1
                    each.close()
                    continue
                still.append(each)
            held = still
            try:
                while len(held) < UNFINISHED and not target.over:
                    held.append(_connect(target))
                    held[-1].sendall(begin)
            except OSError as error:
                answers[type(error).__name__] += 1
            time.sleep(PAUSE_S)
        answers["open at the end"] = sum(_ended(each) is None for each in held)
        for each in held:
            each.close()
        return answers

    return run


def _large_heads(target: Target) -> Counter[str]:
    """Request lines of many megabytes, one after the other, from a few threads."""

    def send(_: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        while not target.over:
            try:
                with _connect(target) as client:
                    answers[_send_head(client)] += 1
            except OSError:
                answers["cut off"] += 1
        return answers

    with ThreadPoolExecutor(SENDERS) as pool:
        return sum(pool.map(send, range(SENDERS)), Counter())


def _send_head(client: socket.socket) -> str:
    client.sendall(b"GET /")
    for _ in range(LARGE // PIECE):
        if (ended := _ended(client)) is not None:
            return ended
        client.sendall(b"a" * PIECE)
    client.sendall(b" HTTP/1.1\r\nHost: registrar\r\n\r\n")
    return _status(client.recv(4096))


def _wrong_keys(target: Target) -> Counter[str]:
    """Keys of the right form that do not exist."""

    def guess(_: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        transport = httpx.HTTPTransport(local_address=ADDRESS)
        with httpx.Client(base_url=target.url, transport=transport, timeout=30, trust_env=False) as client:
            headers = {"Authorization": f"Bearer {target.key[:-1]}x"}
            while not target.over:
                try:
                    answers[str(client.get("/v1/me", headers=headers).status_code)] += 1
                except httpx.TransportError as error:
                    answers[type(error).__name__] += 1
        return answers

    with ThreadPoolExecutor(GUESSERS) as pool:
        return sum(pool.map(guess, range(GUESSERS)), Counter())


ATTACKS = [
    Attack("silent", f"holds {UNFINISHED} connections and sends nothing", _holding(b"", b"")),
    Attack(
        "slow_heads",
        f"holds {UNFINISHED} connections whose headers do not end",
        _holding(b"GET /v1/me HTTP/1.1\r\nX: ", b"a"),
    ),
    Attack(
        "slow_bodies",
        f"holds {UNFINISHED} connections whose bodies trickle",
        _holding(b"POST /v1/orders HTTP/1.1\r\nHost: r\r\nContent-Length: 60000000\r\n\r\n", b" "),
    ),
    Attack("large_heads", f"sends request lines of {LARGE // 1024 // 1024} MB", _large_heads),
    Attack("wrong_keys", f"guesses keys in {GUESSERS} loops", _wrong_keys),
]

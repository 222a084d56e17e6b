"""Calls: as many as the attacker's threads can make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx

from tests.attacks.attack import Attack, Target

LOOPS = 20


ORDERS = 16
LARGEST = 10_000


def in_loops(target: Target, method: str, paths: Sequence[str], loops: int = LOOPS) -> Counter[str]:
    """The same calls again and again, in so many threads."""

    def loop(number: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        with target.client() as client:
            for turn in count(number):
                if target.over:
                    return answers
                try:
                    answers[str(client.request(method, paths[turn % len(paths)]).status_code)] += 1
                except httpx.TransportError as error:
                    answers[type(error).__name__] += 1
        return answers

    with ThreadPoolExecutor(loops) as pool:
        return sum(pool.map(loop, range(loops)), Counter())


def _lists(target: Target) -> Counter[str]:
    return in_loops(target, "GET", ["/v1/orders?page_size=1000"])


def _filters(target: Target) -> Counter[str]:
    """Each of them fits no row, or all; no index serves it."""
    worst = (
        "/v1/registrations?page_size=1000&serial_contains=QQQ",
        "/v1/registrations?page_size=1000&error_code=none&line_ref=none",
        "/v1/registrations?page_size=1000&state=conflict&since=2020-01-01T00:00:00Z",
        "/v1/orders?page_size=1000&state=failed&since=2020-01-01T00:00:00Z",
        "/v1/customers?page_size=1000&domain=none.example",
    )
    return in_loops(target, "GET", worst, LOOPS)


def _orders(target: Target) -> Counter[str]:
    """Orders of 10,000 devices, sixteen at a time until the time is over."""

    def loop(number: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        with target.client(timeout=60.0) as client:
            for turn in count():
                if target.over:
                    return answers
                reference = f"LARGE-{number}-{turn}"
                rows = [
                    {"serial_number": f"{reference}-{row}", "manufacturer": "Contoso", "model": "Book"}
                    for row in range(LARGEST)
                ]
                body = {"customer_id": target.customers[0], "reference": reference, "devices": rows}
                try:
                    answers[str(client.post("/v1/orders", json=body).status_code)] += 1
                except httpx.TransportError as error:
                    answers[type(error).__name__] += 1
        return answers

    with ThreadPoolExecutor(ORDERS) as pool:
        return sum(pool.map(loop, range(ORDERS)), Counter())


ATTACKS = [
    Attack("lists", f"reads the longest page of orders in {LOOPS} loops", _lists),
    Attack("filters", f"asks for what no index finds in {LOOPS} loops", _filters),
    Attack("orders", f"sends {ORDERS} orders of {LARGEST:,} devices at a time", _orders),
]

"""Calls: as many as the attacker's threads can make."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import httpx

from tests.attacks.attack import Attack, Target, in_loops, status_of

LOOPS = 20
ORDERS = 16
LARGEST = 10_000


def _lists(target: Target) -> Counter[str]:
    return in_loops(target, LOOPS, lambda client, _: [status_of(client, "GET", "/v1/orders?page_size=1000")])


def _filters(target: Target) -> Counter[str]:
    """Each of them fits no row, or all; no index serves it."""
    worst = (
        "/v1/registrations?page_size=1000&serial_contains=QQQ",
        "/v1/registrations?page_size=1000&error_code=none&line_ref=none",
        "/v1/registrations?page_size=1000&state=conflict&since=2020-01-01T00:00:00Z",
        "/v1/orders?page_size=1000&state=failed&since=2020-01-01T00:00:00Z",
        "/v1/customers?page_size=1000&domain=none.example",
    )
    return in_loops(
        target, LOOPS, lambda client, number: [status_of(client, "GET", worst[number % len(worst)])]
    )


def _orders(target: Target) -> Counter[str]:
    """Orders of 10,000 devices, sixteen at a time until the time is over."""

    def step(client: httpx.Client, _: int) -> list[str]:
        reference = f"LARGE-{uuid4().hex[:12]}"
        rows = [
            {"serial_number": f"{reference}-{row}", "manufacturer": "Contoso", "model": "Book"}
            for row in range(LARGEST)
        ]
        body = {"customer_id": target.customers[0], "reference": reference, "devices": rows}
        return [status_of(client, "POST", "/v1/orders", json=body)]

    return in_loops(target, ORDERS, step, timeout=60.0)


ATTACKS = [
    Attack("lists", f"reads the longest page of orders in {LOOPS} loops", _lists),
    Attack("filters", f"asks for what no index finds in {LOOPS} loops", _filters),
    Attack("orders", f"sends {ORDERS} orders of {LARGEST:,} devices at a time", _orders),
]

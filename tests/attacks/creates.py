"""Creates: as much of everything as A's key can make, each with an Idempotency-Key of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx

from tests.attacks.attack import Attack, Target, in_loops

LOOPS = 12


def _customer(target: Target) -> dict[str, Any]:
    return {"connection_id": target.connection_id, "entra_tenant_id": str(uuid4()), "name": uuid4().hex}


def _connection(_: Target) -> dict[str, Any]:
    return {
        "name": uuid4().hex,
        "entra_tenant_id": str(uuid4()),
        "client_id": str(uuid4()),
        "client_secret": "not-a-real-secret",
        "default_group_tag": "Fleet",
    }


def _endpoint(_: Target) -> dict[str, Any]:
    # Nothing is delivered there: the type is one that A causes by nothing it does here. An address, because
    # a name would be looked up.
    return {"url": "http://127.0.0.1:9/hooks", "event_types": ["order.failed"]}


def _profile(_: Target) -> dict[str, Any]:
    return {"name": uuid4().hex, "definition": {"columns": {uuid4().hex: "serial_number"}}}


def _order(target: Target) -> dict[str, Any]:
    device = {"serial_number": f"SYN{uuid4().hex[:12]}", "manufacturer": "Contoso", "model": "Book 14"}
    return {"customer_id": target.customers[0], "reference": uuid4().hex, "devices": [device]}


NOUNS: dict[str, Callable[[Target], dict[str, Any]]] = {
    "customers": _customer,
    "connections": _connection,
    "webhook-endpoints": _endpoint,
    "vendor-profiles": _profile,
    "orders": _order,
}


def _everything(target: Target) -> Counter[str]:
    nouns = list(NOUNS.items())

    def step(client: httpx.Client, number: int) -> list[str]:
        noun, body = nouns[number % len(nouns)]
        headers = {"Idempotency-Key": str(uuid4())}
        answer = client.post(f"/v1/{noun}", json=body(target), headers=headers)
        code = answer.json().get("code", "") if answer.status_code >= 400 else ""
        return [f"{answer.status_code} {code}".strip()]

    return in_loops(target, LOOPS, step, timeout=5.0)


ATTACKS = [Attack("creates", f"makes something of every kind in {LOOPS} loops", _everything)]

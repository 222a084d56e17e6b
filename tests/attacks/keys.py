"""Keys and removals: what makes rows, counts them, or takes them away, as often as calls can be made."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx

from tests.attacks.attack import Attack, Target
from tests.attacks.calls import in_loops

LOOPS = 8


def _rotates(target: Target) -> Counter[str]:
    """The new key is never used, so each rotation replaces the one before."""
    return in_loops(target, "POST", "/v1/me/key:rotate", LOOPS)


def _guesses(target: Target) -> Counter[str]:
    """Keys that look right and have a wrong checksum."""
    wrong = target.key[:-1] + ("0" if target.key[-1] != "0" else "1")

    def loop(_: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        with target.client() as client:
            while not target.over:
                try:
                    response = client.get("/v1/me", headers={"Authorization": f"Bearer {wrong}"})
                    answers[str(response.status_code)] += 1
                except httpx.TransportError as error:
                    answers[type(error).__name__] += 1
        return answers

    with ThreadPoolExecutor(LOOPS) as pool:
        return sum(pool.map(loop, range(LOOPS)), Counter())


def _removes(target: Target) -> Counter[str]:
    """Makes customers, looks at what they have, and removes them; looks at the whole connection between."""

    def loop(_: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        with target.client() as client:
            while not target.over:
                try:
                    _remove_one(client, target.connection_id, answers)
                except httpx.TransportError as error:
                    answers[type(error).__name__] += 1
        return answers

    with ThreadPoolExecutor(LOOPS) as pool:
        return sum(pool.map(loop, range(LOOPS)), Counter())


def _remove_one(client: httpx.Client, connection_id: str, answers: Counter[str]) -> None:
    tenant = str(uuid4())
    body = {"connection_id": connection_id, "entra_tenant_id": tenant, "name": tenant}
    made = client.post("/v1/customers", json=body)
    answers[f"made {made.status_code}"] += 1
    looked = client.delete(f"/v1/connections/{connection_id}", params={"dry_run": "true"})
    answers[f"looked {looked.status_code}"] += 1
    if made.status_code == httpx.codes.CREATED:
        gone = client.delete(f"/v1/customers/{made.json()['id']}", params={"everything": "true"})
        answers[f"removed {gone.status_code}"] += 1


ATTACKS = [
    Attack("rotations", f"rotates its key in {LOOPS} loops", _rotates),
    Attack("guesses", f"sends keys with a wrong checksum in {LOOPS} loops", _guesses),
    Attack("removals", f"makes and removes customers in {LOOPS} loops", _removes),
]

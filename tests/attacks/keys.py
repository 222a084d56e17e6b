"""Keys and removals: creates, counts and deletes rows as often as possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import httpx

from tests.attacks.attack import Attack, Target, in_loops, status_of

LOOPS = 8


def _rotates(target: Target) -> Counter[str]:
    """The new key is never used, so each rotation replaces the one before."""
    return in_loops(target, LOOPS, lambda client, _: [status_of(client, "POST", "/v1/me/key:rotate")])


def _guesses(target: Target) -> Counter[str]:
    """Keys that look right and have a wrong checksum."""
    wrong = target.key[:-1] + ("0" if target.key[-1] != "0" else "1")

    headers = {"Authorization": f"Bearer {wrong}"}
    return in_loops(target, LOOPS, lambda client, _: [status_of(client, "GET", "/v1/me", headers=headers)])


def _removes(target: Target) -> Counter[str]:
    """Makes customers, looks at what they have, and removes them; looks at the whole connection between."""
    return in_loops(target, LOOPS, lambda client, _: _remove_one(client, target.connection_id))


def _remove_one(client: httpx.Client, connection_id: str) -> Iterator[str]:
    tenant = str(uuid4())
    body = {"connection_id": connection_id, "entra_tenant_id": tenant, "name": tenant}
    made = client.post("/v1/customers", json=body)
    yield f"made {made.status_code}"
    looked = client.delete(f"/v1/connections/{connection_id}", params={"dry_run": "true"})
    yield f"looked {looked.status_code}"
    if made.status_code == httpx.codes.CREATED:
        gone = client.delete(f"/v1/customers/{made.json()['id']}", params={"everything": "true"})
        yield f"removed {gone.status_code}"


ATTACKS = [
    Attack("rotations", f"rotates its key in {LOOPS} loops", _rotates),
    Attack("guesses", f"sends keys with a wrong checksum in {LOOPS} loops", _guesses),
    Attack("removals", f"makes and removes customers in {LOOPS} loops", _removes),
]

"""Authorisation of calls: every route, every kind of wrong key, and another partner's ids."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from app.domain.scope import Scope
from app.services.access import identities
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.support.document import api, openapi
from tests.support.import_scene import preview, tuple_sheet
from tests.support.world import Partner, World

OPEN = {"/healthz", "/readyz", "/v1/error-codes", "/v1/error-codes/{code}"}


def routes() -> Iterator[tuple[str, str]]:
    """Every (method, path) of the API, as the program has them."""
    for found in iter_route_contexts(api().routes):
        if isinstance(found.route, APIRoute):
            for method in found.methods or ():
                yield method, str(found.path)


ROUTES = sorted(set(routes()))
CLOSED = [(method, path) for method, path in ROUTES if path not in OPEN]


def test_the_walk_finds_the_api() -> None:
    assert len(CLOSED) > 25
    assert {path for _, path in ROUTES} >= OPEN
    assert ("POST", "/v1/orders") in CLOSED


def filled(path: str, id: object = UUID(int=1)) -> str:
    return re.sub(r"\{[a-z_]+\}", str(id), path)


@pytest.mark.parametrize(("method", "path"), CLOSED, ids=[f"{m} {p}" for m, p in CLOSED])
async def test_every_route_needs_a_key(world: World, method: str, path: str) -> None:
    for url in (filled(path), filled(path, "no-id"), filled(path) + "?page_size=0"):
        response = await world.client.request(method, url, content=b"{")
        found = problem_of(response, 401, "unauthenticated")
        assert found["detail"] == identities.REFUSED_KEY
        assert response.headers["www-authenticate"].startswith("Bearer")


async def test_every_kind_of_wrong_key_is_answered_in_the_same_words(world: World) -> None:
    partner = await world.partner(consented=False)
    other = await world.partner(consented=False)
    revoked = await identities.create_key(world.runtime, partner, name="revoked")
    await identities.revoke_key(world.runtime, partner, revoked.prefix)
    now = world.clock.now()
    expired = await identities.create_key(
        world.runtime, partner, name="expired", expires_at=now - timedelta(seconds=1)
    )
    prefix, secret = partner.key.rsplit("_", 1)
    wrong = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Basic {partner.key}",
        f"Token {partner.key}",
        partner.key,
        f"Bearer {partner.key}x",
        f"Bearer {partner.key[:-1]}",
        f"Bearer {partner.key} {partner.key}",
        f"Bearer {partner.key.upper()}",
        f"Bearer {prefix}_{other.key.rsplit('_', 1)[1]}",
        f"Bearer rk_00000000_{secret}",
        f"Bearer {prefix}_",
        f"Bearer rk__{secret}",
        "Bearer rk_%00_\x00",
        "Bearer " + "_" * 5_000,
        f"Bearer {revoked.secret}",
        f"Bearer {expired.secret}",
    ]
    seen = set()
    for header in wrong:
        response = await world.client.get("/v1/me", headers={"Authorization": header})
        found = problem_of(response, 401, "unauthenticated")
        seen.add((found["detail"], found["title"], found["remedy"], str(found["errors"])))
    assert len(seen) == 1


async def test_a_key_works_until_the_moment_it_expires_or_is_revoked(world: World) -> None:
    partner = await world.partner(consented=False)
    key = await identities.create_key(
        world.runtime, partner, name="short", expires_at=world.clock.now() + timedelta(hours=1)
    )
    headers = {"authorization": f"bearer  {key.secret} "}
    assert (await world.client.get("/v1/me", headers=headers)).status_code == 200
    world.clock.advance(hours=1)
    problem_of(await world.client.get("/v1/me", headers=headers), 401, "unauthenticated")
    assert (await world.client.get("/v1/me", headers=partner.headers)).status_code == 200
    await identities.revoke_key(world.runtime, partner, partner.key.split("_")[1])
    problem_of(await world.client.get("/v1/me", headers=partner.headers), 401, "unauthenticated")


async def test_me_says_whose_key_it_is(world: World) -> None:
    partner = await world.partner(consented=False)
    key = await identities.create_key(
        world.runtime, partner, name="few", scopes=[Scope.WEBHOOKS_READ, Scope.ORDERS_READ]
    )
    me = (await world.client.get("/v1/me", headers={"Authorization": f"Bearer {key.secret}"})).json()
    assert me == {
        "partner_id": str(partner.id),
        "partner_name": partner.name,
        "partner_role": "direct_bill",
        "scopes": ["orders:read", "webhooks:read"],
        "key": {"prefix": key.prefix, "name": "few", "expires_at": None},
    }


def scope_of(method: str, path: str) -> Scope | None:
    """The scope that a route with this method and path must require."""
    noun = path.removeprefix("/v1/").partition("/")[0]
    family = {
        "orders": "orders",
        "registrations": "orders",
        "devices": "orders",
        "batches": "orders",
        "limits": "orders",
        "status": "orders",
        "imports": "orders",
        "vendor-profiles": "orders",
        "customers": "customers",
        "connections": "connections",
        "webhook-endpoints": "webhooks",
        "webhook-deliveries": "webhooks",
    }.get(noun)
    # A portal's file contains hardware hashes, which a read-only key must not get.
    reads = method == "GET" and not path.endswith("/portal-file.csv")
    return None if family is None else Scope(f"{family}:{'read' if reads else 'write'}")


def body_for(method: str, path: str) -> dict[str, Any] | None:
    """The document's example, because some bodies are looked at before the id."""
    contents = openapi()["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
    example: dict[str, Any] | None = contents.get("application/json", {}).get("example")
    return example


async def test_every_route_asks_for_its_own_scope_and_no_other(world: World) -> None:
    partner = await world.partner(consented=False)
    keys = {}
    for missing in Scope:
        scopes = [scope for scope in Scope if scope is not missing]
        keys[missing] = await identities.create_key(world.runtime, partner, name=missing.value, scopes=scopes)
    asked = {scope_of(method, path) for method, path in CLOSED}
    assert asked | {Scope.HASHES_READ} == {*Scope, None}  # it decides what is shown, not which routes
    for method, path in CLOSED:
        scope = scope_of(method, path)
        url = filled(path, uuid4())
        if scope is None:  # includes the route that revokes the call's own key
            without = await identities.create_key(world.runtime, partner, name="none", scopes=[])
        else:
            without = keys[scope]
        response = await world.client.request(
            method, url, headers={"Authorization": f"Bearer {without.secret}"}, content=b"{"
        )
        if scope is None:
            assert response.status_code in (200, 204, 415), (method, path, response.text)
            continue
        found = problem_of(response, 403, "scope_missing")
        assert scope.value in found["detail"]
        for other, key in keys.items():
            if other is scope:
                continue
            response = await world.client.request(
                method, url, headers={"Authorization": f"Bearer {key.secret}"}, content=b"{"
            )
            assert response.status_code in (200, 201, 400, 404, 415), (method, path, other, response.text)


async def everything(world: World, partner: Partner) -> dict[str, str]:
    """One id of each kind that the partner has."""
    order = (await world.post_order(partner, [TUPLE])).json()
    await world.work()
    endpoint = (
        await world.client.post(
            "/v1/webhook-endpoints", headers=partner.headers, json={"url": "https://hooks.example.com/a"}
        )
    ).json()
    delivery = (
        await world.client.post(f"/v1/webhook-endpoints/{endpoint['id']}:test", headers=partner.headers)
    ).json()
    (row,) = await world.rows(partner, order["id"])
    file = await preview(world, partner, tuple_sheet(2, "FILE"))
    profile = (
        await world.client.post(
            "/v1/vendor-profiles", headers=partner.headers, json={"name": "Supplier", "definition": {}}
        )
    ).json()
    (device,) = (await world.client.get("/v1/devices", headers=partner.headers)).json()["items"]
    return {
        "device_id": device["id"],
        "import_id": file["id"],
        "profile_id": profile["id"],
        "order_id": order["id"],
        "registration_id": row["id"],
        "batch_id": row["batch_id"],
        "customer_id": str(partner.customer_id),
        "connection_id": str(partner.connection_id),
        "endpoint_id": endpoint["id"],
        "delivery_id": delivery["id"],
    }


async def test_another_partners_ids_look_unknown_on_every_route(world: World) -> None:
    owner = await world.partner()
    stranger = await world.partner()
    ids = await everything(world, owner)
    before = await world.dump()
    with_ids = [(method, path) for method, path in CLOSED if "{" in path]
    assert {name for _, path in with_ids for name in re.findall(r"\{([a-z_]+)\}", path)} == set(ids)
    for method, path in with_ids:
        (name,) = re.findall(r"\{([a-z_]+)\}", path)
        answers = []
        for id in (ids[name], str(uuid4())):
            response = await world.client.request(
                method,
                filled(path, id),
                headers=stranger.headers,
                json=body_for(method, path),
            )
            assert response.status_code == 404, (method, path, response.text)
            answers.append(response.text.replace(id, "*").replace(response.headers["x-correlation-id"], "*"))
        assert answers[0] == answers[1], (method, path)
    assert await world.dump() == before
    for method, path in with_ids:
        # Its order is sent by API, so it has no files.
        if method == "GET" and "/portal-file" not in path:
            (name,) = re.findall(r"\{([a-z_]+)\}", path)
            response = await world.client.get(filled(path, ids[name]), headers=owner.headers)
            assert response.status_code == 200, (path, response.text)


async def test_another_partners_ids_find_nothing_in_lists_and_bodies(world: World) -> None:
    owner = await world.partner()
    stranger = await world.partner()
    ids = await everything(world, owner)
    for path in (
        "/v1/orders",
        f"/v1/orders?customer_id={ids['customer_id']}",
        "/v1/registrations",
        f"/v1/registrations?batch_id={ids['batch_id']}",
        f"/v1/devices?customer_id={ids['customer_id']}",
        "/v1/batches",
        f"/v1/batches?order_id={ids['order_id']}",
        "/v1/webhook-endpoints",
        "/v1/webhook-deliveries",
        f"/v1/customers?entra_tenant_id={owner.tenant_id}",
    ):
        response = await world.client.get(path, headers=stranger.headers)
        found = response.json()
        assert (found["items"], found["next_page_token"]) == ([], None), path
    order = await world.post_order(stranger, [TUPLE], customer_id=ids["customer_id"])
    found = problem_of(order, 404, "unknown_customer")
    unknown = await world.post_order(stranger, [TUPLE], customer_id=str(UUID(int=5)))
    assert problem_of(unknown, 404, "unknown_customer")["detail"] == found["detail"].replace(
        ids["customer_id"], str(UUID(int=5))
    )
    customer = await world.client.post(
        "/v1/customers",
        headers=stranger.headers,
        json={"connection_id": ids["connection_id"], "entra_tenant_id": str(uuid4()), "name": "Theirs"},
    )
    problem_of(customer, 404, "unknown_connection")

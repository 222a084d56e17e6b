"""A repeated order creates one order, whatever was lost and however many callers repeat it at once."""

import asyncio
import hashlib
import json
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from app.db import idempotency
from app.services.access import identities
from app.services.access.idempotency import MAX_ANSWER
from app.services.operations import sweep
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.support.world import Partner, World

ENDPOINT = {"url": "https://hooks.example.com/registrar", "event_types": ["order.completed"]}


def order_body(partner: Partner, reference: str = "PO-1", **fields: object) -> bytes:
    body = {"customer_id": str(partner.customer_id), "reference": reference, "devices": [TUPLE], **fields}
    return json.dumps(body).encode()


def headers_of(partner: Partner, key: str | None = None) -> dict[str, str]:
    headers = {**partner.headers, "Content-Type": "application/json"}
    return headers if key is None else {**headers, "Idempotency-Key": key}


async def test_the_same_reference_with_the_same_body_says_that_nothing_was_lost(world: World) -> None:
    partner = await world.partner(consented=False)
    body, headers = order_body(partner), headers_of(partner)
    first = await world.client.post("/v1/orders", headers=headers, content=body)
    second = await world.client.post("/v1/orders", headers=headers, content=body)
    assert first.status_code == 201
    found = problem_of(second, 409, "reference_taken")
    assert found["links"] == {"order_id": first.json()["id"]}
    assert "nothing was lost" in found["detail"]
    assert (await world.count("orders"), await world.count("registrations")) == (1, 1)


async def test_the_same_reference_with_another_body_is_refused_also_as_a_dry_run(world: World) -> None:
    partner = await world.partner(consented=False)
    first = await world.client.post("/v1/orders", headers=headers_of(partner), content=order_body(partner))
    for other in ({"purchase_order": "4711"}, {"validate_only": True}):
        response = await world.client.post(
            "/v1/orders", headers=headers_of(partner), content=order_body(partner, **other)
        )
        found = problem_of(response, 409, "reference_taken")
        assert found["links"] == {"order_id": first.json()["id"]}
        assert "other content" in found["detail"]
    assert await world.count("orders") == 1


async def test_a_reference_is_unique_per_partner_only(world: World) -> None:
    for _ in range(2):
        partner = await world.partner(consented=False)
        response = await world.client.post(
            "/v1/orders", headers=headers_of(partner, "same key"), content=order_body(partner)
        )
        assert response.status_code == 201, response.text
        assert "idempotency-replayed" not in response.headers
    assert await world.count("orders") == 2


async def test_orders_with_one_reference_at_the_same_time_become_one_order(world: World) -> None:
    partner = await world.partner()
    answers = await asyncio.gather(
        *(
            world.client.post("/v1/orders", headers=headers_of(partner), content=order_body(partner))
            for _ in range(8)
        )
    )
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 7}
    created = next(answer for answer in answers if answer.status_code == 201).json()["id"]
    for answer in answers:
        if answer.status_code == 409:
            found = problem_of(answer, 409, "reference_taken")
            assert found["links"] == {"order_id": created}
    await world.work()
    assert (await world.count("orders"), await world.count("batches")) == (1, 1)
    assert len(await world.calls("create")) == 1


async def test_a_key_gives_the_first_answer_again_and_marks_it(world: World) -> None:
    partner = await world.partner()
    body, headers = order_body(partner), headers_of(partner, "k-1")
    first = await world.client.post("/v1/orders", headers=headers, content=body)
    assert "idempotency-replayed" not in first.headers
    await world.work()
    again = await world.client.post("/v1/orders", headers=headers, content=body)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"] == f"/v1/orders/{first.json()['id']}"
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    followed = await world.client.get(again.headers["location"], headers=partner.headers)
    assert followed.json()["state"] == "completed"
    assert await world.count("orders") == 1


async def test_an_answer_that_is_too_large_is_not_stored_and_read_again(
    world: World,
) -> None:
    """An order with as many group tags as devices: its answer names each of them."""
    partner = await world.partner()
    tags = [f"{number:05}-{'x' * 110}" for number in range(8_000)]
    devices = [
        {**TUPLE, "serial_number": f"SYN{number:05}", "group_tag": tag} for number, tag in enumerate(tags)
    ]
    devices.append({"serial_number": "0"})
    body, headers = order_body(partner, devices=devices), headers_of(partner, "large")
    first = await world.client.post("/v1/orders", headers=headers, content=body)
    assert first.status_code == 201, first.text[:500]
    assert len(first.content) > MAX_ANSWER
    async with world.runtime.system_transaction() as tx:
        stored = await tx.session.execute(text("SELECT max(octet_length(body)) FROM idempotency_keys"))
        assert stored.scalar_one() < 1000
    async with world.served(read_timeout_s=60):  # 8,000 batches take long on a slow machine
        again = await world.client.post("/v1/orders", headers=headers, content=body)
    assert (again.status_code, again.headers["Location"]) == (201, first.headers["Location"])
    assert again.headers["Idempotency-Replayed"] == "true"
    changing = ("waiting_for", "updated_at")
    assert {k: v for k, v in again.json().items() if k not in changing} == {
        k: v for k, v in first.json().items() if k not in changing
    }
    assert await world.count("orders") == 1
    other = await world.client.post(
        "/v1/orders", headers=headers, content=order_body(partner, devices=devices[:1])
    )
    problem_of(other, 422, "idempotency_key_reused")


async def test_a_key_with_another_body_or_another_path_is_refused(world: World) -> None:
    partner = await world.partner(consented=False)
    headers = headers_of(partner, "k-1")
    assert (
        await world.client.post("/v1/orders", headers=headers, content=order_body(partner))
    ).status_code == 201
    other = await world.client.post("/v1/orders", headers=headers, content=order_body(partner, "PO-2"))
    problem_of(other, 422, "idempotency_key_reused")
    elsewhere = await world.client.post("/v1/customers", headers=headers, content=b"{}")
    assert elsewhere.status_code == 422
    endpoint = await world.client.post("/v1/webhook-endpoints", headers=headers, json=ENDPOINT)
    problem_of(endpoint, 422, "idempotency_key_reused")
    assert (await world.count("orders"), await world.count("webhook_endpoints")) == (1, 0)


async def test_one_key_at_the_same_time_makes_one_order(world: World) -> None:
    partner = await world.partner()
    body, headers = order_body(partner), headers_of(partner, "k-1")
    answers = await asyncio.gather(
        *(world.client.post("/v1/orders", headers=headers, content=body) for _ in range(12))
    )
    created = [a for a in answers if a.status_code == 201 and "idempotency-replayed" not in a.headers]
    assert len(created) == 1
    for answer in answers:
        if answer.status_code == 201:
            assert answer.content == created[0].content
        else:
            problem_of(answer, 409, "idempotency_in_progress")
            assert int(answer.headers["retry-after"]) > 0
    await world.work()
    assert (await world.count("orders"), await world.count("batches")) == (1, 1)
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 1


async def test_a_key_whose_first_request_is_running_says_when_to_come_back(world: World) -> None:
    partner = await world.partner(consented=False)
    running = await _take(world, partner, "k-1", order_body(partner))
    assert running is None
    headers = headers_of(partner, "k-1")
    waiting = await world.client.post("/v1/orders", headers=headers, content=order_body(partner))
    problem_of(waiting, 409, "idempotency_in_progress")
    other = await world.client.post("/v1/orders", headers=headers, content=order_body(partner, "PO-2"))
    problem_of(other, 422, "idempotency_key_reused")
    assert await world.count("orders") == 0

    world.clock.advance(minutes=6)  # the first request has died without an answer

    after = await world.client.post("/v1/orders", headers=headers, content=order_body(partner))
    assert after.status_code == 201, after.text


async def _take(world: World, partner: Partner, key: str, body: bytes) -> object:
    """Begins a request with the key and never ends it, like a killed process."""
    async with world.runtime.transaction(partner) as tx:
        return await idempotency.begin(
            tx,
            key,
            fingerprint=hashlib.sha256(
                b"\n".join((b"POST", b"/v1/orders", hashlib.sha256(body).digest()))
            ).digest(),
            now=world.clock.now(),
            patience=timedelta(minutes=5),
            remembered_for=timedelta(hours=72),
        )


async def test_a_refused_request_frees_its_key_for_the_corrected_one(world: World) -> None:
    partner = await world.partner(consented=False)
    headers = headers_of(partner, "k-1")
    for wrong in (
        order_body(partner, customer_id=str(uuid4())),
        order_body(partner, devices=[{}], on_invalid="reject"),
        order_body(partner, group_tag="x" * 200),
    ):
        assert (await world.client.post("/v1/orders", headers=headers, content=wrong)).status_code in (
            404,
            422,
        )
        assert await world.count("idempotency_keys") == 0
    right = await world.client.post("/v1/orders", headers=headers, content=order_body(partner))
    assert right.status_code == 201, right.text
    assert "idempotency-replayed" not in right.headers


async def test_a_dry_run_does_not_use_up_the_key_of_the_real_order(world: World) -> None:
    partner = await world.partner(consented=False)
    headers = headers_of(partner, "k-1")
    dry = await world.client.post(
        "/v1/orders", headers=headers, content=order_body(partner, validate_only=True)
    )
    real = await world.client.post("/v1/orders", headers=headers, content=order_body(partner))
    assert (dry.status_code, real.status_code) == (200, 201)


async def test_a_key_is_forgotten_after_its_time(world: World) -> None:
    partner = await world.partner(consented=False)
    headers = headers_of(partner, "k-1")
    await world.client.post("/v1/orders", headers=headers, content=order_body(partner))
    world.clock.advance(hours=71)
    still = await world.client.post("/v1/orders", headers=headers, content=order_body(partner))
    assert still.headers["idempotency-replayed"] == "true"
    world.clock.advance(hours=2)
    after = await world.client.post("/v1/orders", headers=headers, content=order_body(partner))
    problem_of(after, 409, "reference_taken")


async def test_a_lost_answer_with_a_webhook_secret_can_be_had_again(world: World) -> None:
    partner = await world.partner(consented=False)
    headers = {**partner.headers, "Idempotency-Key": "hook"}
    first = await world.client.post("/v1/webhook-endpoints", headers=headers, json=ENDPOINT)
    again = await world.client.post("/v1/webhook-endpoints", headers=headers, json=ENDPOINT)
    assert first.json()["secret"].startswith("whsec_")
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["cache-control"] == "no-store"
    assert await world.count("webhook_endpoints") == 1
    read = await world.client.get(first.headers["location"], headers=partner.headers)
    assert "secret" not in read.json()
    assert first.json()["secret"] not in await world.dump()


async def test_a_secret_is_repeated_for_the_key_that_made_it_and_its_successor_alone(world: World) -> None:
    """Even if the key was rotated twice since, because its holder never got the answer."""
    partner = await world.partner(consented=False)
    mine = await identities.create_key(world.runtime, partner, name="mine")
    other = await identities.create_key(world.runtime, partner, name="other")
    endpoint = (await make_endpoint(world, partner.key, "setup")).json()
    calls: dict[str, Any] = {
        "/v1/webhook-endpoints": ENDPOINT,
        f"/v1/webhook-endpoints/{endpoint['id']}:rotate-secret": {},
    }
    firsts = {path: await call(world, mine.secret, path, body) for path, body in calls.items()}
    assert {answer.status_code for answer in firsts.values()} == {200, 201}
    successor = mine.secret
    for round in ("first", "second"):
        answer = await call(world, successor, "/v1/me/key:rotate", {}, round)
        successor = answer.json()["key"]
        assert (await world.client.get("/v1/me", headers=bearer(successor))).status_code == 200
    for path, body in calls.items():
        for key in (mine.secret, successor):
            again = await call(world, key, path, body)
            assert (again.status_code, again.content) == (firsts[path].status_code, firsts[path].content)
        refused = await call(world, other.secret, path, body)
        problem = problem_of(refused, 422, "idempotency_key_reused")
        assert "Another API key made this call" in problem["detail"]
        assert "whsec_" not in refused.text
    assert await world.count("webhook_endpoints") == 2


async def test_an_order_is_repeated_for_every_key_of_the_partner(world: World) -> None:
    partner = await world.partner()
    other = await identities.create_key(world.runtime, partner, name="other")
    body, headers = order_body(partner), headers_of(partner, "k-1")
    first = await world.client.post("/v1/orders", headers=headers, content=body)
    headers |= bearer(other.secret)
    again = await world.client.post("/v1/orders", headers=headers, content=body)
    assert (again.status_code, again.content) == (201, first.content)


async def test_a_secret_is_repeated_for_an_hour_and_then_not_even_stored(world: World) -> None:
    partner = await world.partner(consented=False)
    first = await make_endpoint(world, partner.key, "hook")
    world.clock.advance(minutes=59)
    await sweep.tidy(world.runtime)
    assert (await make_endpoint(world, partner.key, "hook")).content == first.content
    order = await world.client.post(
        "/v1/orders", headers=headers_of(partner, "order"), content=order_body(partner)
    )
    world.clock.advance(minutes=2)
    for tidied in (False, True):
        if tidied:
            await sweep.tidy(world.runtime)
        gone = await make_endpoint(world, partner.key, "hook")
        problem_of(gone, 409, "idempotency_secret_gone")
        assert "whsec_" not in gone.text
    async with world.runtime.system_transaction() as tx:
        rows = await tx.session.execute(text("SELECT key, octet_length(body) AS size FROM idempotency_keys"))
        sizes = {row.key: row.size for row in rows}
    assert sizes["hook"] == 0 < sizes["order"]
    world.clock.advance(minutes=61)
    await sweep.tidy(world.runtime)  # answers without a secret are kept as long as their key
    again = await world.client.post(
        "/v1/orders", headers=headers_of(partner, "order"), content=order_body(partner)
    )
    assert again.content == order.content


async def make_endpoint(world: World, key: str, once: str) -> httpx.Response:
    return await call(world, key, "/v1/webhook-endpoints", ENDPOINT, once)


async def call(world: World, key: str, path: str, body: Any, once: str = "once") -> httpx.Response:
    headers = {**bearer(key), "Idempotency-Key": f"{once} {path}" if once == "once" else once}
    return await world.client.post(path, headers=headers, json=body)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "key", ["", "x" * 256, "näh", "a\tb", "a\x7fb"], ids=["empty", "long", "latin", "tab", "delete"]
)
async def test_a_malformed_key_is_refused_and_nothing_is_stored(world: World, key: str) -> None:
    partner = await world.partner(consented=False)
    headers = [(name.encode(), value.encode()) for name, value in headers_of(partner).items()]
    response = await world.client.post(
        "/v1/orders",
        headers=[*headers, (b"Idempotency-Key", key.encode("latin-1"))],
        content=order_body(partner),
    )
    problem_of(response, 422, "idempotency_key_invalid")
    assert await world.count("orders") == 0


async def test_the_longest_key_works(world: World) -> None:
    partner = await world.partner(consented=False)
    headers = headers_of(partner, "x" * 255)
    for replayed in (None, "true"):
        response = await world.client.post("/v1/orders", headers=headers, content=order_body(partner))
        assert response.status_code == 201, response.text
        assert response.headers.get("idempotency-replayed") == replayed


async def test_no_other_call_with_an_idempotency_key_shows_a_secret(world: World) -> None:
    """Each future route that shows one must say to which keys its answer may be repeated."""
    document = (await world.client.get("/openapi.json")).json()
    showing = set()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            parameters = {each.get("name") for each in operation.get("parameters", ())}
            answers = json.dumps(operation.get("responses"))
            models = {name for name in document["components"]["schemas"] if f'schemas/{name}"' in answers}
            shown = json.dumps([document["components"]["schemas"][name] for name in sorted(models)])
            if "Idempotency-Key" in parameters and "Shown this once" in shown:
                showing.add(path)
    assert showing == {
        "/v1/webhook-endpoints",
        "/v1/webhook-endpoints/{endpoint_id}:rotate-secret",
        "/v1/me/key:rotate",
    }

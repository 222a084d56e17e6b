"""Bodies that would take gigabytes once parsed: refused while they arrive, after the key was checked."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from app.api.http import large_bodies
from app.domain.scope import Scope
from app.kernel.fair_turns import FairTurns
from app.services.access import identities
from tests.integration.test_api_bad_input import TUPLE, assert_nothing_stored, problem_of
from tests.support.world import Partner, World

MB = 1_000_000
JSON = {"Content-Type": "application/json"}
TOO_COMPLEX: dict[str, tuple[bytes, bytes]] = {
    "unknown field of objects": (b'{"x":[', b'{"a":{"b":{}}},'),
    "empty devices": (b'{"devices":[', b"{},"),
    "deep lists": (b"", b"["),
    "deep objects": (b"", b'{"a":'),
    "names": (b"{", b'"n":0,'),
    "names of one device": (b'{"reference":"R","devices":[{', b'"n":0,'),
    "numbers": (b'{"devices":[', b"0,"),
    "the same list again": (b"{", b'"devices":[],'),
    "behind a text of commas": (b'{"reference":"' + b",{[" * 200_000 + b'\\"","devices":[', b"{},"),
}
SHORT_PATHS = ("/v1/customers", "/v1/connections", "/v1/webhook-endpoints", "/nowhere")


class Body:
    """Sends the head, then the item again and again; counts what the server accepted."""

    def __init__(self, head: bytes, item: bytes, size: int) -> None:
        self.pieces = [head[at : at + 65_536] for at in range(0, len(head), 65_536)]
        self.item = item * (65_536 // len(item))
        self.size = size
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.sent += len(piece)
            yield piece
        while self.sent < self.size:
            self.sent += len(self.item)
            yield self.item


@pytest.mark.parametrize("name", TOO_COMPLEX)
async def test_an_order_with_too_much_in_it_is_refused_while_it_arrives(world: World, name: str) -> None:
    partner = await world.partner(consented=False)
    head, item = TOO_COMPLEX[name]
    body = Body(head, item, size=40 * MB)
    response = await world.client.post(
        "/v1/orders", headers={**partner.headers, **JSON, "Idempotency-Key": "k"}, content=aiter(body)
    )
    found = problem_of(response, 422, "body_too_complex")
    assert "20,002 objects and lists, 100,000 values" in found["detail"]
    assert response.headers["connection"] == "close"
    assert body.sent < 3 * MB
    await assert_nothing_stored(world)


@pytest.mark.parametrize("body", [b"[" * 500 + b"]" * 500, b'{"a":' * 500 + b"1" + b"}" * 500])
@pytest.mark.parametrize("path", ["/v1/orders", "/v1/customers"])
async def test_what_is_nested_too_deep_is_refused_as_too_complex(
    world: World, path: str, body: bytes
) -> None:
    partner = await world.partner(consented=False)
    response = await world.client.post(path, headers={**partner.headers, **JSON}, content=body)
    problem_of(response, 422, "body_too_complex")


@pytest.mark.parametrize("path", SHORT_PATHS)
async def test_other_calls_take_64_kb(world: World, path: str) -> None:
    partner = await world.partner(consented=False)
    for announced in (True, False):
        body = Body(b'{"name":"', b"x", size=200_000)
        content = b"x" * 200_000 if announced else aiter(body)
        response = await world.client.post(path, headers={**partner.headers, **JSON}, content=content)
        if path == "/nowhere" and not announced:
            assert response.status_code == 404
            continue
        found = problem_of(response, 413, "body_too_large")
        assert "65,536" in found["detail"]


async def test_a_profile_and_lists_of_rows_take_512_kb(world: World) -> None:
    partner = await world.partner(consented=False)
    for size, status in ((500_000, 422), (600_000, 413)):
        for path in ("/v1/vendor-profiles", f"/v1/orders/{partner.customer_id}:retry-failed"):
            content = json.dumps({"name": "x" * size}).encode()
            response = await world.client.post(path, headers={**partner.headers, **JSON}, content=content)
            assert response.status_code == status, response.text


@pytest.mark.parametrize("key", ["none", "wrong", "without the scope"])
async def test_nothing_of_a_body_is_read_before_the_key_is_accepted(world: World, key: str) -> None:
    partner = await world.partner(consented=False)
    reads = await identities.create_key(world.runtime, partner, name="reads", scopes=[Scope.ORDERS_READ])
    given = reads.secret if key == "without the scope" else "no-such-key"
    headers = {} if key == "none" else {"Authorization": f"Bearer {given}"}
    body = Body(b'{"x":[', b"{},", size=40 * MB)
    response = await world.client.post("/v1/orders", headers={**headers, **JSON}, content=aiter(body))
    assert response.status_code == (403 if key == "without the scope" else 401)
    assert body.sent <= 65_536


def order_of(partner: Partner, device: dict[str, Any], **fields: Any) -> dict[str, Any]:
    whole = {"customer_id": str(partner.customer_id), "reference": "R", "devices": [TUPLE, device]}
    return whole | fields


async def test_what_looks_like_structure_in_texts_is_a_text(world: World) -> None:
    partner = await world.partner()
    text = ',[{\\"' * 50
    devices = [{**TUPLE, "serial_number": f"SYN{n}", "line_ref": text} for n in range(600)]
    assert json.dumps(devices).count("{") > 20_002
    response = await world.post_order(partner, devices)
    assert (response.status_code, response.json()["counts"]["total"]) == (201, 600), response.text


@pytest.mark.parametrize("what", ["names of fields", "values"])
async def test_an_order_wrong_in_very_many_places_is_answered_in_bounds(world: World, what: str) -> None:
    partner = await world.partner(consented=False)
    device = {f"n{n}": 0 for n in range(7)} if what == "names of fields" else {"model": 1, "line_ref": 2}
    order = order_of(partner, device, devices=[device] * 10_000)
    response = await world.client.post("/v1/orders", headers=partner.headers, json=order)
    found = problem_of(response, 422, "validation_failed")
    assert found["detail"] == "More than 10,000 fields are wrong; the first ones are in `errors`."
    first = [error["pointer"] for error in found["errors"][: len(device)]]
    assert first == [f"/devices/0/{name}" for name in device]
    assert len(found["errors"]) == 100


@pytest.mark.parametrize("where", ["unknown", "repeated"])
async def test_a_very_long_name_is_shown_in_bounds(world: World, where: str) -> None:
    partner = await world.partner(consented=False)
    name = "n" * 2 * MB
    order = json.dumps(order_of(partner, TUPLE)).encode()
    more = f'"{name}": 1,'.encode()
    if where == "repeated":
        more = f'"reference": "R", "{name}": 1, "{name}": 2,'.encode()
    response = await world.client.post(
        "/v1/orders", headers={**partner.headers, **JSON}, content=b"{" + more + order[1:]
    )
    problem_of(response, 422, "validation_failed")
    assert len(response.content) < 3_000


async def test_large_bodies_wait_for_their_turn_and_are_refused_when_it_does_not_come(world: World) -> None:
    partner = await world.partner()
    large = FairTurns(2, each=1, patience=0.05)
    before = world.runtime.turns
    world.runtime.turns = replace(before, bodies=large)
    order = order_of(partner, TUPLE, reference="large")
    content = json.dumps(order).encode().ljust(600_000)

    async def post(body: Any) -> Any:
        return await world.client.post("/v1/orders", headers={**partner.headers, **JSON}, content=body)

    async def in_chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 65_536):
            yield content[at : at + 65_536]

    try:
        async with large.turn(partner.id):
            for body in (content, in_chunks()):
                response = await post(body)
                problem_of(response, 503, "large_bodies_waiting")
                assert (response.headers["retry-after"], response.headers["connection"]) == ("10", "close")
            small = await world.post_order(partner, [TUPLE])
            assert small.status_code == 201
        world.runtime.turns = replace(before, bodies=FairTurns(1))
        others = (order | {"reference": f"R{n}"} for n in range(3))
        answers = await asyncio.gather(*(post(json.dumps(o).encode().ljust(600_000)) for o in others))
        assert [answer.status_code for answer in answers] == [201] * 3
    finally:
        world.runtime.turns = before


async def test_large_body_that_arrives_slowly_gives_way_to_another_partners(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_bodies, "GRACE_S", 0.0)
    monkeypatch.setattr(large_bodies, "SLOW", 10**12)
    slow, neighbour = await world.partner(), await world.partner()
    turns = FairTurns(1, patience=45)
    before = world.runtime.turns
    world.runtime.turns = replace(before, bodies=turns)
    contents = {
        partner: json.dumps(order_of(partner, TUPLE, reference="large")).encode().ljust(600_000)
        for partner in (slow, neighbour)
    }

    async def until(found: Callable[[], int]) -> None:
        async with asyncio.timeout(45):
            while True:
                if found():
                    return
                await asyncio.sleep(0.01)

    async def post(partner: Partner, may_go_on: Callable[[], int]) -> Any:
        async def arriving() -> AsyncIterator[bytes]:
            yield contents[partner][:550_000]
            await until(may_go_on)
            yield contents[partner][550_000:]

        return await world.client.post("/v1/orders", headers={**partner.headers, **JSON}, content=arriving())

    try:
        first = asyncio.create_task(post(slow, lambda: turns.waiting_of(neighbour.id)))
        await until(lambda: turns.held)
        own = asyncio.create_task(turns.take(slow.id))
        await until(lambda: turns.waiting)
        large_bodies.give_way(turns, slow.id, 1, 1.0)  # its own bodies may wait for it
        own.cancel()
        other = asyncio.create_task(post(neighbour, lambda: 1))
        problem_of(await first, 503, "large_bodies_waiting")
        assert (await other).status_code == 201
        assert (turns.held, turns.waiting) == (0, 0)
    finally:
        world.runtime.turns = before

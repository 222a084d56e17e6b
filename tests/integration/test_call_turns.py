"""A partner's calls wait for each other, and never delay another partner's."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from app.api.http.turns import LARGE_PAGE
from app.api.orders.routes import LARGE_ORDER
from app.kernel.fair_turns import PIECES_PER_PARTNER, FairTurns
from tests.support.world import Partner, World, tuples


@asynccontextmanager
async def held(turns: FairTurns, partner: Partner, count: int) -> AsyncIterator[None]:
    """Keeps this many of the partner's calls under way."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(turns.turn(partner.id))
        yield


async def look(world: World, partner: Partner, **query: Any) -> httpx.Response:
    return await world.client.get("/v1/orders", headers=partner.headers, params=query)


async def until_waiting(turns: FairTurns, partner: Partner, calls: int) -> None:
    async with asyncio.timeout(45):
        while True:
            if turns.waiting_of(partner.id) >= calls:
                return
            await asyncio.sleep(0.01)


async def until_free(turns: FairTurns) -> None:
    """Waits until the turn is free: if other partners call, it is kept for a moment after the answer."""
    async with asyncio.timeout(45):
        while True:
            if not turns.held:
                return
            await asyncio.sleep(0.01)


async def test_calls_of_a_partner_wait_in_its_own_line_while_another_is_answered(world: World) -> None:
    greedy, neighbour = await world.partner(), await world.partner()
    async with world.served(calls_at_once_per_partner=2) as other:
        turns = other.runtime.turns.calls
        async with held(turns, greedy, 2):
            waiting = [asyncio.create_task(look(other, greedy)) for _ in range(3)]
            await until_waiting(turns, greedy, 3)
            assert (await look(other, neighbour)).status_code == 200
            assert turns.waiting_of(greedy.id) == 3
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
        await until_free(turns)
        assert turns.waiting == 0


async def test_call_that_finds_its_line_full_is_refused_and_has_done_nothing(world: World) -> None:
    greedy, neighbour = await world.partner(), await world.partner()
    async with world.served(calls_at_once_per_partner=1, calls_waiting_per_partner=0) as other:
        async with held(other.runtime.turns.calls, greedy, 1):
            refused = await look(other, greedy)
            assert (await look(other, neighbour)).status_code == 200
        await until_free(other.runtime.turns.calls)
        assert refused.status_code == 429
        assert refused.json()["code"] == "too_many_calls_at_once"
        assert int(refused.headers["Retry-After"]) > 0
        assert (await look(other, greedy)).status_code == 200


async def test_call_whose_turn_does_not_come_is_told_to_come_again(world: World) -> None:
    greedy = await world.partner()
    async with world.served(calls_at_once_per_partner=1, call_patience_s=0.01) as other:
        async with held(other.runtime.turns.calls, greedy, 1):
            refused = await look(other, greedy)
        assert refused.status_code == 503
        assert refused.json()["code"] == "turn_did_not_come"
        assert int(refused.headers["Retry-After"]) > 0
        assert other.runtime.turns.calls.waiting == 0


async def test_large_page_waits_for_the_partners_large_calls_and_small_ones_pass(world: World) -> None:
    greedy, neighbour = await world.partner(), await world.partner()
    async with world.served() as other:
        turns = other.runtime.turns.heavy
        async with held(turns, greedy, 1):
            waiting = asyncio.create_task(look(other, greedy, page_size=LARGE_PAGE))
            await until_waiting(turns, greedy, 1)
            assert (await look(other, greedy, page_size=LARGE_PAGE - 1)).status_code == 200
            assert (await look(other, neighbour, page_size=LARGE_PAGE)).status_code == 200
            assert not waiting.done()
        assert (await waiting).status_code == 200


async def test_client_that_reads_slowly_keeps_no_large_turn(world: World) -> None:
    slow = await world.partner()
    async with world.served() as other:
        turns, seen = other.runtime.turns, list[tuple[int, int]]()

        async def send(message: MutableMapping[str, Any]) -> None:
            """Behaves like a connection whose client has not read the answer."""
            seen.append((turns.calls.held_by(slow.id), turns.heavy.held_by(slow.id)))

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/orders",
            "query_string": f"page_size={LARGE_PAGE}".encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in slow.headers.items()],
        }
        await other.app(scope, receive, send)
        assert set(seen) == {(1, 0)}
        assert (turns.calls.held, turns.heavy.held) == (0, 0)


async def test_search_waits_for_the_partners_large_calls_and_needs_one_turn(world: World) -> None:
    greedy = await world.partner()
    async with world.served() as other:
        turns = other.runtime.turns.heavy
        path, fails = "/v1/registrations", {"state": "failed", "page_size": str(LARGE_PAGE)}
        async with held(turns, greedy, 1):
            waiting = asyncio.create_task(other.client.get(path, headers=greedy.headers, params=fails))
            await until_waiting(turns, greedy, 1)
            few = {"serial_prefix": "SYN1", "state": "failed"}
            assert (await other.client.get(path, headers=greedy.headers, params=few)).status_code == 200
            assert not waiting.done()
        assert (await waiting).status_code == 200
        assert turns.held == 0


async def test_large_order_waits_for_the_partners_large_calls_and_a_neighbours_is_taken(world: World) -> None:
    greedy, neighbour = await world.partner(), await world.partner()
    async with world.served() as other:
        turns = other.runtime.turns.heavy

        async def order(partner: Partner, reference: str, devices: int) -> int:
            body = {"customer_id": str(partner.customer_id), "reference": reference}
            rows = [
                {"serial_number": f"{reference}{number}", "manufacturer": "Contoso", "model": "Book"}
                for number in range(devices)
            ]
            answer = await other.client.post(
                "/v1/orders", headers=partner.headers, json={**body, "devices": rows}
            )
            return answer.status_code

        async with held(turns, greedy, 1):
            waiting = asyncio.create_task(order(greedy, "LARGE", LARGE_ORDER + 1))
            await until_waiting(turns, greedy, 1)
            assert await order(greedy, "SMALL", 3) == 201
            assert await order(neighbour, "BESIDE", LARGE_ORDER + 1) == 201
            assert not waiting.done()
        assert await waiting == 201


@pytest.mark.parametrize(("kind", "places"), [("calls", 4), ("pieces", PIECES_PER_PARTNER)])
async def test_upload_waits_for_the_partners_turns_and_a_neighbours_is_taken(
    world: World, kind: str, places: int
) -> None:
    """The start of an upload is a call like any other; its pieces and its end take turns of their own."""
    greedy, neighbour = await world.partner(), await world.partner()
    async with world.served(calls_at_once_per_partner=4) as other:
        turns: FairTurns = getattr(other.runtime.turns, kind)

        async def upload(partner: Partner) -> int:
            answer = await other.client.post(
                f"/v1/imports?customer_id={partner.customer_id}",
                headers=partner.headers,
                content=b"Device Serial Number,Manufacturer name,Device model\r\nSYN1,Contoso,Book\r\n",
            )
            return answer.status_code

        async with held(turns, greedy, places):
            waiting = asyncio.create_task(upload(greedy))
            await until_waiting(turns, greedy, 1)
            assert await upload(neighbour) == 201
            assert not waiting.done()
        assert await waiting == 201


async def test_large_page_says_the_same_as_small_ones(world: World) -> None:
    partner = await world.partner()
    made = await world.order(partner, tuples(LARGE_PAGE + 1))
    path = f"/v1/orders/{made.view.record.id}/registrations"

    async def page(size: int, token: str | None) -> Any:
        query = {"page_size": size} | ({"page_token": token} if token else {})
        answer = await world.client.get(path, headers=partner.headers, params=query)
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    large = await page(LARGE_PAGE, None)
    first = await page(LARGE_PAGE - 1, None)
    rest = await page(1, first["next_page_token"])

    assert large["items"] == first["items"] + rest["items"]
    assert large["next_page_token"] == rest["next_page_token"]


async def test_one_partner_leaves_database_connections_to_the_others(world: World) -> None:
    greedy, neighbour = await world.partner(), await world.partner()
    async with world.served(database_pool_size=4) as other:
        turns = other.runtime.turns.connections
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(other.runtime.transaction(greedy))
            waiting = asyncio.create_task(look(other, greedy))
            await until_waiting(turns, greedy, 1)
            assert (await look(other, neighbour)).status_code == 200
            assert not waiting.done()
        assert (await waiting).status_code == 200
        assert turns.held == 0


@pytest.mark.parametrize("name", ["calls", "heavy", "connections"])
async def test_nothing_is_held_after_calls_that_fail(world: World, name: str) -> None:
    partner = await world.partner()
    async with world.served() as other:
        for path in ("/v1/orders?page_token=x", "/v1/orders?page_size=500&state=no", "/v1/batches/none"):
            assert (await other.client.get(path, headers=partner.headers)).status_code == 422
        turns: FairTurns = getattr(other.runtime.turns, name)
        assert (turns.held, turns.waiting) == (0, 0)

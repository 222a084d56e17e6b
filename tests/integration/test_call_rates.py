"""The limit on one API key's calls: shown in every answer, and shared by all API processes.

Nobody is refused because Redis is unavailable.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from anyio import to_thread

from app.domain.scope import Scope
from app.kernel import call_rates, redis_outage
from app.local.embedded import Valkey
from app.main import build
from app.services.access import identities
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.support.serving import serving
from tests.support.world import Partner, World

HEADERS = {"ratelimit", "ratelimit-policy"}


@dataclass
class Stopped:
    """A clock that stands still, so that no window ends during a test."""

    moment: datetime

    def now(self) -> datetime:
        return self.moment


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengthens timeouts, so that a slow machine does not look like an unavailable Redis."""
    monkeypatch.setattr(call_rates, "REDIS_TIMEOUT", 60.0)


@pytest.fixture
def clock(world: World) -> Stopped:
    return Stopped(world.clock.now())


@asynccontextmanager
async def api(world: World, clock: Stopped, limit: int, **changes: Any) -> AsyncIterator[World]:
    """The same world with another API process, which has this limit."""
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(world.another(requests_per_minute=limit, **changes))
        other.runtime.now = clock.now
        app = build(other.runtime.settings)
        app.state.runtime = other.runtime
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://registrar")
        )
        yield replace(other, app=app, client=client)


async def me(world: World, key: str) -> httpx.Response:
    return await world.client.get("/v1/me", headers={"Authorization": f"Bearer {key}"})


def standing(response: httpx.Response) -> tuple[int, int]:
    """Calls left, and seconds until all are available again."""
    found = re.fullmatch(r'"default";r=(\d+);t=(\d+)', response.headers["ratelimit"])
    assert found is not None, response.headers
    return int(found[1]), int(found[2])


@contextmanager
def hearing(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, Any]]]:
    """Collects the log lines of the block. Building an API resets logging, so capture starts again."""
    logging.getLogger().addHandler(caplog.handler)
    found: list[dict[str, Any]] = []
    with caplog.at_level(logging.INFO):
        yield found
    found += [record.msg for record in caplog.records if isinstance(record.msg, dict)]


async def another_key(world: World, partner: Partner, **fields: Any) -> str:
    key = await identities.create_key(world.runtime, partner, name="another", **fields)
    return key.secret


async def test_calls_are_counted_down_refused_and_let_pass_when_the_window_is_over(
    world: World, clock: Stopped
) -> None:
    partner = await world.partner(consented=False)
    async with api(world, clock, 3) as one:
        for left in (2, 1, 0):
            response = await me(one, partner.key)
            assert response.status_code == 200
            assert response.headers["ratelimit-policy"] == '"default";q=3;w=60'
            remaining, seconds = standing(response)
            assert remaining == left
            assert 1 <= seconds <= 60

        for _ in range(2):
            refused = await me(one, partner.key)
            found = problem_of(refused, 429, "rate_limited")
            assert "3 calls" in found["detail"]
            assert "Retry-After" in found["remedy"]
            assert refused.headers["retry-after"] == str(seconds)
            assert standing(refused) == (0, seconds)

        clock.moment += timedelta(seconds=seconds - 1)
        assert (await me(one, partner.key)).headers["retry-after"] == "1"
        clock.moment += timedelta(seconds=1)
        response = await me(one, partner.key)
        assert (response.status_code, standing(response)[0]) == (200, 2)


async def test_two_keys_of_one_partner_do_not_share_a_limit(world: World, clock: Stopped) -> None:
    partner = await world.partner(consented=False)
    other = await another_key(world, partner)
    async with api(world, clock, 1) as one:
        statuses = [(await me(one, key)).status_code for key in (partner.key, partner.key, other, other)]
    assert statuses == [200, 429, 200, 429]


async def test_two_api_processes_share_one_count(world: World, clock: Stopped) -> None:
    partner = await world.partner(consented=False)
    async with api(world, clock, 4) as one, api(world, clock, 4) as two:
        left = [standing(await me(each, partner.key))[0] for each in (one, two, two, one)]
        assert left == [3, 2, 1, 0]
        assert [(await me(each, partner.key)).status_code for each in (one, two)] == [429, 429]


async def test_of_fifty_calls_at_once_at_two_processes_exactly_twenty_pass(
    world: World, clock: Stopped
) -> None:
    partner = await world.partner(consented=False)
    async with (
        api(world, clock, 20) as one,
        api(world, clock, 20) as two,
        serving(one) as first,
        serving(two) as second,
        httpx.AsyncClient(trust_env=False, timeout=60, headers=partner.headers) as client,
    ):
        urls = [f"http://{host}:{port}/v1/me" for host, port in (first, second)] * 25
        responses = await asyncio.gather(*(client.get(url) for url in urls))
    assert Counter(response.status_code for response in responses) == {200: 20, 429: 30}
    left = sorted(standing(response)[0] for response in responses if response.status_code == 200)
    assert left == list(range(20))


async def test_every_answer_to_a_valid_key_says_what_is_left_refusals_too(
    world: World, clock: Stopped
) -> None:
    partner = await world.partner()
    narrow = {"Authorization": f"Bearer {await another_key(world, partner, scopes=[Scope.WEBHOOKS_READ])}"}
    async with api(world, clock, 1000) as one:
        keyed = {"Idempotency-Key": "once"}
        created = await one.post_order(partner, [TUPLE], headers=keyed)
        again = {**partner.headers, **keyed, "Content-Type": "application/json"}
        order = f"/v1/orders/{created.json()['id']}"

        async def call(method: str, path: str, **request: Any) -> httpx.Response:
            return await one.client.request(method, path, **{"headers": partner.headers, **request})

        answers = {
            201: [created, await call("POST", "/v1/orders", headers=again, content=created.request.content)],
            200: [
                await call("GET", order),
                await call("HEAD", order),
                await call("GET", f"{order}/result.csv"),
            ],
            400: [await call("POST", "/v1/orders", headers=again, content=b"{")],
            403: [await call("GET", order, headers=narrow)],
            404: [await call("GET", f"/v1/orders/{uuid4()}")],
            409: [await call("POST", f"{order}:retry-failed")],
            415: [await call("POST", "/v1/orders", content=b"x")],
            422: [await call("GET", "/v1/orders/no-id"), await call("GET", "/v1/orders?colour=red")],
        }
        for status, responses in answers.items():
            for response in responses:
                assert response.status_code == status, response.text
                assert response.headers.keys() >= HEADERS, (status, response.headers)
        assert answers[201][1].headers["idempotency-replayed"] == "true"


async def test_what_nobody_expected_has_the_headers_as_well(
    world: World, clock: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = await world.partner(consented=False)
    async with api(world, clock, 10) as one:
        monkeypatch.delattr(one.runtime, "budgets")
        response = await one.client.get("/v1/limits", headers=partner.headers)
    assert response.status_code == 500
    assert response.headers.keys() >= HEADERS


async def test_a_call_that_is_refused_does_nothing_and_leaves_its_idempotency_key_free(
    world: World, clock: Stopped
) -> None:
    partner = await world.partner()
    key = {"Idempotency-Key": "too-early"}
    async with api(world, clock, 1) as one:
        await me(one, partner.key)
        problem_of(await one.post_order(partner, [TUPLE], headers=key), 429, "rate_limited")
        assert await world.count("orders") == await world.count("idempotency_keys") == 0
        clock.moment += timedelta(minutes=1)
        later = await one.post_order(partner, [TUPLE], headers=key)
    assert later.status_code == 201
    assert "idempotency-replayed" not in later.headers


async def test_wrong_keys_count_for_nobody_and_say_nothing_of_a_limit(world: World, clock: Stopped) -> None:
    partner = await world.partner(consented=False)
    wrong = partner.key[:-1] + ("a" if partner.key[-1] != "a" else "b")
    async with api(world, clock, 2) as one:
        for key in (wrong, wrong, wrong, "x"):
            refused = await me(one, key)
            problem_of(refused, 401, "unauthenticated")
            assert not refused.headers.keys() & HEADERS
        assert standing(await me(one, partner.key))[0] == 1
        for path in ("/healthz", "/openapi.json", "/nowhere"):
            assert not (await one.client.get(path, headers=partner.headers)).headers.keys() & HEADERS
        assert standing(await me(one, partner.key))[0] == 0


async def test_a_limit_of_nothing_is_no_limit(world: World, clock: Stopped) -> None:
    partner = await world.partner(consented=False)
    async with api(world, clock, 0) as one:
        for _ in range(5):
            response = await me(one, partner.key)
            assert response.status_code == 200
            assert not response.headers.keys() & HEADERS
        assert await one.runtime.call_rates.redis.keys(f"registrar:quota:{partner.caller.key_id}:*") == []


async def test_a_key_over_its_limit_is_logged_once_a_window_and_never_whole(
    world: World, clock: Stopped, caplog: pytest.LogCaptureFixture
) -> None:
    partner = await world.partner(consented=False)
    async with api(world, clock, 1) as one:
        with hearing(caplog) as logs:
            for _ in range(4):
                await me(one, partner.key)
    [told] = [entry for entry in logs if entry["event"] == "key_over_its_limit"]
    assert told["prefix"] == partner.key.split("_")[1]
    assert len(logs) == 5, "and a line for each request"
    assert partner.key not in str(logs)


async def test_a_count_is_forgotten_after_its_window(world: World, clock: Stopped) -> None:
    partner = await world.partner(consented=False)
    async with api(world, clock, 5) as one:
        for _ in range(2):
            await me(one, partner.key)
        redis = one.runtime.call_rates.redis
        [name] = await redis.keys(f"registrar:quota:{partner.caller.key_id}:*")
        assert 0 < await redis.ttl(name) <= call_rates.KEPT


# --- without Redis ----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A Valkey for this test only, which can be stopped."""
    server = Valkey(tmp_path, durable=False)
    await to_thread.run_sync(server.start)
    try:
        yield server
    finally:
        await to_thread.run_sync(server.stop)


async def test_without_redis_all_calls_pass_and_the_outage_is_logged_once(
    world: World,
    clock: Stopped,
    valkey: Valkey,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(redis_outage, "PAUSE", 0.0)
    partner = await world.partner(consented=False)
    async with api(world, clock, 2, redis_url=valkey.url) as one:
        assert [(await me(one, partner.key)).status_code for _ in range(3)] == [200, 200, 429]
        with hearing(caplog) as logs:
            await to_thread.run_sync(valkey.stop)
            for _ in range(4):
                response = await me(one, partner.key)
                assert response.status_code == 200
                assert not response.headers.keys() & HEADERS
            await to_thread.run_sync(valkey.start)
            assert (await me(one, partner.key)).headers.keys() >= HEADERS
            await me(one, partner.key)
    told = [entry["event"] for entry in logs if entry["event"].startswith("calls_")]
    assert told == ["calls_not_counted", "calls_counted_again"]


async def test_a_redis_that_never_answers_holds_up_one_call_at_a_time_and_the_others_not_at_all(
    world: World, clock: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Queue[None]()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait(None)
        await reader.read()
        writer.close()

    monkeypatch.setattr(call_rates, "REDIS_TIMEOUT", 0.05)
    partner = await world.partner(consented=False)
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with api(world, clock, 2, redis_url=url) as one:
            monkeypatch.setattr(redis_outage, "PAUSE", 0.0)
            assert (await me(one, partner.key)).status_code == 200
            await asyncio.wait_for(asked.get(), 5)
            # From here on Redis is known to be away: one of several calls tries it, once per pause.
            monkeypatch.setattr(redis_outage, "PAUSE", 600.0)
            responses = await asyncio.gather(*(me(one, partner.key) for _ in range(8)))
            responses += [await me(one, partner.key) for _ in range(3)]
            assert {response.status_code for response in responses} == {200}
            await asyncio.wait_for(asked.get(), 5)
            assert asked.empty()
    finally:
        server.close()
        await server.wait_closed()


async def test_what_is_no_count_lets_calls_pass(world: World, clock: Stopped) -> None:
    partner = await world.partner(consented=False)
    async with api(world, clock, 2) as one:
        await me(one, partner.key)
        redis = one.runtime.call_rates.redis
        [name] = await redis.keys(f"registrar:quota:{partner.caller.key_id}:*")
        await redis.set(name, "garbage")
        response = await me(one, partner.key)
        assert response.status_code == 200
        assert not response.headers.keys() & HEADERS


# --- what is said of it -----------------------------------------------------------------------------


async def test_the_description_has_the_headers_once_and_names_them_with_every_answer(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    described = document["components"]["headers"]
    assert described.keys() == {"RateLimit", "RateLimit-Policy", "Retry-After", "ETag"}
    assert all(entry["description"] and entry["schema"] for entry in described.values())
    for operations in document["paths"].values():
        for operation in operations.values():
            if not operation["security"]:
                assert "429" not in operation["responses"]
                continue
            assert "Retry-After" in operation["responses"]["429"]["headers"]
            for status, response in operation["responses"].items():
                shown = response.get("headers", {})
                assert ("RateLimit" in shown and "RateLimit-Policy" in shown) is (status != "401")
                for name in shown.keys() & described.keys():
                    assert shown[name] == {"$ref": f"#/components/headers/{name}"}


async def test_the_limits_show_the_limit(world: World, clock: Stopped) -> None:
    partner = await world.partner(consented=False)
    async with api(world, clock, 77) as one:
        found = (await one.client.get("/v1/limits", headers=partner.headers)).json()
    assert found["registrar"]["requests_per_minute"] == 77

"""Headers and log fields that every call has, wrong keys, and clients behind a proxy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.api.contract.documentation import POLICY, READING_POLICY
from app.api.http import wrong_keys
from app.api.http.wrong_keys import MAX_CLIENTS, MAX_LINES, WrongKeys
from app.kernel.settings import Settings
from app.main import build
from app.services.access import identities
from app.services.access.identities import KeyFault, RefusedKey
from tests.integration.test_api_bad_input import problem_of
from tests.support.log_lines import log_lines
from tests.support.world import World

PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "database_url": "postgresql://registrar:secret@127.0.0.1:1/registrar?sslmode=require",
    "redis_url": "rediss://127.0.0.1:1/0",
    "secret_keys": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
}


class Client(httpx.AsyncClient):
    def __init__(self, app: FastAPI, peer: str) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 1234))
        super().__init__(transport=transport, base_url="http://registrar")
        self.app = app


@asynccontextmanager
async def application(world: World, *, peer: str = "192.0.2.1", **settings: Any) -> AsyncIterator[Client]:
    """A client of an API with these settings, calling from this address."""
    app = build(world.runtime.settings.model_copy(update=settings))
    app.state.runtime = world.runtime
    async with Client(app, peer) as client:
        yield client


def calling(client: Client, peer: str) -> Client:
    """The same API, called from another address."""
    return Client(client.app, peer)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# --- wrong keys ---------------------------------------------------------------------------------------


async def test_wrong_keys_are_slowed_by_address_and_right_ones_are_not(world: World) -> None:
    partner = await world.partner(consented=False)
    async with application(world, wrong_keys_per_minute=3) as client:
        for _ in range(3):
            response = await client.get("/v1/me", headers=bearer("x"))
            problem_of(response, 401, "unauthenticated")
        response = await client.get("/v1/me", headers=bearer(partner.key[:-1] + "a"))
        problem_of(response, 429, "too_many_wrong_keys")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert (await client.get("/v1/me", headers=partner.headers)).status_code == 200
        problem_of(await client.get("/v1/me"), 401, "unauthenticated")  # a missing key is not a wrong key
        async with calling(client, "192.0.2.2") as other:
            problem_of(await other.get("/v1/me", headers=bearer("x")), 401, "unauthenticated")
        problem_of(await client.get("/v1/me", headers=bearer("x")), 429, "too_many_wrong_keys")
        world.clock.advance(minutes=1)
        problem_of(await client.get("/v1/me", headers=bearer("x")), 401, "unauthenticated")


async def test_wrong_keys_over_the_limit_wait_and_a_right_one_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = await world.partner(consented=False)
    monkeypatch.setattr(wrong_keys, "PAUSE_S", 3600.0)
    async with application(world, wrong_keys_per_minute=1) as client:
        problem_of(await client.get("/v1/me", headers=bearer("x")), 401, "unauthenticated")
        guesses = [asyncio.create_task(client.get("/v1/me", headers=bearer("x"))) for _ in range(3)]
        assert (await client.get("/v1/me", headers=partner.headers)).status_code == 200
        assert not any(guess.done() for guess in guesses)
        for guess in guesses:
            guess.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)


async def test_an_ipv6_network_is_one_client(world: World) -> None:
    async with application(world, peer="2001:db8:1:2::1", wrong_keys_per_minute=1) as client:
        problem_of(await client.get("/v1/me", headers=bearer("x")), 401, "unauthenticated")
        async with calling(client, "2001:db8:1:2:ffff::9") as same:
            problem_of(await same.get("/v1/me", headers=bearer("x")), 429, "too_many_wrong_keys")
        async with calling(client, "2001:db8:1:3::1") as other:
            problem_of(await other.get("/v1/me", headers=bearer("x")), 401, "unauthenticated")


async def test_a_refused_key_is_logged_with_why_and_from_where(
    world: World,
) -> None:
    partner = await world.partner(consented=False)
    revoked = await identities.create_key(world.runtime, partner, name="revoked")
    await identities.revoke_key(world.runtime, partner, revoked.prefix)
    expired = await identities.create_key(
        world.runtime, partner, name="expired", expires_at=world.clock.now() - timedelta(seconds=1)
    )
    async with application(world, log_level="INFO") as client:
        unknown = identities.mint()
        with log_lines() as lines:
            answers = [
                (await client.get("/v1/me", headers={"Authorization": given})).json()
                for given in (
                    "Basic dXNlcjpodW50ZXIy",
                    "Bearer hunter2",
                    f"Bearer {unknown.secret}",
                    f"Bearer {revoked.secret}",
                    f"Bearer {expired.secret}",
                )
            ]
        assert len({answer["detail"] + answer["code"] for answer in answers}) == 1
        refused = [
            (line["reason"], line["key_prefix"], line["partner_id"], line["client"])
            for line in lines("key_refused")
        ]
        here = "192.0.2.1"
        assert refused == [
            ("malformed", None, None, here),  # once for both calls
            ("unknown", unknown.prefix, None, here),
            ("revoked", revoked.prefix, str(partner.id), here),
            ("expired", expired.prefix, str(partner.id), here),
        ]
        everything = str(lines())
        for secret in (unknown.secret, revoked.secret, expired.secret, "hunter2", "dXNlcjpodW50ZXIy"):
            assert secret not in everything


async def test_a_burst_of_wrong_keys_has_few_lines(world: World) -> None:
    async with application(world) as client:
        with log_lines() as lines:
            for _ in range(MAX_LINES + 5):
                await client.get("/v1/me", headers=bearer(identities.mint().secret))
        told = [line["is_last_line_of_minute"] for line in lines("key_refused")]
        assert told == [False] * (MAX_LINES - 1) + [True]


async def test_two_authorization_headers_are_refused(world: World) -> None:
    partner = await world.partner(consented=False)
    value = f"Bearer {partner.key}"
    for other in (value, "Bearer x", "Basic x", ""):
        headers = [("Authorization", value), ("Authorization", other)]
        response = await world.client.get("/v1/me", headers=headers)
        problem_of(response, 400, "authorization_repeated")
        assert partner.key not in response.text


# --- the client behind a proxy, and log lines -----------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.7", "192.0.2.1"),  # no trusted proxy
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),  # the first is only what the client claims
        ("10.0.0.1", "203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", ",".join(["203.0.113.7"] + ["10.0.0.2"] * 30), "10.0.0.2"),
    ],
)
async def test_a_request_line_names_the_client(
    world: World, peer: str, forwarded: str | None, client: str
) -> None:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    async with application(world, peer=peer, trusted_proxies=("10.0.0.0/8",), log_level="INFO") as caller:
        with log_lines() as lines:
            await caller.get("/v1/error-codes/internal", headers=headers)
        (line,) = lines("request")
    assert line["client"] == client
    assert "partner_id" not in line


async def test_a_request_line_names_partner_and_key(world: World) -> None:
    partner = await world.partner(consented=False)
    async with application(world, log_level="INFO") as client:
        with log_lines() as lines:
            await client.get("/v1/me", headers=partner.headers)
            await client.get("/v1/orders/no-id", headers=partner.headers)
        found = [(line["partner_id"], line["key_prefix"], line["status"]) for line in lines("request")]
        assert found == [(str(partner.id), partner.caller.key_prefix, status) for status in (200, 422)]
        assert partner.key not in str(lines())


async def test_two_headers_of_proxies_are_read_as_one(world: World) -> None:
    async with application(
        world, peer="10.0.0.1", trusted_proxies=("10.0.0.0/8",), log_level="INFO"
    ) as caller:
        with log_lines() as lines:
            headers = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-For", "10.0.0.2")]
            await caller.get("/v1/error-codes/internal", headers=headers)
        assert lines("request")[0]["client"] == "203.0.113.7"


async def test_metrics_go_by_the_connection_and_not_by_a_proxys_word(world: World) -> None:
    networks = {"metrics_allowed_networks": ("127.0.0.0/8",), "trusted_proxies": ("10.0.0.0/8",)}
    async with application(world, peer="10.0.0.1", **networks) as client:
        response = await client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})
        problem_of(response, 403, "metrics_not_open")
        problem_of(await client.get("/metrics"), 403, "metrics_not_open")
    async with application(world, peer="127.0.0.1", **networks) as client:
        assert (await client.get("/metrics")).status_code == 200


# --- headers and pages ----------------------------------------------------------------------------------


async def test_every_answer_has_the_headers_that_bind_browsers(world: World) -> None:
    async with application(world, public_url="https://registrar.example") as client:
        for path in ("/healthz", "/v1/me", "/nowhere", "/openapi.json", "/docs", "/redoc", "/", "/metrics"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["cache-control"] == "no-store"
            assert headers["strict-transport-security"] == "max-age=31536000"
            policies = headers.get_list("content-security-policy")
            assert len(policies) == 1
            assert "frame-ancestors 'none'" in policies[0]
            assert "default-src 'none'" in policies[0]
            expected = {"/docs": POLICY, "/redoc": READING_POLICY}
            assert policies[0] == expected.get(path, policies[0])


async def test_tls_is_demanded_only_where_callers_use_it(world: World) -> None:
    for url in (None, "http://registrar.example"):
        async with application(world, public_url=url) as client:
            assert "strict-transport-security" not in (await client.get("/healthz")).headers


async def test_documentation_is_off_in_production_unless_asked_for(world: World) -> None:
    for settings, status in (
        (Settings(**PRODUCTION), 404),
        (Settings(**PRODUCTION, documentation=True), 200),
        (Settings(), 200),
        (Settings(documentation=False), 404),
    ):
        app = build(settings)
        app.state.runtime = world.runtime
        async with Client(app, "192.0.2.1") as client:
            for path in ("/docs", "/redoc", "/docs/start.js", "/docs/swagger-ui.css"):
                assert (await client.get(path)).status_code == status, path
            assert (await client.get("/openapi.json")).status_code == 200
            links = (await client.get("/")).json()["links"]
            assert ("docs" in links, "redoc" in links) == (status == 200, status == 200)
            page = (await client.get("/", headers={"Accept": "text/html"})).text
            assert ("/docs" in page) == (status == 200)


async def test_the_page_without_scripts_names_every_operation(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    response = await world.client.get("/redoc")
    assert "<script" not in response.text
    for path, item in document["paths"].items():
        for verb in item:
            assert f"{verb.upper()} {path}</code>" in response.text


# --- the table ------------------------------------------------------------------------------------------


def test_the_table_of_clients_is_bounded(world: World) -> None:
    table, now = WrongKeys(1), world.clock.now()
    first = ip_address("10.0.0.0")
    for number in range(MAX_CLIENTS + 10):
        table.refusal(first + number, RefusedKey(KeyFault.MALFORMED), now)
    assert len(table) == MAX_CLIENTS

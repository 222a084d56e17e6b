"""Credentials are never shown, and a refresh token is redeemed by one process at a time and never lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.db.engine import open_engine
from app.domain.catalogue import lookup
from app.domain.upstream import ConnectionTrouble, Unreachable
from app.kernel.secrets import SecretError, Secrets
from app.platforms.base import Access, TokenFor
from app.platforms.partner_center.driver import app_token, delegated_token
from app.runtime import Runtime, TokenCache
from app.services.connections import access, customer_readings
from app.services.connections.access import client_secret_place, open_access, refresh_token_place
from app.services.registering import batches
from tests.support.receiver import until
from tests.support.world import Partner, World, tuples

CREDENTIALS = ("client_secret", "refresh_token")


@asynccontextmanager
async def another_process(world: World, **changes: Any) -> AsyncIterator[Runtime]:
    """A second runtime on the same database, with its own pool, tokens and locks."""
    runtime = await Runtime.open(world.runtime.settings.model_copy(update=changes), process="other")
    runtime.now = world.clock.now
    try:
        yield runtime
    finally:
        await runtime.close()


async def microsoft_partner(world: World, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = await world.control("POST", "partners", fields)
    return found


async def check(world: World, partner: Partner) -> dict[str, Any]:
    response = await world.client.post(
        f"/v1/connections/{partner.connection_id}:check", headers=partner.headers
    )
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def shown(world: World, partner: Partner) -> dict[str, Any]:
    response = await world.client.get(f"/v1/connections/{partner.connection_id}", headers=partner.headers)
    found: dict[str, Any] = response.json()
    return found


async def patch(world: World, partner: Partner, **fields: Any) -> None:
    response = await world.client.patch(
        f"/v1/connections/{partner.connection_id}", headers=partner.headers, json=fields
    )
    assert response.status_code == 200, response.text


async def column(world: World, partner: Partner, name: str) -> Any:
    async with world.runtime.system_transaction() as tx:
        statement = text(f"SELECT {name} FROM connections WHERE id = :id")
        return (await tx.session.execute(statement, {"id": partner.connection_id})).scalar_one()


async def stored_refresh_token(world: World, partner: Partner) -> str:
    sealed = await column(world, partner, "refresh_token")
    return world.runtime.secrets.open_text(sealed, refresh_token_place(partner.id, partner.connection_id))


async def token(
    runtime: Runtime, partner: Partner, wanted: Callable[[Access], TokenFor] = delegated_token
) -> str:
    access = await open_access(runtime, partner, partner.connection_id)
    return await access.token(wanted(access))


# --- :check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delegated", [True, False])
async def test_a_good_connection_says_what_was_proved(world: World, delegated: bool) -> None:
    partner = await world.partner(delegated=delegated)
    found = await check(world, partner)
    assert (found["ok"], found["code"], found["remedy"]) == (True, None, None)
    assert ("App+User" if delegated else "App-only") in found["proved"][0]
    assert (await shown(world, partner))["checked_at"] is not None


async def test_a_check_asks_microsoft_for_a_new_token_once(world: World) -> None:
    partner = await world.partner()
    await check(world, partner)
    before = len(await world.calls("token"))
    await check(world, partner)
    assert len(await world.calls("token")) - before == 1


async def test_a_wrong_secret_is_named_and_a_new_one_mends_it(world: World) -> None:
    partner = await world.partner()
    good = world.runtime.secrets.open_text(
        await column(world, partner, "client_secret"), client_secret_place(partner.id, partner.connection_id)
    )
    await patch(world, partner, client_secret="wrong-secret-value")
    found = await check(world, partner)
    assert (found["ok"], found["code"]) == (False, "credential_refused")
    assert "7000215" in found["said"]
    assert found["remedy"]
    trouble = (await shown(world, partner))["trouble"]
    assert trouble["code"] == "credential_refused"
    assert "wrong-secret-value" not in str(found) + str(trouble)

    await patch(world, partner, client_secret=good)
    assert (await shown(world, partner))["trouble"] is None
    assert (await check(world, partner))["ok"] is True


async def test_an_expired_secret_an_ended_refresh_token_and_a_wrong_tenant_are_refused_credentials(
    world: World,
) -> None:
    expired, ended, elsewhere = [await world.partner() for _ in range(3)]
    await world.arm({"operation": "token", "kind": "entra", "aadsts": 7000222})
    assert (await check(world, expired))["code"] == "client_secret_expired"

    await world.control("POST", f"partners/{ended.entra_tenant_id}:revoke")
    found = await check(world, ended)
    assert (found["code"], "50173" in found["said"]) == ("sign_in_revoked", True)

    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE connections SET entra_tenant_id = :tenant WHERE id = :id"),
            {"tenant": uuid4(), "id": elsewhere.connection_id},
        )
    found = await check(world, elsewhere)
    assert (found["ok"], found["code"]) == (False, "tenant_not_found")
    assert "90002" in found["said"]


@pytest.mark.parametrize(
    ("aadsts", "code"),
    [
        (65001, "app_consent_missing"),
        (53003, "conditional_access_blocked"),
        (700016, "app_not_found"),
        (7000222, "client_secret_expired"),
        (700082, "refresh_token_expired"),
        (50173, "sign_in_revoked"),
        (50076, "mfa_required"),
        (50079, "mfa_required"),
        (70043, "sign_in_frequency"),
    ],
)
@pytest.mark.parametrize("numbers", ["both", "text"])
async def test_each_refusal_of_a_token_is_the_trouble_of_the_connection_with_its_own_remedy(
    world: World, aadsts: int, code: str, numbers: str
) -> None:
    partner = await world.partner()
    world.runtime.token_cache.tokens.clear()
    refusal = {"operation": "token", "kind": "entra", "aadsts": aadsts, "numbers": numbers}
    await world.arm({**refusal, "count": None})
    order = await world.order(partner, tuples(1))
    await batches.advance_next(world.runtime)

    trouble = (await shown(world, partner))["trouble"]
    assert trouble["code"] == code
    assert f"AADSTS{aadsts}" in trouble["said"]
    assert trouble["remedy"] == lookup(code).remedy
    [batch] = await world.batches(order.view.record.id)
    assert (batch["failure_code"], batch["uncertain"]) == (code, False)


@pytest.mark.parametrize("aadsts", [50076, 50079])
async def test_mfa_asked_for_by_entra_needs_a_person(world: World, aadsts: int) -> None:
    partner = await world.partner()
    await world.arm({"operation": "token", "kind": "entra", "aadsts": aadsts})
    found = await check(world, partner)
    assert (found["ok"], found["code"]) == (False, "mfa_required")
    assert "MFA" in found["remedy"]


@pytest.mark.parametrize("style", ["challenge", "code"])
async def test_a_sign_in_without_mfa_is_told_from_a_bad_secret(world: World, style: str) -> None:
    await world.switch(mfa_failure_style=style)
    partner = await world.partner()
    signed_in = await microsoft_partner(
        world,
        tenant_id=str(partner.entra_tenant_id),
        client_id="00000000-aaaa-4bbb-8ccc-000000000001",
        grants={"app_only": True, "delegated": True, "mfa": False},
    )
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE connections SET client_id = :client WHERE id = :id"),
            {"client": signed_in["client_id"], "id": partner.connection_id},
        )
    await patch(
        world,
        partner,
        client_secret=signed_in["client_secret"],
        refresh_token=signed_in["refresh_token"],
    )
    found = await check(world, partner)
    assert (found["ok"], found["code"]) == (False, "mfa_required")


async def test_entra_that_is_away_is_no_trouble_of_the_connection(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "token", "kind": "status", "status": 503})
    found = await check(world, partner)
    assert (found["ok"], found["code"]) == (False, "upstream_unavailable")
    assert (await shown(world, partner))["trouble"] is None


async def test_work_stops_at_a_trouble_and_goes_on_by_itself_when_it_is_mended(world: World) -> None:
    partner = await world.partner()
    await world.control("POST", f"partners/{partner.entra_tenant_id}:revoke")
    world.runtime.token_cache.tokens.clear()
    order = await world.order(partner, tuples(2))
    for _ in range(4):
        await batches.advance_next(world.runtime)
    assert (await shown(world, partner))["trouble"]["code"] == "sign_in_revoked"
    refused = len(await world.calls("token"))
    assert await batches.advance_next(world.runtime) is None, "left alone for a while"
    assert len(await world.calls("token")) == refused

    renewed = await microsoft_partner(
        world, tenant_id=str(partner.entra_tenant_id), client_id=await column(world, partner, "client_id")
    )
    await patch(
        world, partner, client_secret=renewed["client_secret"], refresh_token=renewed["refresh_token"]
    )
    assert (await shown(world, partner))["trouble"] is None
    await world.work()
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 2
    assert {row["state"] for row in await world.rows(partner, order.view.record.id)} == {"registered"}


async def test_a_missing_refresh_token_stays_a_trouble_though_lists_can_be_read(world: World) -> None:
    partner = await world.partner(delegated=False)
    await world.order(partner, tuples(1))
    while await batches.advance_next(world.runtime) is not None:
        pass
    assert (await shown(world, partner))["trouble"]["code"] == "credential_missing"
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    assert (await check(world, partner))["ok"] is True
    assert (await shown(world, partner))["trouble"]["code"] == "credential_missing"


# --- credentials never come out -------------------------------------------------------------------


async def test_no_answer_and_no_log_line_holds_a_credential(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    microsoft = await microsoft_partner(world)
    partner = await world.partner()
    secrets = {name: microsoft[name] for name in CREDENTIALS}
    body = {
        "name": "second",
        "entra_tenant_id": microsoft["tenant_id"],
        "client_id": microsoft["client_id"],
        "default_group_tag": "Standard",
        **secrets,
    }
    said = []

    async def send(method: str, path: str, json: Any = None, **headers: str) -> Any:
        response = await world.client.request(
            method, f"/v1/connections{path}", headers={**partner.headers, **headers}, json=json
        )
        said.append(response.text + str(response.headers))
        return response

    made = await send("POST", "", body, **{"Idempotency-Key": "make-it-once"})
    assert made.status_code == 201, made.text
    id = made.json()["id"]
    assert (await send("POST", "", body, **{"Idempotency-Key": "make-it-once"})).status_code == 201
    assert (await send("POST", "", body)).status_code == 409
    for wrong in (
        {**body, "client_secret": [secrets["client_secret"]]},
        {**body, "refresh_token": {"x": secrets["refresh_token"]}},
        {**body, "client_id": {"x": secrets["client_secret"]}},
        {**body, "entra_tenant_id": secrets["client_secret"]},
        {**body, "unknown": secrets["client_secret"]},
        {**body, "client_secret": secrets["client_secret"] + "\x00"},
        [secrets["client_secret"]],
    ):
        assert (await send("POST", "", wrong)).status_code == 422
    await send("GET", "")
    await send("GET", f"/{id}")
    await send("POST", f"/{id}:check")
    await send("PATCH", f"/{id}", {"client_secret": secrets["client_secret"]})
    await world.control("POST", f"partners/{microsoft['tenant_id']}:revoke")
    await send("POST", f"/{id}:check")
    echo = {"error": "invalid_client", "error_description": f"AADSTS7000215: not {secrets['client_secret']}"}
    await world.arm({"operation": "token", "kind": "status", "status": 400, "body": echo})
    await send("POST", f"/{id}:check")

    assert caplog.records
    told = "\n".join(said) + caplog.text
    for name, value in secrets.items():
        assert value not in told, name
    for issued in world.runtime.token_cache.tokens.values():
        assert issued[0] not in told
    assert f"has_{CREDENTIALS[1]}" in told, "what is there may be known"


async def test_credentials_lie_sealed_in_every_column_of_the_database(world: World) -> None:
    microsoft = await microsoft_partner(world)
    partner = await world.partner()
    secrets = [microsoft[name] for name in CREDENTIALS]
    response = await world.client.post(
        "/v1/connections",
        headers={**partner.headers, "Idempotency-Key": "a-key-of-the-caller"},
        json={
            "name": "sealed",
            "entra_tenant_id": microsoft["tenant_id"],
            "client_id": microsoft["client_id"],
            "default_group_tag": "Standard",
            **dict(zip(CREDENTIALS, secrets, strict=True)),
        },
    )
    assert response.status_code == 201, response.text
    found = 0
    async with world.runtime.system_transaction() as tx:
        tables = (
            await tx.session.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        ).scalars()
        for table in tables.all():
            for row in (await tx.session.execute(text(f'SELECT * FROM "{table}"'))).mappings():
                for value in row.values():
                    raw = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                    found += len(raw)
                    assert not any(secret.encode() in raw for secret in secrets), table
    assert found > 1000, "the search has seen the rows"


async def test_a_sealed_value_moved_to_another_partner_or_another_purpose_does_not_open(
    world: World,
) -> None:
    mine, theirs = await world.partner(), await world.partner()
    for name in CREDENTIALS:
        async with world.runtime.system_transaction() as tx:
            await tx.session.execute(
                text(
                    f"UPDATE connections SET {name} = (SELECT {name} FROM connections WHERE id = :mine) "
                    "WHERE id = :theirs"
                ),
                {"mine": mine.connection_id, "theirs": theirs.connection_id},
            )
        sealed = await column(world, theirs, name)
        for place in (
            client_secret_place(theirs.id, theirs.connection_id),
            refresh_token_place(theirs.id, theirs.connection_id),
            *([refresh_token_place(mine.id, mine.connection_id)] if name == "client_secret" else ()),
        ):
            with pytest.raises(SecretError):
                world.runtime.secrets.open(sealed, place)
    world.runtime.token_cache.tokens.clear()
    asked = len(await world.calls("token"))
    found = await check(world, theirs)
    assert (found["ok"], found["code"]) == (False, "credential_missing")
    assert len(await world.calls("token")) == asked, "nothing was sent with another partner's secret"


async def test_keys_are_rotated_without_touching_what_is_sealed(world: World) -> None:
    partner = await world.partner()
    old = world.runtime.settings.secret_keys
    new = SecretStr("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVpBQkNERUY=")
    async with another_process(world, secret_keys=(new, *old)) as rotated:
        await token(rotated, partner, app_token)
        await token(rotated, partner)
    assert not await opens(world, partner, "refresh_token", old), "rotated, so sealed with the new key"
    assert await opens(world, partner, "refresh_token", (new,))
    assert await opens(world, partner, "client_secret", old)
    assert not await opens(world, partner, "client_secret", (new,))

    async with another_process(world, secret_keys=(new,)) as too_early:
        with pytest.raises(ConnectionTrouble) as trouble:
            await token(too_early, partner, app_token)
        assert trouble.value.code == "credential_missing"
        assert await column(world, partner, "token_owner") is None


async def opens(world: World, partner: Partner, name: str, keys: tuple[SecretStr, ...]) -> bool:
    places = {"client_secret": client_secret_place, "refresh_token": refresh_token_place}
    place = places[name](partner.id, partner.connection_id)
    secrets = Secrets.from_base64([key.get_secret_value() for key in keys])
    try:
        secrets.open(await column(world, partner, name), place)
    except SecretError:
        return False
    return True


async def test_another_partner_neither_sees_nor_touches_a_connection(world: World) -> None:
    mine, theirs = await world.partner(), await world.partner()
    before = await shown(world, mine)
    for method, suffix in (("GET", ""), ("PATCH", ""), ("POST", ":check")):
        for id in (mine.connection_id, uuid4()):
            response = await world.client.request(
                method,
                f"/v1/connections/{id}{suffix}",
                headers=theirs.headers,
                json={"client_secret": "stolen"} if method == "PATCH" else None,
            )
            assert (response.status_code, response.json()["code"]) == (404, "unknown_connection")
    listed = await world.client.get("/v1/connections", headers=theirs.headers)
    assert [UUID(item["id"]) for item in listed.json()["items"]] == [theirs.connection_id]
    assert await shown(world, mine) == before


# --- one refresh token ----------------------------------------------------------------------------


async def test_a_redeemed_refresh_token_is_replaced_before_the_access_token_is_used(world: World) -> None:
    partner = await world.partner(consented=False)
    first = await stored_refresh_token(world, partner)
    await token(world.runtime, partner)
    second = await stored_refresh_token(world, partner)
    assert second != first
    assert await world.calls("customers") == []
    assert await column(world, partner, "token_owner") is None


async def test_tokens_are_shared_within_a_process_and_renewed_before_they_end(world: World) -> None:
    partner = await world.partner(consented=False)
    tokens = await asyncio.gather(*(token(world.runtime, partner) for _ in range(10)))
    assert len(set(tokens)) == 1
    assert len(await world.calls("token")) == 1
    world.clock.advance(seconds=3599 - 310)
    assert await token(world.runtime, partner) == tokens[0]
    world.clock.advance(seconds=20)
    assert await token(world.runtime, partner) != tokens[0]


async def test_processes_redeem_one_after_another_although_redeeming_revokes_the_old_token(
    world: World,
) -> None:
    await world.switch(refresh_token_reusable=False)
    partner = await world.partner(consented=False)
    await world.arm({"operation": "token", "kind": "slow", "delay_ms": 100, "count": 2})
    async with another_process(world) as other:
        runtimes = [
            world.runtime,
            other,
            *(replace(world.runtime, token_cache=TokenCache()) for _ in range(2)),
        ]
        tokens = await asyncio.gather(*(token(runtime, partner) for runtime in runtimes))
    assert len(set(tokens)) == 4
    calls = sorted(await world.calls("token"), key=lambda call: float(call["at"]))
    assert [call["status"] for call in calls] == [200] * 4
    for earlier, later in pairwise(calls):
        assert earlier["ended"] <= later["at"], "never two at a time"
    world.runtime.token_cache.tokens.clear()
    assert await token(world.runtime, partner), "and the last one stored is good"


async def test_a_worker_that_is_stopped_while_redeeming_still_stores_the_new_token(world: World) -> None:
    await world.switch(refresh_token_reusable=False)
    partner = await world.partner(consented=False)
    await world.arm({"operation": "token", "kind": "hold", "phase": "after"})
    redeeming = asyncio.create_task(token(world.runtime, partner))
    await world.until_held_open()
    redeeming.cancel()
    await world.let_go()
    with pytest.raises(asyncio.CancelledError):
        await redeeming

    world.runtime.token_cache.tokens.clear()
    assert await token(world.runtime, partner)
    assert [call["status"] for call in await world.calls("token")] == [200, 200]


async def test_a_worker_that_loses_its_claim_while_redeeming_still_stores_the_new_token(world: World) -> None:
    """It was frozen or cut off for so long that others considered it dead."""
    await world.switch(refresh_token_reusable=False)
    partner = await world.partner(consented=False)
    await world.arm({"operation": "token", "kind": "hold", "phase": "after"})
    redeeming = asyncio.create_task(token(world.runtime, partner))
    await world.until_held_open()
    another = uuid4()
    await world.select(
        "UPDATE connections SET token_owner = :owner WHERE id = :id RETURNING id",
        owner=another,
        id=partner.connection_id,
    )
    await world.let_go()
    assert await redeeming

    [row] = await world.select("SELECT token_owner FROM connections WHERE id = :id", id=partner.connection_id)
    assert row["token_owner"] == another, "the other one's claim is left alone"
    await world.select("UPDATE connections SET token_owner = NULL, token_lease_until = NULL RETURNING id")
    world.runtime.token_cache.tokens.clear()
    assert await token(world.runtime, partner), "the token that was stored is the good one"


async def test_a_process_that_dies_while_redeeming_holds_up_the_others_no_longer_than_its_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "WAIT_FOR_TOKEN", 0.3)
    partner = await world.partner(consented=False)
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE connections SET token_owner = :owner, token_lease_until = :until WHERE id = :id"),
            {
                "owner": uuid4(),
                "until": world.runtime.now() + access.TOKEN_LEASE,
                "id": partner.connection_id,
            },
        )
    with pytest.raises(Unreachable):
        await token(world.runtime, partner)
    assert (await check(world, partner))["code"] == "upstream_unavailable"
    world.clock.advance(seconds=access.TOKEN_LEASE.total_seconds() + 1)
    assert await token(world.runtime, partner)


async def test_a_database_that_is_away_for_a_moment_does_not_lose_the_rotated_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "STORE_PAUSE", 0.02)
    await world.switch(refresh_token_reusable=False)
    partner = await world.partner(consented=False)
    await world.arm({"operation": "token", "kind": "hold", "phase": "after"})
    shaky = replace(world.runtime, token_cache=TokenCache())
    redeeming = asyncio.create_task(token(shaky, partner))
    await world.until_held_open()
    gone = open_engine("postgresql://nobody@127.0.0.1:1/nowhere", pool_size=1, name="gone")
    shaky.engine = gone
    await world.let_go()
    first = len(await world.calls("token"))
    assert first == 1
    with pytest.raises(TimeoutError):
        await until(redeeming.done, patience=0.1)
    shaky.engine = world.runtime.engine
    assert await redeeming
    await gone.dispose()
    assert await token(world.runtime, partner), "the stored one is the new one"


async def test_a_refresh_token_given_while_the_old_one_is_redeemed_is_not_overwritten(world: World) -> None:
    partner = await world.partner(consented=False)
    await world.arm({"operation": "token", "kind": "hold", "phase": "after"})
    redeeming = asyncio.create_task(token(world.runtime, partner))
    await world.until_held_open()
    await patch(world, partner, refresh_token="given-by-a-person")
    await world.let_go()
    await redeeming
    assert await stored_refresh_token(world, partner) == "given-by-a-person"

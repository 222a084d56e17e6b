"""Sealed values belong to their rows: a copied value does not open, and old values are sealed again."""

from collections.abc import AsyncIterator, Iterator
from math import inf
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from app.db.sealing import SEALED_COLUMNS, replace, values_after
from app.db.tables import metadata
from app.platforms.partner_center.driver import app_token, delegated_token
from app.services.access.idempotency import body_place
from app.services.connections.access import open_access
from app.services.operations import sealing
from app.services.operations.sealing import AT_A_TIME, PLACES
from tests.integration.test_api_bad_input import problem_of
from tests.integration.test_migrations import owner_of
from tests.support.receiver import Receiver, open_receiver, subscribe
from tests.support.worker import run_operator
from tests.support.world import Partner, World

NEW = SecretStr("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVpBQkNERUY=")


@pytest_asyncio.fixture
async def receiver(world: World) -> AsyncIterator[Receiver]:
    async with open_receiver(world) as found:
        yield found


@pytest.fixture
def as_before(world: World) -> Iterator[None]:
    """Binds sealed values to their partner only, as the previous release does."""
    secrets = world.runtime.secrets
    secrets.binds_to_rows, world.runtime._sealing_due = False, inf
    yield
    secrets.binds_to_rows, world.runtime._sealing_due = True, 0.0


async def run(world: World, statement: str, **parameters: Any) -> None:
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(text(statement), parameters)


def binds(world: World) -> bool:
    return world.runtime.secrets.binds_to_rows


async def swap(world: World, table: str, column: str, key: str = "id") -> None:
    """Exchanges the values of a table's two rows."""
    rows = await world.select(f"SELECT {key} AS key, {column} AS sealed FROM {table} ORDER BY {key}")
    assert len(rows) == 2, f"{table} has two rows here"
    for row, other in zip(rows, reversed(rows), strict=True):
        statement = f"UPDATE {table} SET {column} = :sealed WHERE {key} = :key"
        await run(world, statement, sealed=other["sealed"], key=row["key"])


async def two_connections(world: World) -> Partner:
    """A partner with a second connection, whose credentials also work."""
    partner = await world.partner()
    (first,) = await world.select("SELECT * FROM connections")
    client_secret, refresh_token = (
        world.runtime.secrets.open_text(
            first[name], PLACES["connections", name](partner.id, partner.connection_id)
        )
        for name in ("client_secret", "refresh_token")
    )
    response = await world.client.post(
        "/v1/connections",
        headers=partner.headers,
        json={
            "name": "second",
            "entra_tenant_id": str(partner.entra_tenant_id),
            "client_id": first["client_id"],
            "client_secret": client_secret,
            "refresh_token": refresh_token,
            "default_group_tag": "Standard",
        },
    )
    assert response.status_code == 201, response.text
    return partner


def test_every_sealed_column_is_walked_and_has_its_place() -> None:
    sealed = {
        (table.name, column.name)
        for table in metadata.sorted_tables
        for column in table.c
        if (column.comment or "").startswith("sealed")
    }
    assert {(each.table, each.column) for each in SEALED_COLUMNS} == sealed == set(PLACES)


@pytest.mark.parametrize("column", ["client_secret", "refresh_token"])
async def test_swapped_credentials_of_one_partner_do_not_open_and_the_trouble_is_told(
    world: World, column: str
) -> None:
    partner = await two_connections(world)
    await swap(world, "connections", column)
    world.runtime.token_cache.tokens.clear()
    asked = len(await world.calls("token"))
    for row in await world.select("SELECT id FROM connections"):
        found = await world.client.post(f"/v1/connections/{row['id']}:check", headers=partner.headers)
        said = found.json()
        assert (said["ok"], said["code"]) == (False, "credential_missing")
        assert "sealed for another row" in said["said"]
        shown = await world.client.get(f"/v1/connections/{row['id']}", headers=partner.headers)
        assert shown.json()["trouble"]["code"] == "credential_missing"
    assert len(await world.calls("token")) == asked, "nothing was sent anywhere"


async def test_swapped_secrets_of_endpoints_sign_nothing(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoints = [await subscribe(world, partner, receiver.url()) for _ in range(2)]
    for endpoint in endpoints:
        path = f"/v1/webhook-endpoints/{endpoint.id}:rotate-secret"
        assert (await world.client.post(path, headers=partner.headers)).status_code == 200
    for table in ("webhook_endpoints", "webhook_secrets"):
        await swap(world, table, "secret")
    path = f"/v1/webhook-endpoints/{endpoints[0].id}:test"
    delivery = (await world.client.post(path, headers=partner.headers)).json()
    await world.deliver()
    assert receiver.messages == []
    shown = await world.client.get(f"/v1/webhook-deliveries/{delivery['id']}", headers=partner.headers)
    assert shown.json()["last_kind"] == "unsigned"
    assert "does not open" in shown.json()["attempt_log"][0]["excerpt"]


async def test_swapped_answers_of_idempotency_keys_are_not_shown(world: World) -> None:
    partner = await world.partner(consented=False)

    async def create(key: str) -> Any:
        body = {"url": f"https://hooks.example.com/{key}"}
        headers = {**partner.headers, "Idempotency-Key": key}
        return await world.client.post("/v1/webhook-endpoints", headers=headers, json=body)

    made = [(await create(key)).json()["secret"] for key in ("one", "two")]
    await swap(world, "idempotency_keys", "body", key="key")
    for key in ("one", "two"):
        response = await create(key)
        problem_of(response, 409, "idempotency_answer_lost")
        assert not any(secret in response.text for secret in made)
    assert await world.count("webhook_endpoints") == 2


async def everything_sealed(world: World, receiver: Receiver) -> Partner:
    """A row with a value for each sealed column."""
    partner = await world.partner()
    endpoint = await subscribe(world, partner, receiver.url())
    path = f"/v1/webhook-endpoints/{endpoint.id}:rotate-secret"
    headers = {**partner.headers, "Idempotency-Key": "rotation"}
    assert (await world.client.post(path, headers=headers)).status_code == 200
    return partner


def counts(found: Any) -> dict[str, tuple[int, int, int, int]]:
    return {
        f"{each.table}.{each.column}": (each.values, each.current, each.resealed, each.closed)
        for each in found
    }


ALL = [f"{each.table}.{each.column}" for each in SEALED_COLUMNS]


@pytest.mark.usefixtures("as_before")
async def test_what_was_sealed_before_opens_and_is_sealed_anew_once(world: World, receiver: Receiver) -> None:
    partner = await everything_sealed(world, receiver)
    await run(world, "UPDATE connections SET token_owner = NULL")
    assert counts(await sealing.reseal(world.runtime, dry_run=True)) == dict.fromkeys(ALL, (1, 0, 1, 0))
    assert counts(await sealing.reseal(world.runtime, dry_run=True)) == dict.fromkeys(ALL, (1, 0, 1, 0))
    assert counts(await sealing.reseal(world.runtime, dry_run=False)) == dict.fromkeys(ALL, (1, 0, 1, 0))
    assert counts(await sealing.reseal(world.runtime, dry_run=False)) == dict.fromkeys(ALL, (1, 1, 0, 0))
    found = await world.client.post(f"/v1/connections/{partner.connection_id}:check", headers=partner.headers)
    assert found.json()["ok"]
    access = await open_access(world.runtime, partner, partner.connection_id, fresh=True)
    assert await access.token(delegated_token(access))


async def test_after_a_change_of_keys_the_old_one_can_go(world: World, receiver: Receiver) -> None:
    partner = await everything_sealed(world, receiver)
    old = world.runtime.settings.secret_keys
    async with world.another(secret_keys=(NEW, *old)) as both:
        assert counts(await sealing.reseal(both.runtime, dry_run=False)) == dict.fromkeys(ALL, (1, 0, 1, 0))
    async with world.another(secret_keys=(NEW,)) as new_alone:
        found = counts(await sealing.reseal(new_alone.runtime, dry_run=True))
        assert found == dict.fromkeys(ALL, (1, 1, 0, 0))
        access = await open_access(new_alone.runtime, partner, partner.connection_id, fresh=True)
        assert await access.token(app_token(access))


async def test_what_does_not_open_is_named_left_alone_and_holds_nothing_up(world: World) -> None:
    await two_connections(world)
    await swap(world, "connections", "client_secret")
    before = await world.select("SELECT id, client_secret FROM connections ORDER BY id")
    found = {each.column: each for each in await sealing.reseal(world.runtime, dry_run=False)}
    secrets = found["client_secret"]
    assert (secrets.values, secrets.closed) == (2, 2)
    assert dict(secrets.closed_rows) == {
        str(row["id"]): "it is damaged, or was sealed for another row" for row in before
    }
    assert (found["refresh_token"].values, found["refresh_token"].closed) == (2, 0)
    assert await world.select("SELECT id, client_secret FROM connections ORDER BY id") == before


async def test_a_value_that_another_process_has_written_meanwhile_counts(world: World) -> None:
    """A worker redeems the refresh token between reading and writing."""
    await world.partner(consented=False)
    column = next(each for each in SEALED_COLUMNS if each.column == "refresh_token")
    async with world.runtime.system_transaction() as tx:
        (row,) = await values_after(tx, column, None, 10)
    await run(world, "UPDATE connections SET refresh_token = 'rotated'")
    async with world.runtime.system_transaction() as tx:
        assert not await replace(tx, column, row, b"stale")
    assert await world.select("SELECT refresh_token FROM connections") == [{"refresh_token": b"rotated"}]


async def test_an_installation_of_before_binds_only_once_it_has_been_told(world: World) -> None:
    """While the previous release runs too, it must be able to open what is sealed here."""
    async with world.another() as fresh:
        await run(fresh, "SELECT 1")
        assert fresh.runtime.secrets.binds_to_rows
    url = world.runtime.settings.database_url or ""
    async with owner_of(url) as owner, owner.begin() as session:
        await session.execute(text("DELETE FROM row_sealing"))
    async with world.another() as old, world.another() as beside:
        await run(old, "SELECT 1")
        await run(beside, "SELECT 1")
        assert not binds(old)
        await sealing.reseal(old.runtime, dry_run=True)
        assert not binds(old)
        await sealing.reseal(old.runtime, dry_run=False)
        assert binds(old)
        beside.runtime._sealing_due = 0.0  # checked every few seconds
        await run(beside, "SELECT 1")
        assert binds(beside)


@pytest.mark.usefixtures("as_before")
async def test_more_values_than_one_transaction_takes_are_all_sealed_anew(world: World) -> None:
    partner = await world.partner(consented=False)
    for number in range(2 * AT_A_TIME + 1):
        place = body_place(partner.id, f"key {number}")
        await run(
            world,
            "INSERT INTO idempotency_keys (partner_id, key, fingerprint, status, body, created_at) "
            "VALUES (:partner, :key, 'x', 200, :body, now())",
            partner=partner.id,
            key=place.row,
            body=world.runtime.secrets.seal("{}", place),
        )
    found = {each.table: each for each in await sealing.reseal(world.runtime, dry_run=False)}
    assert found["idempotency_keys"].resealed == 2 * AT_A_TIME + 1
    again = {each.table: each for each in await sealing.reseal(world.runtime, dry_run=False)}
    assert again["idempotency_keys"].current == 2 * AT_A_TIME + 1


async def test_the_command_ends_with_what_was_done(
    world: World, receiver: Receiver, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await everything_sealed(world, receiver)
    keys = ",".join(key.get_secret_value() for key in world.runtime.settings.secret_keys)
    monkeypatch.setenv("REGISTRAR_SECRET_KEYS", keys)
    done = await run_operator(database_url, "secrets", "reseal", "--yes")
    assert "5 stored secrets: 0 resealed, 5 current already, 0 not opened." in " ".join(done.stdout.split())

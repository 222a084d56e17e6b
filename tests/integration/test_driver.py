"""Statements by the driver: one round trip each, with SQLAlchemy's transactions and errors."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db import driver
from app.db.engine import APP_ROLE, is_passing, open_engine
from app.db.ids import new_row_id
from app.db.sql import execute, fetch_all, fetch_one, insert
from app.kernel.transactions import SystemTx
from tests.support.statements import sent_by
from tests.support.world import World

WHO = "SELECT current_user AS name, current_setting('registrar.partner_id', true) AS partner"


@pytest.fixture
async def engine(world: World) -> AsyncIterator[AsyncEngine]:
    """An engine with one connection, so that each transaction inherits what the one before left behind."""
    opened = open_engine(str(world.runtime.settings.database_url), pool_size=1, name="driver")
    yield opened
    await opened.dispose()


def on(session: AsyncConnection) -> SystemTx:
    return SystemTx(session=session, now=datetime.now(UTC), quotas={})


def partner_row(name: str) -> dict[str, Any]:
    return {"id": new_row_id(), "name": name, "role": "oem"}


ADD = "INSERT INTO partners (id, name, role, created_at) VALUES (:id, :name, :role, now())"


async def test_a_transaction_takes_one_round_trip_to_begin_and_one_to_end(world: World) -> None:
    partner = await world.partner(consented=False)
    async with sent_by(world.runtime.engine) as sent, world.runtime.reading(partner) as tx:
        row = await fetch_one(tx, WHO)
    assert row == {"name": APP_ROLE, "partner": str(partner.id)}
    begin, read, end = sent.texts
    assert (begin.split(";")[0], read, end.rstrip(";")) == ("BEGIN", WHO, "COMMIT")


async def test_who_a_transaction_was_ends_with_it(engine: AsyncEngine) -> None:
    async with engine.begin() as session:
        await driver.begin_as(session, "SET LOCAL ROLE registrar_system")
        assert (await fetch_all(on(session), WHO))[0]["name"] == "registrar_system"
        await driver.begin_as(session, "SET LOCAL ROLE registrar_app")
        assert (await fetch_all(on(session), WHO))[0]["name"] == "registrar_app"
    async with engine.begin() as session:
        assert (await session.execute(text(WHO))).one().name == APP_ROLE


@pytest.mark.parametrize("by_driver", [True, False])
async def test_a_transaction_that_cannot_begin_leaves_none_open(engine: AsyncEngine, by_driver: bool) -> None:
    with pytest.raises(DBAPIError) as refused:
        async with engine.begin() as session:
            await driver.begin_as(session, "SET LOCAL ROLE nobody_at_all")
    assert getattr(refused.value.orig, "sqlstate", None) == "22023"
    assert not is_passing(refused.value)
    async with engine.begin() as session:
        if by_driver:
            await driver.begin_as(session, "SET LOCAL ROLE registrar_system")
        assert (await fetch_all(on(session), WHO))[0]["name"] == (
            "registrar_system" if by_driver else APP_ROLE
        )


async def test_both_ways_of_sending_statements_share_a_transaction(engine: AsyncEngine) -> None:
    kept, dropped = partner_row("kept"), partner_row("dropped")
    async with engine.connect() as session:
        await driver.begin_as(session, "SET LOCAL ROLE registrar_system")
        await session.execute(text(ADD), kept)
        assert await fetch_one(on(session), "SELECT name FROM partners WHERE id = :id", id=kept["id"])
        await session.commit()
        await driver.begin_as(session, "SET LOCAL ROLE registrar_system")
        assert await execute(on(session), ADD, **dropped) == 1
        await session.rollback()
        await driver.begin_as(session, "SET LOCAL ROLE registrar_system")
        names = [row["name"] for row in await fetch_all(on(session), "SELECT name FROM partners")]
    assert names == ["kept"]


async def test_a_refused_statement_raises_what_sqlalchemy_would(engine: AsyncEngine) -> None:
    row = partner_row("twice")
    async with engine.begin() as session:
        await driver.begin_as(session, "SET LOCAL ROLE registrar_system")
        await execute(on(session), ADD, **row)
        with pytest.raises(IntegrityError) as refused:
            await execute(on(session), ADD, **{**row, "name": "SECRET"})
    orig = refused.value.orig
    assert orig is not None
    assert getattr(orig, "sqlstate", None) == "23505"
    assert getattr(orig.__cause__, "constraint_name", None) == "pk_partners"
    assert "SECRET" not in str(refused.value)
    with pytest.raises(DBAPIError) as mistaken:
        async with engine.begin() as session:
            await fetch_all(on(session), "SELECT CAST(:n AS integer)", n="no number")
    assert not is_passing(mistaken.value)


async def test_a_connection_that_ends_is_an_outage_and_is_replaced(engine: AsyncEngine) -> None:
    async with engine.connect() as session:
        await driver.begin_as(session, "SET LOCAL ROLE NONE")  # the login may end its own backends
        with pytest.raises(DBAPIError) as ended:
            await fetch_all(on(session), "SELECT pg_terminate_backend(pg_backend_pid())")
    assert is_passing(ended.value)
    async with engine.begin() as session:
        assert (await fetch_all(on(session), WHO))[0]["name"] == APP_ROLE


async def test_a_value_that_stands_twice_is_sent_once(engine: AsyncEngine) -> None:
    async with engine.begin() as session:
        row = await fetch_one(on(session), "SELECT CAST(:a AS int) + :b AS c, CAST(:a AS int) AS d", a=1, b=2)
        assert row == {"c": 3, "d": 1}
        await driver.begin_as(session, "SET LOCAL ROLE registrar_system")
        await insert(on(session), "partners", {**partner_row("made"), "created_at": datetime.now(UTC)})
        assert await execute(on(session), "UPDATE partners SET role = 'oem' WHERE name = :n", n="made") == 1

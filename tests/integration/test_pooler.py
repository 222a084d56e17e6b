"""Behind a pooler, nothing depends on a connection's memory. `.ci/run compatibility` uses a real pooler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import walls
from app.db.driver import run_raw
from app.db.engine import become_partner, open_engine
from app.domain.ids import PartnerId
from tests.support import rows
from tests.support.authority import Authority
from tests.support.relay import Relay
from tests.support.world import World

PREPARED = "SELECT count(*) FROM pg_prepared_statements"


@pytest.fixture
async def relay(database_url: str, tmp_path: Path) -> AsyncIterator[Relay]:
    made = Relay(database_url, Authority.make(tmp_path, "ours"), speaks_tls=False, is_pooler=True)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


def engine_to(relay: Relay) -> AsyncEngine:
    bare = make_url(relay.upstream).set(host="127.0.0.1", port=relay.port, query={})
    return open_engine(bare.render_as_string(hide_password=False), pool_size=1, name="pooled")


async def test_only_what_poolers_track_is_said_at_the_start(relay: Relay) -> None:
    engine = engine_to(relay)
    async with engine.begin() as session:
        assert await walls.are_up(session) is True
    await engine.dispose()
    assert set(relay.said) == {"user", "database", "client_encoding", "application_name", "timezone"}


async def test_a_transaction_begins_bound_and_sees_the_rows_of_its_partner(
    world: World, relay: Relay
) -> None:
    async with world.runtime.system_transaction() as tx:
        mine, _ = await rows.fill(tx.session)
        await rows.fill(tx.session)
    engine = engine_to(relay)
    seen = "SELECT current_user, array_agg(partner_id) FROM orders"
    async with engine.begin() as session:
        assert tuple((await session.execute(text(seen))).one()) == ("registrar_app", None)
    async with engine.begin() as session:
        await become_partner(session, PartnerId(mine))
        assert tuple((await session.execute(text(seen))).one()) == ("registrar_app", [mine])
    await engine.dispose()


async def test_no_prepared_statement_stays_on_the_connection(relay: Relay) -> None:
    engine = engine_to(relay)
    async with engine.begin() as session:
        for number in range(3):
            await session.execute(text("SELECT :number + 1"), {"number": number})
            await run_raw(session, "SELECT * FROM unnest($1::integer[])", [number])
        stream = await session.stream(text("SELECT generate_series(1, 5000)"))
        async for part in stream.partitions(1000):
            assert len(part) == 1000
        named = f"{PREPARED} WHERE name <> ''"
        assert (await session.execute(text(named))).scalar_one() == 0
    await engine.dispose()


async def test_without_a_pooler_statements_are_kept(database_url: str) -> None:
    """Proves that the test above can fail."""
    engine = open_engine(database_url, pool_size=1, name="direct")
    async with engine.begin() as session:
        direct = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        raw = await session.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        if driver.get_server_pid() == direct:  # otherwise the tests themselves use a pooler
            await session.execute(text("SELECT 1"))
            assert (await session.execute(text(PREPARED))).scalar_one() > 0
    await engine.dispose()

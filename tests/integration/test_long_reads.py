"""Reads that take too long are ended, and the error says how to ask for less."""

import pytest
from sqlalchemy import text

from app.db import removal as removal_db
from app.db.removal import Kind, Subject
from app.domain.errors import Busy
from app.services.operations import removal
from tests.support.world import World, tuples


async def test_read_that_takes_too_long_is_ended_with_advice(world: World) -> None:
    partner = await world.partner()
    async with world.another(read_timeout_s=0.1) as other:
        with pytest.raises(Busy) as ended:
            async with other.runtime.reading(partner) as tx:
                await tx.session.execute(text("SELECT pg_sleep(30)"))
        async with other.runtime.reading(partner) as tx:
            assert (await tx.session.execute(text("SELECT 1"))).scalar_one() == 1
    assert ended.value.code == "read_took_too_long"
    assert "customer_id" in ended.value.remedy
    assert ended.value.retry_after


async def test_bound_of_a_read_does_not_stay_on_its_connection(world: World) -> None:
    partner = await world.partner()
    bounds = text(
        "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')"
    )
    async with world.another(database_pool_size=2, read_timeout_s=7) as other:
        async with other.runtime.transaction(partner) as tx:
            before = (await tx.session.execute(bounds)).one()
        async with other.runtime.reading(partner) as tx:
            assert (await tx.session.execute(bounds)).one() == ("7s", "7s")
        async with other.runtime.transaction(partner) as tx:
            assert (await tx.session.execute(bounds)).one() == before


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/registrations", "/v1/batches", "/v1/customers"])
async def test_lists_are_bounded_reads(world: World, path: str) -> None:
    """A list that waits for a locked table is ended, and no longer holds a connection."""
    partner = await world.partner()
    await world.order(partner, tuples(1))
    table = path.rpartition("/")[2]
    async with world.another(read_timeout_s=0.1) as other:
        world.app.state.runtime = other.runtime
        try:
            async with world.runtime.system_transaction() as tx:
                await tx.session.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
                answer = await world.client.get(path, headers=partner.headers)
        finally:
            world.app.state.runtime = world.runtime
        assert other.runtime.turns.connections.held == 0
    assert answer.status_code == 503
    assert answer.json()["code"] == "read_took_too_long"
    assert int(answer.headers["Retry-After"]) > 0


async def test_the_dry_run_of_a_removal_is_a_bounded_read(world: World) -> None:
    partner = await world.partner()
    path = f"/v1/customers/{partner.customer_id}"
    async with world.another(read_timeout_s=0.1) as other:
        world.app.state.runtime = other.runtime
        try:
            async with world.runtime.system_transaction() as tx:
                await tx.session.execute(text("LOCK TABLE events IN ACCESS EXCLUSIVE MODE"))
                answer = await world.client.delete(path, headers=partner.headers, params={"dry_run": "true"})
        finally:
            world.app.state.runtime = world.runtime
        assert other.runtime.turns.connections.held == 0
    assert (answer.status_code, answer.json()["code"]) == (503, "read_took_too_long")


async def test_rows_are_counted_up_to_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(3))
    subject = Subject(Kind.PARTNER, partner.id, partner.id)
    whole = (await removal.look(world.runtime, partner, subject)).counts
    monkeypatch.setattr(removal_db, "COUNTED_TO", 2)
    found = (await removal.look(world.runtime, partner, subject)).counts
    assert whole["registrations"] == 3
    assert found == {table: min(2, count) for table, count in whole.items()}

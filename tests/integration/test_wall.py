"""Row-level security: what PostgreSQL refuses even if a query forgets its partner."""

from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Table, Uuid, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import APP_ROLE, SYSTEM_ROLE
from app.db.tables import metadata
from app.domain.actor import ActingFor
from app.domain.ids import PartnerId
from tests.support import rows
from tests.support.rows import OWNED, Row
from tests.support.world import World

DENIED = "42501"
NO_PARENT = "23503"

UNBOUND = {
    "orders.created_by": "the API key may be deleted, the order stays",
    "batches.owner": "a fencing token, no row",
    "batches.request_id": "Microsoft's header",
    "batches.correlation_id": "Microsoft's header",
    "batch_attempts.request_id": "Microsoft's header",
    "batch_attempts.correlation_id": "Microsoft's header",
    "batch_attempts.made_by": "the API key may be deleted, what was recorded with it stays",
    "consent_changes.made_by": "the API key may be deleted, what was recorded with it stays",
    "connections.entra_tenant_id": "Microsoft's tenant",
    "connections.reading_owner": "a fencing token, no row",
    "connections.token_owner": "a fencing token, no row",
    "customers.entra_tenant_id": "Microsoft's tenant",
    "devices.identity": "a digest, no row",
    "devices.registration_id": "may be gone before the device, while the customer is removed",
    "devices.last_registration_id": "may be gone before the device, while the customer is removed",
    "deliveries.owner": "a fencing token, no row",
    "events.order_id": "events outlive what they tell of",
    "events.customer_id": "events outlive what they tell of",
    "imports.created_by": "the API key may be deleted, the import stays",
    "imports.owner": "a fencing token, no row",
    "import_rows.customer_id": "of the partner's own customers; the order's key holds it when it is made",
    "group_tags.creating_batch_id": "joined under row-level security; a batch that is gone creates nothing",
    "partner_turns.after_id": "a place in a list, no row: what was there may be gone",
    "removals.subject": "the partner, or a connection or customer that is gone at the end",
    "registration_counts.bucket": "a batch or an order, written by the triggers only",
}
"""Id columns that no foreign key ties to a parent of the same partner, each with the reason."""


@dataclass(frozen=True)
class Scene:
    mine: PartnerId
    theirs: PartnerId
    my_rows: dict[str, Row]
    their_rows: dict[str, Row]


@pytest.fixture
async def scene(world: World) -> Scene:
    """Two partners with a row each in every table."""
    async with world.runtime.system_transaction() as tx:
        mine, my_rows = await rows.fill(tx.session)
        theirs, their_rows = await rows.fill(tx.session)
    return Scene(PartnerId(mine), PartnerId(theirs), my_rows, their_rows)


async def refused(session: AsyncConnection, statement: str, **parameters: object) -> str:
    """The SQLSTATE with which a statement fails, or `done`. Rolls back its changes."""
    nested = await session.begin_nested()
    try:
        await session.execute(text(statement), parameters)
    except DBAPIError as error:
        return str(getattr(error.orig, "sqlstate", error))
    finally:
        await nested.rollback()
    return "done"


async def insertion(session: AsyncConnection, table: Table, row: Row) -> str:
    nested = await session.begin_nested()
    try:
        await rows.insert(session, table, row)
    except DBAPIError as error:
        return str(getattr(error.orig, "sqlstate", error))
    finally:
        await nested.rollback()
    return "done"


async def owners(session: AsyncConnection, table: Table) -> list[UUID]:
    name = "id" if table.name == "partners" else "partner_id"
    return list((await session.execute(text(f"SELECT {name} FROM {table.name}"))).scalars())


async def test_a_partner_sees_its_own_row_of_every_table_and_nobody_elses(world: World, scene: Scene) -> None:
    async with world.runtime.transaction(ActingFor(scene.mine)) as tx:
        seen = {t.name: set(await owners(tx.session, t)) for t in (*OWNED, metadata.tables["partners"])}
    assert seen == {name: {scene.mine} for name in seen}
    assert len(seen) >= 18


async def test_without_a_partner_nothing_is_visible_and_nothing_can_be_written(
    world: World, scene: Scene
) -> None:
    async with world.runtime.engine.begin() as session:
        for table in (*OWNED, metadata.tables["partners"]):
            assert await owners(session, table) == [], table.name
            assert (await session.execute(text(f"DELETE FROM {table.name}"))).rowcount == 0, table.name
        outcomes = {
            t.name: await insertion(session, t, rows.new_row(t, scene.mine, scene.my_rows)) for t in OWNED
        }
    assert outcomes == dict.fromkeys(outcomes, DENIED)


async def test_no_row_of_another_partner_can_be_changed(world: World, scene: Scene) -> None:
    async with world.runtime.transaction(ActingFor(scene.mine)) as tx:
        for table in OWNED:
            column = next(iter(table.c)).name
            changed = await tx.session.execute(
                text(f"UPDATE {table.name} SET {column} = {column} WHERE partner_id = :other"),
                {"other": scene.theirs},
            )
            assert changed.rowcount == 0, table.name
            # A statement without WHERE, as if the line were forgotten: it finds only its own rows.
            everything = await tx.session.execute(text(f"UPDATE {table.name} SET {column} = {column}"))
            assert everything.rowcount == len(await owners(tx.session, table)), table.name


async def test_no_row_of_another_partner_can_be_deleted(world: World, scene: Scene) -> None:
    async with world.runtime.transaction(ActingFor(scene.mine)) as tx:
        for table in reversed((metadata.tables["partners"], *OWNED)):
            await tx.session.execute(text(f"DELETE FROM {table.name}"))
            assert await owners(tx.session, table) == [], table.name
    async with world.runtime.system_transaction() as tx:
        left = {t.name: set(await owners(tx.session, t)) for t in (*OWNED, metadata.tables["partners"])}
    assert left == {name: {scene.theirs} for name in left}


async def test_no_row_can_be_inserted_for_another_partner(world: World, scene: Scene) -> None:
    async with world.runtime.transaction(ActingFor(scene.mine)) as tx:
        outcomes = {
            t.name: await insertion(tx.session, t, rows.new_row(t, scene.theirs, scene.their_rows))
            for t in OWNED
        }
        outcomes["partners"] = await insertion(
            tx.session, metadata.tables["partners"], rows.new_row(metadata.tables["partners"], uuid4(), {})
        )
    assert outcomes == dict.fromkeys(outcomes, DENIED)


async def test_no_row_can_be_given_away_to_another_partner(world: World, scene: Scene) -> None:
    async with world.runtime.transaction(ActingFor(scene.mine)) as tx:
        outcomes = {
            t.name: await refused(tx.session, f"UPDATE {t.name} SET partner_id = :other", other=scene.theirs)
            for t in OWNED
        }
    assert outcomes == dict.fromkeys(outcomes, DENIED)


async def test_no_child_hangs_on_another_partners_parent_not_even_as_the_system(
    world: World, scene: Scene
) -> None:
    tried = 0
    async with world.runtime.system_transaction() as tx:
        for table in OWNED:
            for parent, columns in rows.parents_of(table).items():
                if parent == "partners":
                    continue
                nested = await tx.session.begin_nested()
                if set(table.primary_key.columns.keys()) <= columns:
                    # The parent's only child must not block it.
                    await tx.session.execute(table.delete())
                stolen = rows.new_row(table, scene.mine, {**scene.my_rows, parent: scene.their_rows[parent]})
                assert await insertion(tx.session, table, stolen) == NO_PARENT, f"{table.name} -> {parent}"
                await nested.rollback()
                tried += 1
    assert tried >= 15


def test_every_foreign_key_to_a_partners_row_holds_the_partner_too() -> None:
    loose = [
        f"{table.name} -> {key.referred_table.name}"
        for table in OWNED
        for key in table.foreign_key_constraints
        if key.referred_table.name != "partners"
        and ("partner_id", "partner_id") not in {(e.parent.name, e.column.name) for e in key.elements}
    ]
    assert loose == []


def test_every_column_of_ids_is_bound_to_a_parent_or_says_why_not() -> None:
    free = {
        f"{table.name}.{column.name}"
        for table in OWNED
        for column in table.c
        if isinstance(column.type, Uuid)
        and column.name != "id"
        and not any(column.name in columns for columns in rows.parents_of(table).values())
    }
    assert free == set(UNBOUND)


def test_only_what_is_nobodys_belongs_to_no_partner() -> None:
    assert {t.name for t in metadata.sorted_tables} - {t.name for t in OWNED} == {
        "device_backfill",
        "partners",
        "row_sealing",
        "worker_heartbeats",
    }


@pytest.mark.parametrize("role", [APP_ROLE, SYSTEM_ROLE])
async def test_the_service_reads_the_schema_version_and_can_not_write_it(world: World, role: str) -> None:
    async with world.runtime.engine.begin() as session:
        await session.execute(text(f"SET LOCAL ROLE {role}"))
        assert await refused(session, "SELECT * FROM alembic_version") == "done"
        for statement in (
            "UPDATE alembic_version SET version_num = '9999'",
            "DELETE FROM alembic_version",
            "INSERT INTO alembic_version VALUES ('9999')",
        ):
            assert await refused(session, statement) == DENIED, statement


@pytest.mark.parametrize("role", [APP_ROLE, SYSTEM_ROLE])
async def test_the_service_owns_nothing_and_can_not_take_the_wall_down(world: World, role: str) -> None:
    async with world.runtime.engine.begin() as session:
        await session.execute(text(f"SET LOCAL ROLE {role}"))
        owned = await session.execute(
            text(
                "SELECT relname FROM pg_class WHERE relowner = CAST(:role AS regrole) UNION ALL "
                "SELECT proname FROM pg_proc WHERE proowner = CAST(:role AS regrole)"
            ),
            {"role": role},
        )
        assert owned.scalars().all() == []
        powers = await session.execute(
            text(
                "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcanlogin FROM pg_roles WHERE rolname = :r"
            ),
            {"r": role},
        )
        assert tuple(powers.one()) == (False, False, False, False)
        for statement in (
            "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
            "CREATE POLICY mine_too ON orders USING (true)",
            "DROP POLICY own_rows ON orders",
            "ALTER TABLE registrations DISABLE TRIGGER count_inserted",
            "TRUNCATE orders CASCADE",
            "CREATE TABLE aside (id integer)",
        ):
            assert await refused(session, statement) == DENIED, statement


async def test_switching_row_security_off_gives_an_error_and_no_rows(world: World, scene: Scene) -> None:
    async with world.runtime.transaction(ActingFor(scene.mine)) as tx:
        await tx.session.execute(text("SET LOCAL row_security = off"))
        for table in OWNED:
            assert await refused(tx.session, f"SELECT * FROM {table.name}") == DENIED, table.name


async def test_a_connection_of_the_pool_forgets_who_used_it_before(world: World, scene: Scene) -> None:
    async with world.another(database_pool_size=1) as alone:
        runtime, sessions = alone.runtime, set()

        async def look() -> tuple[str, int]:
            async with runtime.engine.begin() as session:
                row = (
                    await session.execute(
                        text("SELECT pg_backend_pid(), current_user, (SELECT count(*) FROM orders)")
                    )
                ).one()
                sessions.add(row[0])
                return row[1], row[2]

        async with runtime.transaction(ActingFor(scene.mine)) as tx:
            assert await owners(tx.session, metadata.tables["orders"]) == [scene.mine]
        assert await look() == (APP_ROLE, 0)
        async with runtime.system_transaction() as everything:
            assert len(await owners(everything.session, metadata.tables["orders"])) == 2
        assert await look() == (APP_ROLE, 0)
        with pytest.raises(DBAPIError):
            async with runtime.system_transaction() as everything:
                await everything.session.execute(text("SELECT 1 / 0"))
        assert await look() == (APP_ROLE, 0)
        with pytest.raises(DBAPIError):
            async with runtime.transaction(ActingFor(scene.theirs)) as tx:
                await tx.session.execute(text("SELECT 1 / 0"))
        assert await look() == (APP_ROLE, 0)
        async with runtime.transaction(ActingFor(scene.mine)) as tx:
            assert await owners(tx.session, metadata.tables["orders"]) == [scene.mine]
    assert len(sessions) == 1, "all of it was one and the same database connection"


async def test_two_partners_may_use_the_same_order_reference(world: World, scene: Scene) -> None:
    orders = metadata.tables["orders"]
    row = rows.new_row(orders, scene.mine, scene.my_rows)
    row["reference"] = scene.their_rows["orders"]["reference"]
    async with world.runtime.transaction(ActingFor(scene.mine)) as tx:
        assert await insertion(tx.session, orders, row) == "done"

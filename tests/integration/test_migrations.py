"""Migrations: from an empty database to the code's tables, downgrades, and two processes at once."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from app.db import schema, table_locks
from app.db.connecting import make_engine, normalise_url
from app.db.engine import become_partner, become_system, open_engine
from app.db.table_locks import ALTER, READ, REFERENCE, UPDATE
from app.db.tables import metadata
from app.db.tables.devices import TRIGRAMS
from app.domain.event import EVENTS
from app.domain.group_tag import tag_key
from app.domain.ids import PartnerId
from app.domain.subscription import SUBSCRIBABLE
from app.runtime import Runtime
from app.services.operations import health
from tests.support import rows
from tests.support.rows import OWNED
from tests.support.servers import Servers, empty_database
from tests.support.worker import PATIENCE, worker_process
from tests.support.world import World

ROOT = Path(__file__).resolve().parents[2]
MIGRATE = "import asyncio, sys; from app.db import schema; print(asyncio.run(schema.migrate(sys.argv[1])))"


@pytest.fixture
async def empty(servers: Servers) -> AsyncIterator[str]:
    async with empty_database(servers.database_url) as url:
        yield url


@asynccontextmanager
async def owner_of(url: str) -> AsyncIterator[AsyncEngine]:
    """The database, as the login that migrates it."""
    engine = make_engine(url, poolclass=NullPool)
    yield engine
    await engine.dispose()


ONE_PARTNER = (
    "INSERT INTO partners (id, name, role, created_at) "
    "VALUES (gen_random_uuid(), 'One', 'direct_bill', now())"
)


async def upgrade_to_before(engine: AsyncEngine, revision: str) -> str:
    """Upgrades to the revision before this one, and returns its name."""
    async with engine.connect() as session:
        scripts = await session.run_sync(lambda sync: ScriptDirectory.from_config(schema._config(sync)))
    before = scripts.get_revision(revision).down_revision
    assert isinstance(before, str)
    await run(engine, command.upgrade, before)
    return before


async def select(engine: AsyncEngine, statement: str) -> list[Any]:
    async with engine.connect() as session:
        return [tuple(row) for row in await session.execute(text(statement))]


async def differences(engine: AsyncEngine) -> list[Any]:
    """The differences that `alembic revision --autogenerate` would write."""

    def compare(connection: Any) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        # It exists only if the database has pg_trgm.
        return [one for one in found if one[0] != "remove_index" or one[1].name != TRIGRAMS]

    async with engine.connect() as session:
        return await session.run_sync(compare)


async def run(engine: AsyncEngine, direction: Any, revision: str) -> None:
    async with engine.connect() as session:
        await session.run_sync(lambda sync: direction(schema._config(sync), revision))


async def test_from_nothing_the_newest_schema_is_made_and_equals_the_tables_of_the_code(empty: str) -> None:
    async with owner_of(empty) as engine:
        async with engine.connect() as session:
            assert await schema.current(session) == "none"
        assert await schema.migrate(empty) == schema.newest()
        async with engine.connect() as session:
            assert await schema.current(session) == schema.newest()
        assert await differences(engine) == []
        made = await select(engine, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert {name for (name,) in made} == {t.name for t in metadata.sorted_tables} | {"alembic_version"}


async def test_a_change_of_a_table_without_a_migration_is_noticed(empty: str) -> None:
    """Proves that the test above can fail."""
    await schema.migrate(empty)
    async with owner_of(empty) as engine:
        async with engine.begin() as session:
            await session.execute(text("ALTER TABLE orders ADD COLUMN surplus integer"))
            await session.execute(text("ALTER TABLE orders DROP COLUMN purchase_order"))
            await session.execute(text("ALTER TABLE orders ALTER COLUMN device_count TYPE bigint"))
            await session.execute(text("ALTER TABLE orders ALTER COLUMN group_tag DROP NOT NULL"))
            await session.execute(text("DROP TABLE delivery_attempts"))
            await session.execute(text("ALTER TABLE batches ALTER COLUMN polls DROP DEFAULT"))
            await session.execute(text("DROP INDEX ix_batches_order_id_id"))
        found = repr(await differences(engine))
    changed = ("surplus", "purchase_order", "device_count", "group_tag", "delivery_attempts", "polls")
    assert [name for name in (*changed, "ix_batches_order_id_id") if name not in found] == []


async def test_the_schema_can_be_taken_back_to_nothing_and_made_again(empty: str) -> None:
    await schema.migrate(empty)
    async with owner_of(empty) as engine:
        await run(engine, command.downgrade, "base")
        assert await select(
            engine,
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace UNION ALL "
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
            "AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')",
        ) in (
            [("alembic_version",), ("alembic_version_pkc",)],
            [("alembic_version_pkc",), ("alembic_version",)],
        )
        assert await schema.migrate(empty) == schema.newest()
        assert await differences(engine) == []


async def test_endpoints_that_had_every_type_go_on_hearing_of_every_type(empty: str) -> None:
    """0006: endpoints with all types of that time get every type; a chosen list stays unchanged."""
    of_then = [type.value for type in sorted(SUBSCRIBABLE) if EVENTS[type].since == "0.1"]
    endpoints = {"every": of_then[::-1], "all but one": of_then[1:], "one": ["order.failed"]}
    async with owner_of(empty) as engine:
        before = await upgrade_to_before(engine, "0006")
        async with engine.begin() as session:
            await session.execute(text(ONE_PARTNER))
            for url, types in endpoints.items():
                await session.execute(
                    text(
                        "INSERT INTO webhook_endpoints "
                        "(id, partner_id, url, event_types, secret, state, created_at, updated_at) "
                        "SELECT gen_random_uuid(), id, :url, :types, 'sealed', 'enabled', now(), now() "
                        "FROM partners"
                    ),
                    {"url": url, "types": types},
                )
        statement = "SELECT url, event_types FROM webhook_endpoints"
        await run(engine, command.upgrade, "0006")
        assert dict(await select(engine, statement)) == {**endpoints, "every": ["*", *endpoints["every"]]}
        await run(engine, command.downgrade, before)
        assert dict(await select(engine, statement)) == endpoints


async def test_keys_that_could_read_hashes_still_can_and_no_others(empty: str) -> None:
    """0013: until then, `errors.csv` needed orders:read and a portal's file orders:write."""
    keys = {
        "all": ["orders:read", "orders:write", "customers:read"],
        "reads": ["orders:read"],
        "writes": ["orders:write"],
        "others": ["customers:read", "webhooks:write"],
        "none": [],
    }
    async with owner_of(empty) as engine:
        before = await upgrade_to_before(engine, "0013")
        async with engine.begin() as session:
            await session.execute(text(ONE_PARTNER))
            for name, scopes in keys.items():
                await session.execute(
                    text(
                        "INSERT INTO api_keys "
                        "(id, partner_id, name, prefix, secret_digest, scopes, created_at) "
                        "SELECT gen_random_uuid(), id, :name, :name, 'x', :scopes, now() FROM partners"
                    ),
                    {"name": name, "scopes": scopes},
                )
        await run(engine, command.upgrade, "0013")
        statement = "SELECT name, scopes FROM api_keys"
        could = {"all", "reads", "writes"}
        assert dict(await select(engine, statement)) == {
            name: [*scopes, *(["hashes:read"] if name in could else [])] for name, scopes in keys.items()
        }
        # There were partners already, so processes of the previous release may be running.
        assert await select(engine, "SELECT count(*) FROM row_sealing") == [(0,)]
        await run(engine, command.downgrade, before)
        assert dict(await select(engine, statement)) == keys


async def test_group_tags_get_the_key_of_unicodes_case_folding(empty: str) -> None:
    """0018: if two rows become one, the tag that Partner Center is known to have stays."""
    tags = {
        "außendienst": ("Außendienst", True),
        "großkunden": ("Großkunden", False),
        "grosskunden": ("GROSSKUNDEN", True),
        "straße": ("Straße", True),
        "strasse": ("STRASSE", False),
        "sales": ("Sales", True),
    }
    async with owner_of(empty) as engine:
        await schema.migrate(empty)
        async with engine.begin() as session:
            partner_id, made = await rows.fill(session)
            await session.execute(text("DELETE FROM group_tags"))
        await run(engine, command.downgrade, "0017")
        async with engine.begin() as session:
            for key, (tag, known) in tags.items():
                await session.execute(
                    text(
                        "INSERT INTO group_tags (customer_id, tag_key, partner_id, tag, known, updated_at) "
                        "VALUES (:customer, :key, :partner, :tag, :known, now())"
                    ),
                    {
                        "customer": made["customers"]["id"],
                        "key": key,
                        "partner": partner_id,
                        "tag": tag,
                        "known": known,
                    },
                )
        await run(engine, command.upgrade, "0018")
        found = await select(engine, "SELECT tag_key, tag FROM group_tags ORDER BY tag_key")
        assert dict(found) == {
            "aussendienst": "Außendienst",
            "grosskunden": "GROSSKUNDEN",
            "sales": "Sales",
            "strasse": "Straße",
        }
        assert all(tag_key(tag) == key for key, tag in found)


async def test_what_was_held_before_is_held_for_consent(empty: str) -> None:
    """0019: the previous release knows no other reason."""
    async with owner_of(empty) as engine:
        await schema.migrate(empty)
        async with engine.begin() as session:
            await rows.fill(session)
            await rows.fill(session)
            await session.execute(
                text(
                    "UPDATE batches SET state = 'held', holds = '{consent}' "
                    "WHERE id = (SELECT id FROM batches LIMIT 1)"
                )
            )
        await run(engine, command.downgrade, "0018")
        await run(engine, command.upgrade, "0019")
        found = await select(engine, "SELECT state, holds FROM batches ORDER BY state")
        assert found == [("held", ["consent"]), ("queued", [])]


async def test_who_has_forgotten_to_migrate_is_told_so_and_not_to_look_at_the_database(
    world: World, empty: str, tmp_path: Path
) -> None:
    runtime = await Runtime.open(world.runtime.settings.model_copy(update={"database_url": empty}))
    try:
        found = await health.look(runtime)
    finally:
        await runtime.close()
    assert (found.database, found.takes_orders) == (True, False)
    assert found.schema == f"at none, needs {schema.newest()}: run `registrar migrate`"

    log = tmp_path / "worker.log"
    async with worker_process(world, log, database_url=empty), asyncio.timeout(PATIENCE):
        while "worker_started" not in log.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
    [said] = [line for line in log.read_text().splitlines() if "schema_not_current" in line]
    assert "run `registrar migrate`" in said


async def test_processes_that_migrate_at_the_same_time_take_turns(empty: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, empty, cwd=ROOT, env={**os.environ}, stdout=-1, stderr=-1
        )
        for _ in range(2)
    ]
    for process in processes:
        said, errors = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, said.decode().strip()) == (0, schema.newest()), errors.decode()[-2000:]
    async with owner_of(empty) as engine:
        assert await differences(engine) == []


async def test_a_migration_that_fails_leaves_no_lock_behind(empty: str) -> None:
    async with owner_of(empty) as engine:
        async with engine.begin() as session:
            await session.execute(text("CREATE TABLE orders (id integer)"))
        with pytest.raises(Exception, match=r'relation "orders" already exists'):
            await schema.migrate(empty)
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
        assert await select(
            engine, held + "(SELECT oid FROM pg_database WHERE datname = current_database())"
        ) == [(0,)]
        assert await select(engine, "SELECT relname FROM pg_class WHERE relname = 'partners'") == []
        async with engine.begin() as session:
            await session.execute(text("DROP TABLE orders"))
        assert await schema.migrate(empty) == schema.newest()


STRONG_LOCKS = """
SELECT c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE l.pid = pg_backend_pid() AND l.granted
AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
"""


async def test_a_migration_takes_no_table_lock_later_than_at_its_start(empty: str) -> None:
    """Locks taken later can deadlock with callers, and PostgreSQL may then cancel the caller."""
    known: set[str] = set()
    steps: list[str] = []
    undeclared: list[tuple[str, str, str]] = []

    def done(*, ctx: MigrationContext, step: Any, **_: Any) -> None:
        assert ctx.connection is not None
        [revision] = step.up_revision_ids
        declared = getattr(step.up_revision.module, "LOCKS", None)
        for table, mode in ctx.connection.execute(text(STRONG_LOCKS)).all():
            wanted = ALTER if declared is None else declared.get(table)
            # The list also has a stronger lock than the declared one, which was taken first.
            named = wanted and mode in {as_pg_locks_has_it(lock) for lock in at_most(wanted)}
            if table in known and not named:
                undeclared.append((revision, table, mode))
        tables = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        known.update(ctx.connection.execute(tables).scalars())
        steps.append(revision)

    def upgrade(connection: Connection) -> None:
        config = schema._config(connection)
        config.attributes["on_version_apply"] = done
        command.upgrade(config, "head")

    async with owner_of(empty) as engine, engine.connect() as session:
        await session.run_sync(upgrade)
    assert steps[-1] == schema.newest()
    assert undeclared == []


def at_most(lock: str) -> list[str]:
    """The lock and the weaker ones that it covers."""
    ladder = [READ, "SHARE UPDATE EXCLUSIVE", REFERENCE, UPDATE, ALTER]
    return ladder[: ladder.index(lock) + 1]


def as_pg_locks_has_it(lock: str) -> str:
    return "".join(word.capitalize() for word in lock.split()) + "Lock"


async def test_a_migration_gives_way_to_a_transaction_that_waits_for_it(database_url: str) -> None:
    """Each waits for a lock of the other. The caller must not get an error."""
    locks = {"orders": REFERENCE, "batches": REFERENCE, "partners": REFERENCE}
    async with AsyncExitStack() as open_:
        engine = await open_.enter_async_context(owner_of(database_url))
        gate, caller, migration = [await open_.enter_async_context(engine.connect()) for _ in range(3)]
        pid = (await migration.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await gate.execute(text("LOCK TABLE partners IN ROW EXCLUSIVE MODE"))
        trying = asyncio.create_task(migration.run_sync(table_locks.take, locks))
        await until_locks(gate, pid, "partners", granted=False)
        await caller.execute(text("LOCK TABLE batches IN ROW EXCLUSIVE MODE"))
        await gate.rollback()
        await until_locks(gate, pid, "orders", granted=True)
        await caller.execute(text("LOCK TABLE orders IN ROW EXCLUSIVE MODE"))
        with pytest.raises(DBAPIError, match="other transactions use the table batches") as refused:
            await trying
        assert getattr(refused.value.orig, "sqlstate", None) in schema.IN_THE_WAY


async def until_locks(session: AsyncConnection, pid: int, table: str, *, granted: bool) -> None:
    """Waits until that process of the database holds a lock on the table, or waits for one."""
    found = text(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = :pid AND relation = CAST(:name AS regclass) "
        "AND granted = :granted AND mode = 'ShareRowExclusiveLock')"
    )
    async with asyncio.timeout(PATIENCE):
        while True:
            if (await session.execute(found, {"pid": pid, "name": table, "granted": granted})).scalar_one():
                return
            await asyncio.sleep(0.01)


def test_a_new_migration_starts_with_its_locks() -> None:
    template = (ROOT / "migrations/script.py.mako").read_text()
    assert template.count("table_locks.take") == 2
    assert "\nLOCKS: dict[str, str] = {}\n" in template


async def test_every_table_of_a_partner_has_its_wall(database_url: str) -> None:
    walled = {table.name for table in OWNED} | {"partners"}
    async with owner_of(database_url) as engine:
        enabled = await select(
            engine,
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relrowsecurity AND relforcerowsecurity",
        )
        policies = await select(
            engine,
            "SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check "
            "FROM pg_policies WHERE schemaname = 'public'",
        )
    assert {name for (name,) in enabled} == walled
    assert len(policies) == 2 * len(walled)
    for table, policy, permissive, roles, commands, condition, check in policies:
        assert (permissive, commands, check) == ("PERMISSIVE", "ALL", None), (table, policy)
        if policy == "every_row":
            assert (roles, condition) == ("{registrar_system}", "true"), table
        else:
            assert (policy, roles) == ("own_rows", "{registrar_app}"), table
            column = "id" if table == "partners" else "partner_id"
            assert condition.startswith(f"({column} = ( SELECT (NULLIF(current_setting("), table


@pytest.mark.parametrize("role", ["registrar_app", "registrar_system"])
async def test_a_table_of_a_later_migration_is_reachable_without_another_grant(empty: str, role: str) -> None:
    await schema.migrate(empty)
    async with owner_of(empty) as engine, engine.begin() as session:
        await session.execute(text("CREATE TABLE later (id integer)"))
        await session.execute(text(f"SET LOCAL ROLE {role}"))
        await session.execute(text("INSERT INTO later VALUES (1)"))


async def test_an_owner_without_createrole_migrates_and_a_login_that_owns_nothing_runs_the_service(
    database_url: str, empty: str
) -> None:
    """The two logins of docs/install.md. The fixture `database_url` ensures that both roles exist."""
    suffix, name = uuid4().hex[:8], normalise_url(empty).database
    owner, service = f"owner_{suffix}", f"service_{suffix}"
    url_of = {
        login: normalise_url(empty).set(username=login, password=suffix).render_as_string(hide_password=False)
        for login in (owner, service)
    }
    async with owner_of(empty) as administrator:
        async with administrator.begin() as session:
            for login in (owner, service):
                await session.execute(text(f"CREATE ROLE {login} LOGIN NOCREATEROLE PASSWORD '{suffix}'"))
                await session.execute(text(f"GRANT registrar_app, registrar_system TO {login}"))
                await session.execute(text(f"GRANT {login} TO CURRENT_USER"))
            await session.execute(text(f'ALTER DATABASE "{name}" OWNER TO {owner}'))
        try:
            assert await schema.migrate(url_of[owner]) == schema.newest()
            await use_the_service(url_of[service])
        finally:
            async with administrator.begin() as session:
                await session.execute(text(f"REASSIGN OWNED BY {owner} TO CURRENT_USER"))
                for login in (owner, service):
                    await session.execute(text(f"DROP OWNED BY {login}"))
                    await session.execute(text(f"DROP ROLE {login}"))


async def use_the_service(url: str) -> None:
    engine = open_engine(url, pool_size=1, name="test")
    try:
        async with engine.begin() as session:
            await become_system(session)
            partner_id, _ = await rows.fill(session)
            await rows.fill(session)
        async with engine.begin() as session:
            await become_partner(session, PartnerId(partner_id))
            found = (await session.execute(text("SELECT partner_id FROM orders"))).scalars().all()
            assert found == [partner_id]
            counted = await session.execute(text("SELECT count(*) FROM registration_counts"))
            assert counted.scalar_one() == 2, "the trigger's row and the example's"
    finally:
        await engine.dispose()


async def test_the_services_own_connections_run_as_the_application_role(database_url: str) -> None:
    engine = open_engine(database_url, pool_size=1, name="test")
    try:
        async with engine.begin() as session:
            seen = (
                await session.execute(
                    text(
                        "SELECT current_user, current_setting('application_name'), "
                        "current_setting('TimeZone')"
                    )
                )
            ).one()
    finally:
        await engine.dispose()
    assert tuple(seen) == ("registrar_app", "registrar-test", "UTC")

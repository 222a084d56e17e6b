"""Grants in the database: PUBLIC may do nothing, and the service's roles only what the table lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import APP_ROLE, SYSTEM_ROLE
from app.db.tables import metadata
from tests.support import rows
from tests.support.world import World

DENIED = "42501"

ROWS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
GRANTS = {
    **{f"table {table.name}": ROWS for table in metadata.sorted_tables},
    "table alembic_version": frozenset({"SELECT"}),
    "function find_api_key(text)": frozenset({"EXECUTE"}),
    "function device_identity(uuid,text,text,text,text)": frozenset({"EXECUTE"}),
    "function find_devices(text,integer)": frozenset({"EXECUTE"}),
    "function keep_devices(uuid[])": frozenset({"EXECUTE"}),
    "function reconsider_devices(uuid[])": frozenset({"EXECUTE"}),
    "schema public": frozenset({"USAGE"}),
    "database": frozenset({"CONNECT"}),
}
"""The table of grants. Both roles have nearly the same ones; the policies make the difference."""
OWN_GRANTS = {
    APP_ROLE: {
        "table row_sealing": frozenset({"SELECT"}),
        "table device_backfill": frozenset({"SELECT"}),
    },
    SYSTEM_ROLE: {
        "table row_sealing": frozenset({"SELECT", "INSERT"}),
        "table device_backfill": ROWS,
    },
}

RIGHTS = """
SELECT what, grantee, privilege_type FROM (
    SELECT 'database' AS what, coalesce(datacl, acldefault('d', datdba)) AS acl, datdba AS owner
    FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT 'schema ' || nspname, coalesce(nspacl, acldefault('n', nspowner)), nspowner
    FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    UNION ALL
    SELECT CASE relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END || relname,
        coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)), relowner
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL
    SELECT 'column ' || attrelid::regclass || '.' || attname, attacl, 10
    FROM pg_attribute WHERE attrelid > 16383 AND attacl IS NOT NULL
    UNION ALL
    SELECT 'function ' || oid::regprocedure, coalesce(proacl, acldefault('f', proowner)), proowner
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')  -- an extension's
    UNION ALL
    SELECT 'type ' || typname, coalesce(typacl, acldefault('T', typowner)), typowner
    FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('d', 'e', 'r')
    UNION ALL
    SELECT 'default ' || CAST(defaclobjtype AS text), defaclacl, defaclrole FROM pg_default_acl
) AS objects, aclexplode(acl) WHERE grantee <> owner
"""


async def rights(session: AsyncConnection, grantee: str) -> dict[str, frozenset[str]]:
    """Rights by object; the grantee `public` is everybody."""
    role = "0" if grantee == "public" else f"CAST('{grantee}' AS regrole)"
    found: dict[str, set[str]] = {}
    for what, _, right in await session.execute(text(f"{RIGHTS} AND grantee = {role}")):
        found.setdefault(what, set()).add(right)
    return {what: frozenset(of) for what, of in found.items()}


async def failure(session: AsyncConnection, statement: str, **parameters: Any) -> str | None:
    nested = await session.begin_nested()
    try:
        await session.execute(text(statement), parameters)
    except DBAPIError as error:
        return str(getattr(error.orig, "sqlstate", error))
    finally:
        await nested.rollback()
    return None


async def test_public_may_do_nothing(owner: AsyncConnection) -> None:
    assert await rights(owner, "public") == {}


async def test_public_gets_nothing_of_what_a_later_migration_makes(owner: AsyncConnection) -> None:
    await owner.execute(text("CREATE TABLE later (id integer GENERATED ALWAYS AS IDENTITY)"))
    await owner.execute(text("CREATE FUNCTION later() RETURNS integer LANGUAGE sql AS 'SELECT 1'"))
    await owner.execute(text("CREATE DOMAIN later_text AS text"))
    assert await rights(owner, "public") == {}


@pytest.mark.parametrize("role", [APP_ROLE, SYSTEM_ROLE])
async def test_a_role_of_the_service_may_do_what_the_table_of_grants_says(
    owner: AsyncConnection, role: str
) -> None:
    found = await rights(owner, role)
    assert found.pop("default r") == ROWS
    assert found == GRANTS | OWN_GRANTS[role]


async def test_functions_that_run_as_the_owner_have_a_fixed_search_path(owner: AsyncConnection) -> None:
    functions = await owner.execute(
        text(
            "SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
        )
    )
    found = {row.proname: row.proconfig for row in functions}
    assert len(found) == 8
    assert [name for name, config in found.items() if "search_path=public, pg_temp" not in config] == []


@asynccontextmanager
async def stranger_of(session: AsyncConnection) -> AsyncIterator[str]:
    """A role without any grant, until the transaction ends."""
    name = f"stranger_{uuid4().hex[:8]}"
    await session.execute(text(f"CREATE ROLE {name}"))
    await session.execute(text(f"GRANT {name} TO CURRENT_USER"))
    await session.execute(text(f"SET LOCAL ROLE {name}"))
    yield name
    await session.execute(text("RESET ROLE"))


async def test_a_role_without_grants_gets_nowhere(owner: AsyncConnection) -> None:
    async with stranger_of(owner):
        may = "SELECT has_database_privilege(current_database(), '{}')"
        for right in ("CONNECT", "TEMP", "CREATE"):
            assert (await owner.execute(text(may.format(right)))).scalar_one() is False, right
        statements = [f"SELECT * FROM public.{table.name}" for table in metadata.sorted_tables]
        statements += ["CREATE TEMP TABLE mine (id uuid)", "CREATE TABLE public.mine (id uuid)"]
        assert {s: await failure(owner, s) for s in statements} == dict.fromkeys(statements, DENIED)


async def test_no_function_of_ours_can_be_hung_on_another_table(world: World, owner: AsyncConnection) -> None:
    """Even a role that has rights on both cannot use it to delete the hashes of another's registrations."""
    async with world.runtime.system_transaction() as tx:
        _, made = await rows.fill(tx.session)
    await owner.execute(text("CREATE TEMP TABLE trap (LIKE registrations)"))
    functions = await owner.execute(
        text("SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace")
    )
    for function in functions.scalars().all():
        await owner.execute(text("DELETE FROM trap"))
        await owner.execute(text("INSERT INTO trap SELECT * FROM registrations"))
        await owner.execute(
            text(
                "CREATE OR REPLACE TRIGGER sprung AFTER DELETE ON trap REFERENCING OLD TABLE AS old_rows "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            )
        )
        assert await failure(owner, "DELETE FROM trap") == DENIED, function
        await owner.execute(text("DROP TRIGGER sprung ON trap"))
    kept = await world.select("SELECT registration_id FROM device_hashes")
    assert [row["registration_id"] for row in kept] == [made["registrations"]["id"]]

"""Checks row-level security: that PostgreSQL itself keeps partners apart if a query forgets its partner.

Every process checks this before it does anything else (`Runtime`). Otherwise a pooler that drops the role, a
login with too many rights or a restore without policies would be noticed only when one partner reads
another's customers.
"""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import schema
from app.db.engine import APP_ROLE, SYSTEM_ROLE, become_nobody, become_system

GUIDE: Final = "docs/operate.md says under `Row-level security is broken` how to repair each."


class WallsDown(OSError):
    """One partner could see another's rows; the message says why, in one line. No process may run then."""


async def are_up(session: AsyncConnection) -> bool:
    """Whether row-level security is complete. Raises WallsDown with every fault that it finds.

    False for a database that is not migrated yet: `registrar migrate` creates the policies. Afterwards the
    transaction sees no partner's rows.
    """
    await become_nobody(session)
    if await _scalar(session, "SELECT to_regclass('public.alembic_version')") is None:
        return False
    version = await _scalar(session, "SELECT max(version_num) FROM alembic_version")
    if version is None or not version.isdigit() or version < schema.newest():
        return False
    faults = await _role_faults(session) + await _table_faults(session)
    await become_system(session)
    if (user := await _scalar(session, "SELECT current_user")) != SYSTEM_ROLE:
        faults.append(f"a transaction of the system runs as {user}, not as {SYSTEM_ROLE}")
    await become_nobody(session)
    if faults:
        raise WallsDown(f"Row-level security does not keep partners apart: {'; '.join(faults)}. {GUIDE}")
    return True


async def weaknesses(session: AsyncConnection) -> list[str]:
    """Rights that PUBLIC still has on this database, as statements that revoke them."""
    found = await session.execute(
        text(
            "SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', d.datname) FROM pg_database d, "
            "aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS acl "
            "WHERE d.datname = current_database() AND acl.grantee = 0 GROUP BY d.datname UNION ALL "
            "SELECT 'REVOKE CREATE ON SCHEMA public FROM PUBLIC' "
            "FROM pg_namespace n, aclexplode(n.nspacl) AS acl "
            "WHERE n.nspname = 'public' AND acl.grantee = 0 AND acl.privilege_type = 'CREATE'"
        )
    )
    return list(found.scalars())


async def _scalar(session: AsyncConnection, statement: str) -> str | None:
    value = (await session.execute(text(statement))).scalar_one()
    return None if value is None else str(value)


async def _role_faults(session: AsyncConnection) -> list[str]:
    """Faults of the role in a transaction without a partner. Runs after the statement that sets the role."""
    row = (
        await session.execute(
            text(
                "SELECT current_user AS name, rolsuper OR rolbypassrls AS unbound, "
                "pg_has_role(current_user, CAST(:system AS name), 'MEMBER') AS system, "
                "EXISTS (SELECT FROM partners) AS sees FROM pg_roles WHERE rolname = current_user"
            ),
            {"system": SYSTEM_ROLE},
        )
    ).one()
    if row.name != APP_ROLE:
        return [f"a transaction runs as {row.name}, not as {APP_ROLE}"]
    found = {
        f"{APP_ROLE} is a superuser or has BYPASSRLS": row.unbound,
        f"{APP_ROLE} is a member of {SYSTEM_ROLE}": row.system,
        f"{APP_ROLE} sees partners in a transaction that has none": row.sees,
    }
    return [fault for fault, is_so in found.items() if is_so]


# All tables with a partner, including those of later releases. A policy for PUBLIC applies to our role too.
_TABLES = """
SELECT c.relname AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
    pg_has_role(CAST(:app AS name), c.relowner, 'MEMBER') AS owned,
    coalesce(bool_or(mine AND bound), false) AS bounded,
    coalesce(bool_or(mine AND NOT bound), false) AS leaking,
    coalesce(bool_or(systems), false) AS served
FROM pg_class c
LEFT JOIN LATERAL (
    SELECT p.roles && ARRAY[CAST(:app AS name), 'public'] AND p.permissive = 'PERMISSIVE' AS mine,
        p.roles && ARRAY[CAST(:system AS name), 'public'] AS systems,
        position('registrar.partner_id' IN coalesce(p.qual, p.with_check)) > 0
        AND position('registrar.partner_id' IN coalesce(p.with_check, p.qual)) > 0 AS bound
    FROM pg_policies p WHERE p.schemaname = 'public' AND p.tablename = c.relname
) AS policies ON true
WHERE c.relnamespace = CAST('public' AS regnamespace) AND c.relkind IN ('r', 'p')
AND (c.relname = 'partners' OR EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'partner_id' AND NOT a.attisdropped))
GROUP BY c.oid, c.relname ORDER BY c.relname
"""


async def _table_faults(session: AsyncConnection) -> list[str]:
    tables = (await session.execute(text(_TABLES), {"app": APP_ROLE, "system": SYSTEM_ROLE})).all()
    wrong = {
        "row-level security is off on": [t.name for t in tables if not t.enabled],
        "row-level security is not forced on": [t.name for t in tables if not t.forced],
        f"no policy binds {APP_ROLE} to a partner on": [t.name for t in tables if not t.bounded],
        f"a policy shows {APP_ROLE} every partner's rows of": [t.name for t in tables if t.leaking],
        f"no policy lets {SYSTEM_ROLE} work on": [t.name for t in tables if not t.served],
        f"{APP_ROLE} owns": [t.name for t in tables if t.owned],
    }
    return [f"{fault} {', '.join(names)}" for fault, names in wrong.items() if names]

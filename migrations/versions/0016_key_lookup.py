"""A function that finds an API key, so that a call is authenticated with one statement and no transaction.

Only expands. The function takes the system's role for its own duration; that asks for no right that the login does
not have already, because PostgreSQL lets a session take those roles only that its login is a member of.
"""

from collections.abc import Sequence

from alembic import op

from app.db import table_locks

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS: dict[str, str] = {}

FUNCTION = """
CREATE FUNCTION find_api_key(sought text) RETURNS TABLE (
    id uuid, partner_id uuid, name text, prefix text, secret_digest bytea, scopes text[],
    expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz,
    partner_role text, partner_name text
) LANGUAGE sql STABLE SET role = 'registrar_system' SET search_path = public, pg_temp AS $$
    SELECT k.id, k.partner_id, k.name, k.prefix, k.secret_digest, k.scopes,
        k.expires_at, k.revoked_at, k.last_used_at, p.role, p.name
    FROM api_keys k JOIN partners p ON p.id = k.partner_id WHERE k.prefix = sought
$$
"""


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    # It would be checked in the role that it takes, which may not run it yet.
    op.execute("SET LOCAL check_function_bodies = off")
    op.execute(FUNCTION)
    op.execute("SET LOCAL check_function_bodies = on")
    op.execute("REVOKE ALL ON FUNCTION find_api_key(text) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION find_api_key(text) TO registrar_app, registrar_system")


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.execute("DROP FUNCTION find_api_key(text)")

"""Walls for everybody: row-level security is forced, and PUBLIC may do nothing.

Forced, the policies bind the owner of the tables too. It sees rows through its membership in
`registrar_system`, as do the functions that run as the owner; backups ask for that role
(docs/install.md). What PUBLIC could do: connect, make a temporary table, and hang a function of ours on
it that deletes hashes as the owner. Such a function now serves its own table only.

The rights of the database itself are not here: no backup holds them, so `registrar migrate` sees to them
every time (`app.db.schema`).
"""

from collections.abc import Sequence

from alembic import op

from app.db import table_locks

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OWNER_SEES_ROWS = """
DO $$
BEGIN
    IF NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)
    AND NOT pg_has_role(current_user, 'registrar_system', 'USAGE') THEN
        RAISE EXCEPTION 'the login % owns the tables and must inherit registrar_system: an administrator runs '
            'ALTER ROLE % INHERIT; GRANT registrar_system TO %;', current_user, current_user, current_user
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$
"""

TABLES = """
    SELECT c.relname AS name FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    AND (c.relname = 'partners' OR EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attname = 'partner_id' AND NOT a.attisdropped))
"""

FORCED = f"""
DO $$
DECLARE
    walled record;
BEGIN
    FOR walled IN {TABLES} LOOP
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', walled.name);
    END LOOP;
END $$
"""

SCHEMA = """
DO $$
BEGIN
    IF pg_has_role(current_user, (SELECT nspowner FROM pg_namespace WHERE nspname = 'public'), 'USAGE') THEN
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
    END IF;
END $$
"""

FUNCTIONS = """
DO $$
DECLARE
    ours record;
BEGIN
    FOR ours IN SELECT p.oid::regprocedure AS signature FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND pg_has_role(current_user, p.proowner, 'USAGE')
    LOOP
        EXECUTE format('{verb} EXECUTE ON ROUTINE %s {to} PUBLIC', ours.signature);
    END LOOP;
END $$
"""

# As in 0003. Without a name of an index to look up by, the partner cannot become what rows are searched by.
BY_INDEX = (
    "SECURITY DEFINER SET search_path = public, pg_temp "
    "SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off"
)

GUARD = """
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> '{table}' THEN
        RAISE insufficient_privilege USING MESSAGE = 'this function serves the table {table} only';
    END IF;"""


def check_registrations(guard: str) -> str:
    return f"""
CREATE OR REPLACE FUNCTION check_registrations() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN{guard}
    PERFORM FROM orders
    WHERE id IN (SELECT order_id FROM new_rows) ORDER BY id FOR KEY SHARE;
    PERFORM FROM batches
    WHERE id IN (SELECT batch_id FROM new_rows) ORDER BY id FOR KEY SHARE;
    IF EXISTS (
        SELECT FROM (
            SELECT DISTINCT partner_id, order_id, customer_id, batch_id FROM new_rows
        ) AS r
        LEFT JOIN orders o ON o.id = r.order_id LEFT JOIN batches b ON b.id = r.batch_id
        WHERE (o.partner_id, o.customer_id) IS DISTINCT FROM (r.partner_id, r.customer_id)
        OR r.batch_id IS NOT NULL
        AND (b.partner_id, b.order_id) IS DISTINCT FROM (r.partner_id, r.order_id)
    ) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a registration without its order, customer or batch';
    END IF;
    RETURN NULL;
END $$
"""


def check_moved_registration(guard: str) -> str:
    return f"""
CREATE OR REPLACE FUNCTION check_moved_registration() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN{guard}
    PERFORM FROM orders o WHERE o.id = NEW.order_id
    AND o.partner_id = NEW.partner_id AND o.customer_id = NEW.customer_id FOR KEY SHARE;
    IF FOUND AND NEW.batch_id IS NOT NULL THEN
        PERFORM FROM batches b WHERE b.id = NEW.batch_id
        AND b.partner_id = NEW.partner_id AND b.order_id = NEW.order_id FOR KEY SHARE;
    END IF;
    IF NOT FOUND THEN
        RAISE foreign_key_violation USING MESSAGE = 'a registration without its order, customer or batch';
    END IF;
    RETURN NULL;
END $$
"""


def check_device_hashes(guard: str) -> str:
    return f"""
CREATE OR REPLACE FUNCTION check_device_hashes() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN{guard}
    IF EXISTS (
        SELECT FROM new_rows h LEFT JOIN registrations r ON r.id = h.registration_id
        WHERE r.partner_id IS DISTINCT FROM h.partner_id
    ) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a hash without its registration';
    END IF;
    RETURN NULL;
END $$
"""


def keep_batches_of_registrations(guard: str) -> str:
    return f"""
CREATE OR REPLACE FUNCTION keep_batches_of_registrations() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN{guard}
    IF EXISTS (SELECT FROM registrations r JOIN old_rows b ON b.id = r.batch_id) THEN
        RAISE foreign_key_violation USING MESSAGE = 'the batch has registrations';
    END IF;
    RETURN NULL;
END $$
"""


def delete_hashes_of_registrations(guard: str) -> str:
    # Not `=`: no plan may look for hashes by their partner.
    same_partner = "AND h.partner_id IS NOT DISTINCT FROM r.partner_id" if guard else ""
    return f"""
CREATE OR REPLACE FUNCTION delete_hashes_of_registrations() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN{guard}
    DELETE FROM device_hashes h USING old_rows r WHERE h.registration_id = r.id {same_partner};
    RETURN NULL;
END $$
"""


DEFINERS = {
    check_registrations: "registrations",
    check_moved_registration: "registrations",
    check_device_hashes: "device_hashes",
    keep_batches_of_registrations: "batches",
    delete_hashes_of_registrations: "registrations",
}
"""Functions that run as the owner, and the table each one serves."""


def upgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.execute(OWNER_SEES_ROWS)
    op.execute(FORCED)
    for definition, table in DEFINERS.items():
        op.execute(definition(GUARD.format(table=table)))
    op.execute(FUNCTIONS.format(verb="REVOKE", to="FROM"))
    for kind, right in (("FUNCTIONS", "EXECUTE"), ("TYPES", "USAGE")):
        op.execute(f"ALTER DEFAULT PRIVILEGES REVOKE {right} ON {kind} FROM PUBLIC")
    op.execute(SCHEMA)


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    for kind, right in (("FUNCTIONS", "EXECUTE"), ("TYPES", "USAGE")):
        op.execute(f"ALTER DEFAULT PRIVILEGES GRANT {right} ON {kind} TO PUBLIC")
    op.execute(FUNCTIONS.format(verb="GRANT", to="TO"))
    for definition in DEFINERS:
        op.execute(definition(""))
    op.execute(FORCED.replace(" FORCE ROW", " NO FORCE ROW"))

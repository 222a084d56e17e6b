"""Roles, row-level security and the triggers that keep counts of registrations.

`registrar_app` sees only the partner that is set in its transaction; `registrar_system` sees all
and is entered with SET LOCAL ROLE by claims, sweeps and authentication. Neither owns a table. A
login without CREATEROLE needs both roles to be made and granted to it beforehand (docs/install.md).
"""

from collections.abc import Sequence

from alembic import op

from app.db import table_locks

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OWNED = (
    "api_keys",
    "connections",
    "customers",
    "consents",
    "consent_changes",
    "orders",
    "batches",
    "registrations",
    "device_hashes",
    "registration_counts",
    "batch_attempts",
    "group_tags",
    "events",
    "webhook_endpoints",
    "deliveries",
    "delivery_attempts",
    "idempotency_keys",
)

ROLES = """
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['registrar_app', 'registrar_system'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database of this server is being migrated at the same time
            END;
        END IF;
        -- SET ROLE asks for membership of the login itself; being superuser shows as member too.
        IF NOT EXISTS (
            SELECT FROM pg_auth_members m
            JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
            WHERE r.rolname = role_name AND u.rolname = current_user AND NOT m.admin_option
        ) AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            EXECUTE format('GRANT %I TO %I', role_name, current_user);
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role_name);
        EXECUTE format(
            'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO %I', role_name
        );
        EXECUTE format(
            'ALTER DEFAULT PRIVILEGES IN SCHEMA public '
            'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %I', role_name
        );
    END LOOP;
    -- A transaction turns from registrar_app into registrar_system; never the other way round.
    REVOKE ALL ON alembic_version FROM registrar_app, registrar_system;
    GRANT SELECT ON alembic_version TO registrar_app, registrar_system;
END $$
"""

# The sub-select makes PostgreSQL read the setting once a statement instead of once a row.
MINE = "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid)"

COUNT_INSERTS = """
CREATE FUNCTION count_inserted_registrations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO registration_counts AS counts (partner_id, order_id, bucket, state, n)
    SELECT partner_id, order_id, coalesce(batch_id, order_id), state, count(*)
    FROM new_rows GROUP BY 1, 2, 3, 4 ORDER BY 2, 3, 4
    ON CONFLICT (order_id, bucket, state) DO UPDATE SET n = counts.n + excluded.n;
    RETURN NULL;
END $$
"""

COUNT_UPDATES = """
CREATE FUNCTION count_updated_registrations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO registration_counts AS counts (partner_id, order_id, bucket, state, n)
    SELECT partner_id, order_id, bucket, state, sum(change)
    FROM (
        SELECT partner_id, order_id, coalesce(batch_id, order_id) AS bucket, state, 1 AS change
        FROM new_rows
        UNION ALL
        SELECT partner_id, order_id, coalesce(batch_id, order_id), state, -1 FROM old_rows
    ) AS changes
    GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0 ORDER BY 2, 3, 4
    ON CONFLICT (order_id, bucket, state) DO UPDATE SET n = counts.n + excluded.n;
    RETURN NULL;
END $$
"""

# Only takes away: when an order goes with all its rows, its counts may be gone before them.
COUNT_DELETES = """
CREATE FUNCTION count_deleted_registrations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE registration_counts AS counts SET n = counts.n - gone.n
    FROM (
        SELECT order_id, coalesce(batch_id, order_id) AS bucket, state, count(*) AS n
        FROM old_rows GROUP BY 1, 2, 3
    ) AS gone
    WHERE (counts.order_id, counts.bucket, counts.state) = (gone.order_id, gone.bucket, gone.state);
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.execute(ROLES)
    for table in (*OWNED, "partners"):
        column = "id" if table == "partners" else "partner_id"
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_rows ON {table} TO registrar_app USING ({column} = {MINE})")
        op.execute(f"CREATE POLICY every_row ON {table} TO registrar_system USING (true)")
    op.execute(COUNT_INSERTS)
    op.execute(COUNT_UPDATES)
    op.execute(COUNT_DELETES)
    op.execute(
        "CREATE TRIGGER count_inserted AFTER INSERT ON registrations "
        "REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_inserted_registrations()"
    )
    op.execute(
        "CREATE TRIGGER count_updated AFTER UPDATE ON registrations "
        "REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_updated_registrations()"
    )
    op.execute(
        "CREATE TRIGGER count_deleted AFTER DELETE ON registrations "
        "REFERENCING OLD TABLE AS old_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_registrations()"
    )


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    for word in ("inserted", "updated", "deleted"):
        op.execute(f"DROP TRIGGER count_{word} ON registrations")
        op.execute(f"DROP FUNCTION count_{word}_registrations()")
    for table in (*OWNED, "partners"):
        op.execute(f"DROP POLICY own_rows ON {table}")
        op.execute(f"DROP POLICY every_row ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")

"""Quotas: what the operator has set for a partner, and counts of what is too much to count each time.

The counts are kept by triggers, so that what the release before writes is counted as well.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "partners": table_locks.REFERENCE,
    "customers": table_locks.REFERENCE,
    "idempotency_keys": table_locks.REFERENCE,
    "orders": table_locks.REFERENCE,
    "imports": table_locks.READ,
}

# The sub-select makes PostgreSQL read the setting once a statement instead of once a row.
MINE = "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid)"

OWNED = ("partner_quotas", "partner_uses")
COUNTED = {"customers": "customers", "idempotency_keys": "idempotency_answers"}
"""The table whose rows are counted, and the quota they count for."""

COUNT_MADE = """
CREATE FUNCTION count_use_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO partner_uses AS uses (partner_id, quota, used)
    SELECT partner_id, TG_ARGV[0], count(*) FROM new_rows GROUP BY 1 ORDER BY 1
    ON CONFLICT (partner_id, quota) DO UPDATE SET used = uses.used + excluded.used;
    RETURN NULL;
END $$
"""

# Only takes away: when a partner goes with all its rows, its counts may be gone before them. Locked in one
# order first: a statement of the system may take rows of several partners away.
COUNT_GONE = """
CREATE FUNCTION count_use_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM partner_uses
    WHERE quota = TG_ARGV[0] AND partner_id IN (SELECT partner_id FROM old_rows)
    ORDER BY partner_id FOR UPDATE;
    UPDATE partner_uses AS uses SET used = uses.used - gone.n
    FROM (SELECT partner_id, count(*) AS n FROM old_rows GROUP BY 1) AS gone
    WHERE uses.quota = TG_ARGV[0] AND uses.partner_id = gone.partner_id;
    RETURN NULL;
END $$
"""

# Deferred to the commit: storing an order takes seconds, and the partner's other orders do not wait for it.
COUNT_ORDERED = """
CREATE FUNCTION count_devices_ordered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO partner_uses AS uses (partner_id, quota, used)
    VALUES (NEW.partner_id, 'devices', NEW.device_count)
    ON CONFLICT (partner_id, quota) DO UPDATE SET used = uses.used + excluded.used;
    RETURN NULL;
END $$
"""

COUNT_ORDERS_GONE = """
CREATE FUNCTION count_devices_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE partner_uses AS uses SET used = uses.used - gone.n
    FROM (SELECT partner_id, sum(device_count) AS n FROM old_rows GROUP BY 1) AS gone
    WHERE uses.quota = 'devices' AND uses.partner_id = gone.partner_id;
    RETURN NULL;
END $$
"""


def _table(name: str, *columns: sa.Column[object], comment: str) -> None:
    op.create_table(
        name,
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("quota", sa.Text(), nullable=False),
        *columns,
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f(f"fk_{name}_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("partner_id", "quota", name=op.f(f"pk_{name}")),
        comment=comment,
    )


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    _table(
        "partner_quotas",
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        comment="what the operator has set; of the others the settings say it",
    )
    _table(
        "partner_uses",
        sa.Column("used", sa.BigInteger(), nullable=False),
        comment="kept by triggers on customers, idempotency_keys and orders, in the same transaction",
    )
    for table in OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_rows ON {table} TO registrar_app USING (partner_id = {MINE})")
        op.execute(f"CREATE POLICY every_row ON {table} TO registrar_system USING (true)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO registrar_app, registrar_system")
    op.execute(COUNT_MADE)
    op.execute(COUNT_GONE)
    for table, quota in COUNTED.items():
        # From the trigger on, nobody writes to the table until this migration is done: no row is missed.
        op.execute(
            f"CREATE TRIGGER count_made AFTER INSERT ON {table} REFERENCING NEW TABLE AS new_rows "
            f"FOR EACH STATEMENT EXECUTE FUNCTION count_use_made('{quota}')"
        )
        op.execute(
            f"CREATE TRIGGER count_gone AFTER DELETE ON {table} REFERENCING OLD TABLE AS old_rows "
            f"FOR EACH STATEMENT EXECUTE FUNCTION count_use_gone('{quota}')"
        )
        op.execute(
            "INSERT INTO partner_uses (partner_id, quota, used) "
            f"SELECT partner_id, '{quota}', count(*) FROM {table} GROUP BY partner_id"
        )
    op.execute(COUNT_ORDERED)
    op.execute(COUNT_ORDERS_GONE)
    op.execute(
        "CREATE CONSTRAINT TRIGGER count_made AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION count_devices_ordered()"
    )
    op.execute(
        "CREATE TRIGGER count_gone AFTER DELETE ON orders REFERENCING OLD TABLE AS old_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_devices_gone()"
    )
    op.execute(
        "INSERT INTO partner_uses (partner_id, quota, used) "
        "SELECT partner_id, 'devices', sum(device_count) FROM orders GROUP BY partner_id"
    )
    op.create_index(
        "ix_imports_partner_id_staged",
        "imports",
        ["partner_id"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.drop_index("ix_imports_partner_id_staged", table_name="imports")
    for table in ("orders", *COUNTED):
        op.execute(f"DROP TRIGGER count_gone ON {table}")
        op.execute(f"DROP TRIGGER count_made ON {table}")
    op.execute("DROP FUNCTION count_devices_gone()")
    op.execute("DROP FUNCTION count_devices_ordered()")
    op.execute("DROP FUNCTION count_use_gone()")
    op.execute("DROP FUNCTION count_use_made()")
    for table in reversed(OWNED):
        op.drop_table(table)

"""Keys that replace each other, removals under way, and values sealed to their rows.

Only expands. `hashes:read` is given to the keys that could read hashes until now: they go on doing what they did.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "partners": table_locks.REFERENCE,
    "connections": table_locks.REFERENCE,
    "customers": table_locks.REFERENCE,
    "orders": table_locks.REFERENCE,
    "batches": table_locks.REFERENCE,
    "api_keys": table_locks.UPDATE,
    "imports": table_locks.REFERENCE,
    "webhook_endpoints": table_locks.REFERENCE,
    "vendor_profiles": table_locks.REFERENCE,
}

OWNED = ("api_key_successors", "removals")
MINE = "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid)"

# The condition under which a new row is refused, by the function that has it. The mark was set by who had locked the
# parent's row, and a foreign key waits for that lock: named zz, the trigger runs after those and sees the mark.
REFUSED = {
    "refuse_of_removed_partner": ("NEW.partner_id", ("imports", "connections", "webhook_endpoints",
                                                     "vendor_profiles", "api_keys")),
    "refuse_of_removed_connection": ("NEW.partner_id, NEW.connection_id", ("customers",)),
    "refuse_of_removed_customer": ("NEW.partner_id, NEW.connection_id, NEW.customer_id", ("orders", "batches")),
}  # fmt: skip
FUNCTION = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM removals WHERE partner_id = NEW.partner_id AND subject IN ({subjects})) THEN
        RAISE EXCEPTION 'it is being removed' USING ERRCODE = 'RG001';
    END IF;
    RETURN NULL;
END $$
"""
COULD_READ_HASHES = "scopes && ARRAY['orders:read', 'orders:write'] AND NOT 'hashes:read' = ANY (scopes)"


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.create_table(
        "api_key_successors",
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("successor_id", sa.Uuid(), nullable=False),
        sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "key_id"],
            ["api_keys.partner_id", "api_keys.id"],
            name=op.f("fk_api_key_successors_partner_id_key_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "successor_id"],
            ["api_keys.partner_id", "api_keys.id"],
            name=op.f("fk_api_key_successors_partner_id_successor_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_api_key_successors_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_key_successors")),
    )
    op.create_table(
        "removals",
        sa.Column("subject", sa.Uuid(), nullable=False, comment="the partner, connection or customer"),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_removals_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_removals")),
    )
    for table in OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_rows ON {table} TO registrar_app USING (partner_id = {MINE})")
        op.execute(f"CREATE POLICY every_row ON {table} TO registrar_system USING (true)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO registrar_app, registrar_system")
    for name, (subjects, tables) in REFUSED.items():
        op.execute(FUNCTION.format(name=name, subjects=subjects))
        op.execute(f"REVOKE ALL ON FUNCTION {name}() FROM PUBLIC")
        for table in tables:
            op.execute(
                f"CREATE TRIGGER zz_refuse_removed AFTER INSERT ON {table} "
                f"FOR EACH ROW EXECUTE FUNCTION {name}()"
            )
    op.create_table(
        "row_sealing",
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("since", name=op.f("pk_row_sealing")),
        comment="a row: values are sealed to their row; none: the release before may have to open them",
    )
    op.execute("REVOKE ALL ON row_sealing FROM registrar_app, registrar_system")
    op.execute("GRANT SELECT ON row_sealing TO registrar_app")
    op.execute("GRANT SELECT, INSERT ON row_sealing TO registrar_system")
    # Where nobody is yet, no process of the release before is either.
    op.execute("INSERT INTO row_sealing SELECT now() WHERE NOT EXISTS (SELECT FROM partners)")
    op.execute(f"UPDATE api_keys SET scopes = array_append(scopes, 'hashes:read') WHERE {COULD_READ_HASHES}")


def downgrade() -> None:
    """What was sealed to its row does not open with the release before: those credentials have to be entered again."""
    table_locks.take_every_table(op.get_bind())
    op.drop_table("row_sealing")
    for name, (_, tables) in REFUSED.items():
        for table in tables:
            op.execute(f"DROP TRIGGER zz_refuse_removed ON {table}")
        op.execute(f"DROP FUNCTION {name}()")
    op.drop_table("removals")
    op.execute("UPDATE api_keys SET scopes = array_remove(scopes, 'hashes:read')")
    op.drop_table("api_key_successors")

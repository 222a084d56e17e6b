"""Webhooks: secrets that still sign after a rotation, endpoints that are deleted, and every type of event.

Only expands. Tables of their own, because the release before reads endpoints with all their columns. It goes
on with what it finds there: a deleted endpoint is disabled for it, and one for every type has `*` in front of
the types that it knows.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "partners": table_locks.REFERENCE,
    "webhook_endpoints": table_locks.UPDATE,
}

OWNED = ("webhook_secrets", "deleted_webhook_endpoints")
MINE = "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid)"
# What an endpoint for every type was stored with until now. One that has exactly these asked for all.
TYPES = (
    "ARRAY['consent.granted', 'consent.revoked', 'import.committed', 'import.ready', 'import.refused', "
    "'order.accepted', 'order.cancelled', 'order.completed', 'order.completed_with_errors', 'order.failed', "
    "'order.held', 'registration.settled']"
)


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.create_table(
        "webhook_secrets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False, comment="sealed"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "endpoint_id"],
            ["webhook_endpoints.partner_id", "webhook_endpoints.id"],
            name=op.f("fk_webhook_secrets_partner_id_endpoint_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_webhook_secrets_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_secrets")),
    )
    op.create_index("ix_webhook_secrets_endpoint_id", "webhook_secrets", ["endpoint_id"], unique=False)
    op.create_table(
        "deleted_webhook_endpoints",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "endpoint_id"],
            ["webhook_endpoints.partner_id", "webhook_endpoints.id"],
            name=op.f("fk_deleted_webhook_endpoints_partner_id_endpoint_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"],
            ["partners.id"],
            name=op.f("fk_deleted_webhook_endpoints_partner_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("endpoint_id", name=op.f("pk_deleted_webhook_endpoints")),
    )
    for table in OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_rows ON {table} TO registrar_app USING (partner_id = {MINE})")
        op.execute(f"CREATE POLICY every_row ON {table} TO registrar_system USING (true)")
        # Beside the default privileges, which only the login that made them passes on.
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO registrar_app, registrar_system")
    op.execute(
        "UPDATE webhook_endpoints SET event_types = array_prepend('*', event_types) "
        f"WHERE event_types @> {TYPES} AND event_types <@ {TYPES}"
    )


def downgrade() -> None:
    """What was deleted comes back as disabled, and a replaced secret signs no longer."""
    table_locks.take_every_table(op.get_bind())
    op.execute("UPDATE webhook_endpoints SET event_types = array_remove(event_types, '*')")
    for table in OWNED:
        op.execute(f"DROP POLICY own_rows ON {table}")
        op.execute(f"DROP POLICY every_row ON {table}")
    op.drop_table("deleted_webhook_endpoints")
    op.drop_index("ix_webhook_secrets_endpoint_id", table_name="webhook_secrets")
    op.drop_table("webhook_secrets")

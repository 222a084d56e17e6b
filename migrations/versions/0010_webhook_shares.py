"""Webhooks: pauses of endpoints that fail, networks of one partner, and the indexes of a fair claim.

Tables of their own, because the release before reads endpoints and partners with all their columns. It goes on
claiming by the age of a delivery, and what it claims counts in the shares of this release.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "partners": table_locks.REFERENCE,
    "webhook_endpoints": table_locks.REFERENCE,
    "deliveries": table_locks.READ,
}

OWNED = ("partner_networks", "webhook_pauses")
MINE = "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid)"


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.create_table(
        "partner_networks",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False, comment="CIDR that its webhooks may go to"),
        sa.Column("first_port", sa.Integer(), nullable=False),
        sa.Column("last_port", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_partner_networks_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "partner_id", "network", "first_port", "last_port", name=op.f("pk_partner_networks")
        ),
    )
    op.create_table(
        "webhook_pauses",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True, comment="of the next attempt"),
        sa.Column("full_since", sa.DateTime(timezone=True), nullable=True, comment="too much waits for it"),
        sa.ForeignKeyConstraint(
            ["partner_id", "endpoint_id"],
            ["webhook_endpoints.partner_id", "webhook_endpoints.id"],
            name=op.f("fk_webhook_pauses_partner_id_endpoint_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_webhook_pauses_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("endpoint_id", name=op.f("pk_webhook_pauses")),
    )
    for table in OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_rows ON {table} TO registrar_app USING (partner_id = {MINE})")
        op.execute(f"CREATE POLICY every_row ON {table} TO registrar_system USING (true)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO registrar_app, registrar_system")
    op.create_index(
        "ix_deliveries_partner_id_open",
        "deliveries",
        ["partner_id", "endpoint_id", "due_at", "id"],
        postgresql_where=sa.text("state IN ('pending', 'retrying')"),
    )
    op.create_index(
        "ix_deliveries_owner", "deliveries", ["owner"], postgresql_where=sa.text("owner IS NOT NULL")
    )


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.drop_index("ix_deliveries_owner", table_name="deliveries")
    op.drop_index("ix_deliveries_partner_id_open", table_name="deliveries")
    op.drop_table("webhook_pauses")
    op.drop_table("partner_networks")

"""Turns of partners: whose work was taken up last, with the indexes for claims and lists.

One kind of index finds a partner's next work, the other what a list is asked for.

A table of its own, because the release before reads partners and customers with all their columns. It goes
on with the turns of customers, which it shares with this release.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "partners": table_locks.REFERENCE,
    "customers": table_locks.READ,
    "orders": table_locks.READ,
    "batches": table_locks.READ,
}

MINE = "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid)"
LISTED = (
    ("orders", ["partner_id", "customer_id", "id"], None),
    ("orders", ["partner_id", "announced_state", "id"], None),
    ("orders", ["partner_id", "purchase_order", "id"], "purchase_order IS NOT NULL"),
    ("batches", ["order_id", "id"], None),
    ("batches", ["partner_id", "customer_id", "id"], None),
    ("batches", ["partner_id", "state", "id"], None),
    ("customers", ["partner_id", "entra_tenant_id"], None),
)
UNDER_WAY = "state IN ('submitted', 'submitting', 'unknown')"


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.create_table(
        "partner_turns",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="of work"),
        sa.Column("last_turn_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("after_id", sa.Uuid(), nullable=True, comment="what the partner's last turn was for"),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_partner_turns_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("partner_id", "kind", name=op.f("pk_partner_turns")),
    )
    op.execute("ALTER TABLE partner_turns ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE partner_turns FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY own_rows ON partner_turns TO registrar_app USING (partner_id = {MINE})")
    op.execute("CREATE POLICY every_row ON partner_turns TO registrar_system USING (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON partner_turns TO registrar_app, registrar_system")
    op.create_index(
        "ix_batches_partner_id_queued",
        "batches",
        ["partner_id", "customer_id", "due_at", "id"],
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_batches_partner_id_under_way",
        "batches",
        ["partner_id", "due_at", "id"],
        postgresql_where=sa.text(UNDER_WAY),
    )
    for table, columns, where in LISTED:
        condition = None if where is None else sa.text(where)
        name = f"ix_{table}_{'_'.join(columns)}"
        op.create_index(name, table, columns, postgresql_where=condition)


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    for table, columns, _ in LISTED:
        op.drop_index(f"ix_{table}_{'_'.join(columns)}", table_name=table)
    op.drop_index("ix_batches_partner_id_under_way", table_name="batches")
    op.drop_index("ix_batches_partner_id_queued", table_name="batches")
    op.drop_table("partner_turns")

"""Takes away the indexes that a longer one of migration 0011 replaces.

Apart from it: building an index lets callers read the table meanwhile, taking one away does not.
"""

from collections.abc import Sequence

from alembic import op

from app.db import table_locks

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {"orders": table_locks.ALTER, "batches": table_locks.ALTER}
REPLACED = (
    ("ix_orders_partner_id_customer_id", "orders", ["partner_id", "customer_id"]),
    ("ix_batches_order_id", "batches", ["order_id"]),
)


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    for name, table, _ in REPLACED:
        op.drop_index(name, table_name=table)


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    for name, table, columns in REPLACED:
        op.create_index(name, table, columns)

"""Indexes for claims, which walk from one partner, connection or customer to the next.

They stay cheap whatever waits for each. Others tell whether an API key is named as the author of something.

The indexes by which the release before claims stay. A plain CREATE INDEX keeps writers waiting while it is made;
these tables have few rows beside those of devices.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "orders": table_locks.READ,
    "batches": table_locks.READ,
    "batch_attempts": table_locks.READ,
    "consent_changes": table_locks.READ,
    "imports": table_locks.READ,
}
QUEUED = "state = 'queued'"
UNDER_WAY = "state IN ('submitted', 'submitting', 'unknown')"
INDEXES = (
    ("ix_batches_partner_id_due", "batches", ["partner_id", "due_at"], QUEUED),
    (
        "ix_batches_partner_id_waiting",
        "batches",
        ["partner_id", "connection_id", "customer_id", "due_at", "id"],
        QUEUED,
    ),
    ("ix_batches_connection_id_under_way", "batches", ["connection_id", "customer_id", "id"], UNDER_WAY),
    ("ix_imports_partner_id_due", "imports", ["partner_id", "due_at", "id"], "due_at IS NOT NULL"),
    ("ix_imports_leased", "imports", ["lease_until"], "lease_until IS NOT NULL"),
    ("ix_imports_created_by", "imports", ["created_by"], "created_by IS NOT NULL"),
    ("ix_orders_created_by", "orders", ["created_by"], "created_by IS NOT NULL"),
    ("ix_consent_changes_made_by", "consent_changes", ["made_by"], "made_by IS NOT NULL"),
    ("ix_batch_attempts_made_by", "batch_attempts", ["made_by"], "made_by IS NOT NULL"),
)


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    for name, table, columns, where in INDEXES:
        op.create_index(name, table, columns, postgresql_where=sa.text(where))


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table_name=table)

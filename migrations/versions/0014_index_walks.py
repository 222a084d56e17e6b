"""Indexes that claims walk from one partner, connection or customer to the next, whatever waits for each.

Those that the release before claims by stay. A plain CREATE INDEX keeps writers waiting while it is made; both
tables have few rows beside those of devices.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

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
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, table, columns, where in INDEXES:
        op.create_index(name, table, columns, postgresql_where=sa.text(where))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table_name=table)

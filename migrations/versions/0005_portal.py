"""Portal mode: connections whose orders are files, and who recorded what by hand.

Only expands: a portal connection has no credentials, every other one still needs both.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "connections": table_locks.ALTER,
    "consent_changes": table_locks.ALTER,
    "batch_attempts": table_locks.ALTER,
}

CREDENTIALS = "ck_connections_credentials_given"
BY = "the API key of who recorded it by hand"


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.alter_column("connections", "client_id", nullable=True)
    op.alter_column("connections", "client_secret", nullable=True)
    op.create_check_constraint(
        op.f(CREDENTIALS), "connections", "(client_id IS NULL) = (client_secret IS NULL)"
    )
    op.create_index(
        "ix_connections_portal", "connections", ["id"], postgresql_where=sa.text("client_id IS NULL")
    )
    note = sa.Column("note", sa.Text(), comment="what a person wrote down with it")
    op.add_column("consent_changes", note)
    op.add_column("consent_changes", sa.Column("made_by", sa.Uuid(), comment=BY))
    op.add_column("batch_attempts", sa.Column("made_by", sa.Uuid(), comment=BY))


def downgrade() -> None:
    """Fails while there are portal connections: what they lack cannot be made up."""
    table_locks.take_every_table(op.get_bind())
    op.drop_column("batch_attempts", "made_by")
    op.drop_column("consent_changes", "made_by")
    op.drop_column("consent_changes", "note")
    op.drop_constraint(op.f(CREDENTIALS), "connections")
    op.alter_column("connections", "client_secret", nullable=False)
    op.alter_column("connections", "client_id", nullable=False)
    op.drop_index("ix_connections_portal", "connections")

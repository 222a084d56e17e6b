"""A partner's registrations by age: lists and searches step through its own rows and nobody else's.

Expand only: an index. While it is built (about a second for a million rows) writers of the table wait.
"""

from collections.abc import Sequence

from alembic import op

from app.db import table_locks

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "registrations": table_locks.READ,
}

NAME = "ix_registrations_partner_id_id"


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.create_index(NAME, "registrations", ["partner_id", "id"])


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.drop_index(NAME, "registrations")

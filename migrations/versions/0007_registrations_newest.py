"""A partner's registrations by age: lists and searches step through its own rows and nobody else's.

Expand only: an index. While it is built (about a second for a million rows) writers of the table wait.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

NAME = "ix_registrations_partner_id_id"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index(NAME, "registrations", ["partner_id", "id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index(NAME, "registrations")

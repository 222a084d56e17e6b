"""${message}

Expand first, contract in a later release: the workers of the release before still run on this schema.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

from app.db import table_locks
${imports if imports else ""}

revision: str = ${repr(up_revision)}
down_revision: str | None = ${repr(down_revision)}
branch_labels: str | Sequence[str] | None = ${repr(branch_labels)}
depends_on: str | Sequence[str] | None = ${repr(depends_on)}

# The tables that were there before and that this changes, each with the weakest lock that is enough.
LOCKS: dict[str, str] = {}


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    ${downgrades if downgrades else "pass"}

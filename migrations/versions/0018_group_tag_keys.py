"""Group tags by Unicode's case folding, and an index of those that are being created.

The key was the tag in small letters: `großkunden` beside `grosskunden`. A row whose key is another one now gets it;
of two rows that become one, the tag that Partner Center is known to have stays. The release before makes rows with
its own keys as long as it runs; such a tag is found at Partner Center once more. Only expands.
"""

import unicodedata
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Connection, text

from app.db import table_locks

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {"group_tags": table_locks.UPDATE}


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.create_index(
        "ix_group_tags_creating",
        "group_tags",
        ["partner_id", "creating_batch_id"],
        postgresql_where=sa.text("creating_batch_id IS NOT NULL"),
    )
    _rekey(op.get_bind())


def _rekey(connection: Connection) -> None:
    # Keys of ASCII letters are the same as before.
    rows = connection.execute(
        text(
            "SELECT customer_id, tag_key FROM group_tags WHERE octet_length(tag_key) > length(tag_key) "
            "ORDER BY known DESC, customer_id, tag_key"
        )
    )
    for customer_id, before in rows.all():
        key = unicodedata.normalize("NFC", before).casefold()
        if key == before:
            continue
        given = {"customer": customer_id, "before": before, "key": key}
        # A tag that is not known to be there gives way to the one that is.
        connection.execute(
            text(
                "DELETE FROM group_tags t USING group_tags old WHERE t.customer_id = :customer "
                "AND t.tag_key = :key AND NOT t.known AND old.customer_id = :customer "
                "AND old.tag_key = :before AND old.known"
            ),
            given,
        )
        moved = connection.execute(
            text(
                "UPDATE group_tags SET tag_key = :key WHERE customer_id = :customer AND tag_key = :before "
                "AND NOT EXISTS (SELECT FROM group_tags WHERE customer_id = :customer AND tag_key = :key)"
            ),
            given,
        )
        if not moved.rowcount:
            connection.execute(
                text("DELETE FROM group_tags WHERE customer_id = :customer AND tag_key = :before"), given
            )


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.drop_index("ix_group_tags_creating", "group_tags")

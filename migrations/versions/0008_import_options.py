"""Import options: the sheet to read, and whether hidden rows count.

In a table of its own: the release before reads imports with all their columns.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db import table_locks

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "partners": table_locks.REFERENCE,
    "imports": table_locks.REFERENCE,
}

# The sub-select makes PostgreSQL read the setting once a statement instead of once a row.
MINE = "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid)"


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.create_table(
        "import_options",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "import_id"],
            ["imports.partner_id", "imports.id"],
            name=op.f("fk_import_options_partner_id_import_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_import_options_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("import_id", name=op.f("pk_import_options")),
    )
    op.execute("ALTER TABLE import_options ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY own_rows ON import_options TO registrar_app USING (partner_id = {MINE})")
    op.execute("CREATE POLICY every_row ON import_options TO registrar_system USING (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON import_options TO registrar_app, registrar_system")


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.drop_table("import_options")

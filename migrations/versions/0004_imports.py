"""Imports: files, their rows while they are looked at, the orders made of them; vendor profiles.

Pieces of files are compressed before they come here, so PostgreSQL is told not to try it again.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db import table_locks

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "partners": table_locks.REFERENCE,
    "customers": table_locks.REFERENCE,
    "orders": table_locks.REFERENCE,
    "registrations": table_locks.ALTER,
}

OWNED = ("vendor_profiles", "imports", "import_pieces", "import_rows", "import_hashes", "import_orders")

# The sub-select makes PostgreSQL read the setting once a statement instead of once a row.
MINE = "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid)"


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.create_table(
        "vendor_profiles",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("definition", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_vendor_profiles_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vendor_profiles")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_vendor_profiles_partner_id_id")),
        sa.UniqueConstraint("partner_id", "name", name=op.f("uq_vendor_profiles_partner_id_name")),
    )
    op.create_table(
        "imports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "digest", sa.LargeBinary(), nullable=True, comment="SHA-256 of the file; null while it arrives"
        ),
        sa.Column(
            "customer_id", sa.Uuid(), nullable=True, comment="null: the file names the customer of each row"
        ),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("purchase_order", sa.Text(), nullable=True),
        sa.Column("group_tag", sa.Text(), nullable=True),
        sa.Column("profile_name", sa.Text(), nullable=True),
        sa.Column(
            "profile",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="the vendor profile as it was when the file came",
        ),
        sa.Column("dialect", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("rows_read", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes_read", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "counts", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="rows by verdict"
        ),
        sa.Column(
            "summary",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="what committing would do",
        ),
        sa.Column("on_invalid", sa.Text(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_said", sa.Text(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("owner", sa.Uuid(), nullable=True, comment="fencing token of the present claim"),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('committed', 'committing', 'discarded', 'expired', 'reading', 'ready', 'ready_with_errors', 'refused', 'uploaded', 'uploading')",
            name=op.f("ck_imports_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "customer_id"],
            ["customers.partner_id", "customers.id"],
            name=op.f("fk_imports_partner_id_customer_id"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_imports_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_imports_partner_id_id")),
    )
    op.create_index(
        "ix_imports_due_at",
        "imports",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "import_hashes",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False, comment="the hash without its zero fill"),
        sa.ForeignKeyConstraint(
            ["partner_id", "import_id"],
            ["imports.partner_id", "imports.id"],
            name=op.f("fk_import_hashes_partner_id_import_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("import_id", "row_number", name=op.f("pk_import_hashes")),
    )
    op.create_table(
        "import_orders",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("suffix", sa.Text(), nullable=False, comment="of the customer: one order each"),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "customer_id"],
            ["customers.partner_id", "customers.id"],
            name=op.f("fk_import_orders_partner_id_customer_id"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "import_id"],
            ["imports.partner_id", "imports.id"],
            name=op.f("fk_import_orders_partner_id_import_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "order_id"],
            ["orders.partner_id", "orders.id"],
            name=op.f("fk_import_orders_partner_id_order_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_import_orders_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("import_id", "suffix", name=op.f("pk_import_orders")),
    )
    op.create_index("ix_import_orders_order_id", "import_orders", ["order_id"], unique=False)
    op.create_table(
        "import_pieces",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False, comment="zlib"),
        sa.ForeignKeyConstraint(
            ["partner_id", "import_id"],
            ["imports.partner_id", "imports.id"],
            name=op.f("fk_import_pieces_partner_id_import_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_import_pieces_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("import_id", "number", name=op.f("pk_import_pieces")),
    )
    op.create_table(
        "import_rows",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False, comment="that its registration will have"),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column(
            "changed",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="since the preview",
        ),
        sa.Column("customer_id", sa.Uuid(), nullable=True),
        sa.Column("group_tag", sa.Text(), nullable=True),
        sa.Column(
            "batch_part",
            sa.Integer(),
            nullable=True,
            comment="which batch of its customer and tag; null when invalid",
        ),
        sa.Column("batch_position", sa.Integer(), nullable=True),
        sa.Column("line_ref", sa.Text(), nullable=True),
        sa.Column("purchase_order", sa.Text(), nullable=True),
        sa.Column("identity", sa.Text(), nullable=True),
        sa.Column("serial_number", sa.Text(), nullable=True),
        sa.Column("manufacturer", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("product_key", sa.Text(), nullable=True),
        sa.Column("findings", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column(
            "original", sa.Text(), nullable=False, comment="JSON array of cells; null for the staged hash"
        ),
        sa.CheckConstraint(
            "verdict IN ('invalid', 'valid', 'warning')", name=op.f("ck_import_rows_verdict_known")
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "import_id"],
            ["imports.partner_id", "imports.id"],
            name=op.f("fk_import_rows_partner_id_import_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("import_id", "row_number", name=op.f("pk_import_rows")),
    )
    op.create_index(
        "ix_import_rows_batch",
        "import_rows",
        ["import_id", "customer_id", "group_tag", "batch_part"],
        unique=False,
        postgresql_where=sa.text("batch_part IS NOT NULL"),
    )
    op.create_index(
        "ix_import_rows_noted",
        "import_rows",
        ["import_id", "row_number"],
        unique=False,
        postgresql_where=sa.text("verdict <> 'valid'"),
    )
    # It was of no use to the service's own role (see app/db/tables.py).
    op.drop_index("ix_registrations_partner_id_serial_number", table_name="registrations")
    op.create_index(
        "ix_registrations_serial_number",
        "registrations",
        ["partner_id", "serial_number"],
        unique=False,
        postgresql_ops={"serial_number": "text_pattern_ops"},
        postgresql_where=sa.text("serial_number IS NOT NULL"),
    )
    op.create_index(
        "ix_registrations_partner_id_product_key",
        "registrations",
        ["partner_id", "product_key"],
        unique=False,
        postgresql_where=sa.text("product_key IS NOT NULL"),
    )
    op.execute("ALTER TABLE import_pieces ALTER COLUMN data SET STORAGE EXTERNAL")
    for table in OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_rows ON {table} TO registrar_app USING (partner_id = {MINE})")
        op.execute(f"CREATE POLICY every_row ON {table} TO registrar_system USING (true)")
        # Beside the default privileges, which only the login that made them passes on.
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO registrar_app, registrar_system")


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    for table in OWNED:
        op.execute(f"DROP POLICY own_rows ON {table}")
        op.execute(f"DROP POLICY every_row ON {table}")
    op.drop_index("ix_registrations_serial_number", table_name="registrations")
    op.execute(
        "CREATE INDEX ix_registrations_partner_id_serial_number "
        "ON registrations (partner_id, upper(serial_number) text_pattern_ops)"
    )
    op.drop_index(
        "ix_registrations_partner_id_product_key",
        table_name="registrations",
        postgresql_where=sa.text("product_key IS NOT NULL"),
    )
    op.drop_index(
        "ix_import_rows_noted", table_name="import_rows", postgresql_where=sa.text("verdict <> 'valid'")
    )
    op.drop_index(
        "ix_import_rows_batch", table_name="import_rows", postgresql_where=sa.text("batch_part IS NOT NULL")
    )
    op.drop_table("import_rows")
    op.drop_table("import_pieces")
    op.drop_index("ix_import_orders_order_id", table_name="import_orders")
    op.drop_table("import_orders")
    op.drop_table("import_hashes")
    op.drop_index("ix_imports_due_at", table_name="imports", postgresql_where=sa.text("due_at IS NOT NULL"))
    op.drop_table("imports")
    op.drop_table("vendor_profiles")

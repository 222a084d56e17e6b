"""The tables of imports: uploaded files, staged rows, and the orders made from them.

Staged data is deleted when the import expires; what was ordered stays in the orders' own tables. Vendor
profiles say how to read a supplier's files.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.db.tables.base import id_column, metadata, of_parent, one_of, partner_column, time_column
from app.domain.imports import ImportState, Verdict

vendor_profiles = Table(
    "vendor_profiles",
    metadata,
    id_column(),
    partner_column(),
    Column("name", Text, nullable=False),
    Column("definition", JSONB, nullable=False),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    UniqueConstraint("partner_id", "id"),
    UniqueConstraint("partner_id", "name"),
)

imports = Table(
    "imports",
    metadata,
    id_column(),
    partner_column(),
    Column("state", Text, nullable=False),
    Column("file_name", Text),
    Column("size_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("digest", LargeBinary, comment="SHA-256 of the file; null while it arrives"),
    Column("customer_id", Uuid, comment="null: the file names the customer of each row"),
    Column("reference", Text, nullable=False),
    Column("purchase_order", Text),
    Column("group_tag", Text),
    Column("profile_name", Text),
    Column("profile", JSONB, comment="the vendor profile as it was when the file came"),
    Column("dialect", JSONB),
    Column("rows_read", Integer, nullable=False, server_default=text("0")),
    Column("bytes_read", BigInteger, nullable=False, server_default=text("0")),
    Column("counts", JSONB, nullable=False, comment="rows by verdict"),
    Column("summary", JSONB, comment="what committing would do"),
    Column("on_invalid", Text),
    Column("failure_code", Text),
    Column("failure_said", Text),
    time_column("due_at"),
    time_column("lease_until"),
    Column("owner", Uuid, comment="fencing token of the present claim"),
    Column("worker_id", Text),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("created_by", Uuid),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    time_column("expires_at", required=True),
    of_parent("customer_id", "customers"),
    UniqueConstraint("partner_id", "id"),
    one_of("state", ImportState),
    Index("ix_imports_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("ix_imports_partner_id_staged", "partner_id", postgresql_where=text("due_at IS NOT NULL")),
    # For claims: each partner's due imports, and those under way.
    Index(
        "ix_imports_partner_id_due",
        "partner_id",
        "due_at",
        "id",
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index("ix_imports_leased", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
    Index("ix_imports_created_by", "created_by", postgresql_where=text("created_by IS NOT NULL")),
)

import_pieces = Table(
    "import_pieces",
    metadata,
    partner_column(),
    Column("import_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False, comment="zlib"),
    PrimaryKeyConstraint("import_id", "number"),
    of_parent("import_id", "imports", ondelete="CASCADE"),
)

import_options = Table(
    "import_options",
    metadata,
    partner_column(),
    Column("import_id", Uuid, nullable=False),
    Column("options", JSONB, nullable=False),
    PrimaryKeyConstraint("import_id"),
    of_parent("import_id", "imports", ondelete="CASCADE"),
)

# No foreign key of its own to the partner: a million rows are checked once each, through their import.
import_rows = Table(
    "import_rows",
    metadata,
    Column("partner_id", Uuid, nullable=False),
    Column("import_id", Uuid, nullable=False),
    Column("row_number", Integer, nullable=False),
    Column("id", Uuid, nullable=False, comment="that its registration will have"),
    Column("line", Integer, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("changed", Boolean, nullable=False, server_default=text("false"), comment="since the preview"),
    Column("customer_id", Uuid),
    Column("group_tag", Text),
    Column("batch_part", Integer, comment="which batch of its customer and tag; null when invalid"),
    Column("batch_position", Integer),
    Column("line_ref", Text),
    Column("purchase_order", Text),
    Column("identity", Text),
    Column("serial_number", Text),
    Column("manufacturer", Text),
    Column("model", Text),
    Column("product_key", Text),
    Column("findings", JSONB),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("original", Text, nullable=False, comment="JSON array of cells; null for the staged hash"),
    PrimaryKeyConstraint("import_id", "row_number"),
    of_parent("import_id", "imports", ondelete="CASCADE"),
    one_of("verdict", Verdict),
    # One future batch: counted by the preview, stored by the commit.
    Index(
        "ix_import_rows_batch",
        "import_id",
        "customer_id",
        "group_tag",
        "batch_part",
        postgresql_where=text("batch_part IS NOT NULL"),
    ),
    # Rows that need attention.
    Index(
        "ix_import_rows_noted",
        "import_id",
        "row_number",
        postgresql_where=text("verdict <> 'valid'"),
    ),
)

import_hashes = Table(
    "import_hashes",
    metadata,
    Column("partner_id", Uuid, nullable=False),
    Column("import_id", Uuid, nullable=False),
    Column("row_number", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False, comment="the hash without its zero fill"),
    PrimaryKeyConstraint("import_id", "row_number"),
    of_parent("import_id", "imports", ondelete="CASCADE"),
)

import_orders = Table(
    "import_orders",
    metadata,
    partner_column(),
    Column("import_id", Uuid, nullable=False),
    Column("suffix", Text, nullable=False, comment="of the customer: one order each"),
    Column("customer_id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    time_column("created_at", required=True),
    PrimaryKeyConstraint("import_id", "suffix"),
    of_parent("import_id", "imports", ondelete="CASCADE"),
    of_parent("customer_id", "customers"),
    of_parent("order_id", "orders", ondelete="CASCADE"),
    Index("ix_import_orders_order_id", "order_id"),
)

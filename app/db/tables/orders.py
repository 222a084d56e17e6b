"""The tables of orders: batches, registrations, hashes, counts and calls."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
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

from app.db.sql import listed
from app.db.tables.base import (
    held_column,
    id_column,
    metadata,
    of_parent,
    one_of,
    partner_column,
    time_column,
)
from app.db.tables.customers import customers
from app.domain.batch import IN_FLIGHT, BatchState
from app.domain.registration import RegistrationState

orders = Table(
    "orders",
    metadata,
    id_column(),
    partner_column(),
    Column("customer_id", Uuid, nullable=False),
    Column("connection_id", Uuid, nullable=False),
    Column("platform", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("purchase_order", Text),
    Column("group_tag", Text, nullable=False),
    Column("device_count", Integer, nullable=False),
    Column("body_digest", LargeBinary, nullable=False),
    Column("created_by", Uuid),
    Column("last_sequence", Integer, nullable=False, server_default=text("0")),
    Column("announced_state", Text, comment="the last state an event told of"),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    of_parent("customer_id", "customers"),
    of_parent("connection_id", "connections"),
    UniqueConstraint("partner_id", "id"),
    UniqueConstraint("partner_id", "reference"),
    # One per filter of the list, in the list's order.
    Index("ix_orders_partner_id_customer_id_id", "partner_id", "customer_id", "id"),
    Index("ix_orders_partner_id_announced_state_id", "partner_id", "announced_state", "id"),
    Index(
        "ix_orders_partner_id_purchase_order_id",
        "partner_id",
        "purchase_order",
        "id",
        postgresql_where=text("purchase_order IS NOT NULL"),
    ),
    # Whether an order names an API key: then the key is not deleted.
    Index("ix_orders_created_by", "created_by", postgresql_where=text("created_by IS NOT NULL")),
)


batches = Table(
    "batches",
    metadata,
    id_column(),
    partner_column(),
    Column("order_id", Uuid, nullable=False),
    Column("customer_id", Uuid, nullable=False),
    Column("connection_id", Uuid, nullable=False),
    Column("group_tag", Text, nullable=False),
    Column("device_count", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("holds", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="why it is held"),
    time_column("due_at", required=True),
    time_column("lease_until"),
    Column("owner", Uuid, comment="fencing token of the present claim"),
    Column("worker_id", Text, comment="the worker that made it; none where a person did"),
    Column("submissions", Integer, nullable=False, server_default=text("0")),
    Column("polls", Integer, nullable=False, server_default=text("0")),
    Column("lookups", Integer, nullable=False, server_default=text("0")),
    Column("troubles", Integer, nullable=False, server_default=text("0")),
    Column("request_id", Uuid, comment="MS-RequestId of the call under way or to be repeated"),
    Column("correlation_id", Uuid, nullable=False),
    Column("uncertain", Boolean, nullable=False, server_default=text("false")),
    Column("tracking_id", Text),
    Column("failure_code", Text),
    Column("failure_said", Text),
    time_column("submitted_at"),
    time_column("settled_at"),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    of_parent("order_id", "orders", ondelete="CASCADE"),
    of_parent("customer_id", "customers"),
    of_parent("connection_id", "connections"),
    UniqueConstraint("partner_id", "id"),
    one_of("state", BatchState),
    CheckConstraint("(state = 'held') = (cardinality(holds) > 0)", name="held_by_reasons"),
    Index("ix_batches_order_id_id", "order_id", "id"),
    Index("ix_batches_partner_id_customer_id_id", "partner_id", "customer_id", "id"),
    Index("ix_batches_partner_id_state_id", "partner_id", "state", "id"),
    Index("ix_batches_customer_id_state", "customer_id", "state"),
    # For claims: each customer's queue, batches under way, batches being sent; then a partner's.
    Index("ix_batches_queued", "customer_id", "due_at", "id", postgresql_where=text("state = 'queued'")),
    Index(
        "ix_batches_under_way",
        "due_at",
        "id",
        postgresql_where=text(f"state IN ({listed(IN_FLIGHT)})"),
    ),
    Index(
        "ix_batches_queued_leased",
        "lease_until",
        postgresql_where=text("state = 'queued' AND lease_until IS NOT NULL"),
    ),
    Index(
        "ix_batches_partner_id_queued",
        "partner_id",
        "customer_id",
        "due_at",
        "id",
        postgresql_where=text("state = 'queued'"),
    ),
    Index(
        "ix_batches_partner_id_under_way",
        "partner_id",
        "due_at",
        "id",
        postgresql_where=text(f"state IN ({listed(IN_FLIGHT)})"),
    ),
    # For a claim's walk from partner to partner, and from customer to customer of each connection.
    Index("ix_batches_partner_id_due", "partner_id", "due_at", postgresql_where=text("state = 'queued'")),
    Index(
        "ix_batches_partner_id_waiting",
        "partner_id",
        "connection_id",
        "customer_id",
        "due_at",
        "id",
        postgresql_where=text("state = 'queued'"),
    ),
    Index(
        "ix_batches_connection_id_under_way",
        "connection_id",
        "customer_id",
        "id",
        postgresql_where=text(f"state IN ({listed(IN_FLIGHT)})"),
    ),
    # For the sweep: whether anything is due.
    Index("ix_batches_queued_due", "due_at", postgresql_where=text("state = 'queued'")),
)


registrations = Table(
    "registrations",
    metadata,
    id_column(),
    held_column("partner_id", "partners", nullable=False),
    held_column("order_id", "orders", nullable=False),
    held_column("customer_id", "customers", nullable=False),
    held_column("batch_id", "batches"),
    Column("row_number", Integer, nullable=False),
    Column("batch_position", Integer),
    Column("state", Text, nullable=False, comment="while its batch is open, the batch's state says more"),
    Column("line_ref", Text),
    Column("group_tag", Text),
    Column("identity", Text, comment="the kind that is sent; null for an invalid row"),
    Column("serial_number", Text, comment="as given, or as the hash has it; null for placeholders"),
    Column("manufacturer", Text),
    Column("model", Text),
    Column("product_key", Text),
    Column("findings", JSONB),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("upstream_code", Text),
    Column("upstream_name", Text),
    Column("upstream_device_id", Text),
    Column("attempt", SmallInteger, nullable=False, server_default=text("1")),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    time_column("settled_at"),
    UniqueConstraint("order_id", "row_number"),
    one_of("state", RegistrationState),
    # Outcomes change no column of these indexes, so PostgreSQL need not update any index (HOT updates).
    Index("ix_registrations_batch_id_batch_position", "batch_id", "batch_position"),
    Index(
        "ix_registrations_in_no_batch", "order_id", "row_number", postgresql_where=text("batch_id IS NULL")
    ),
    Index("ix_registrations_updated_at", "updated_at", postgresql_using="brin"),
    # Newest first, of one partner: for lists that no other index serves, which search it window by window.
    Index("ix_registrations_partner_id_id", "partner_id", "id"),
    # On the plain column: under row-level security an index on upper() could not be used, because that
    # function is not leakproof. For the same reason prefixes are found by these operators and not by LIKE.
    Index(
        "ix_registrations_serial_number",
        "partner_id",
        "serial_number",
        postgresql_ops={"serial_number": "text_pattern_ops"},
        postgresql_where=text("serial_number IS NOT NULL"),
    ),
    Index(
        "ix_registrations_partner_id_product_key",
        "partner_id",
        "product_key",
        postgresql_where=text("product_key IS NOT NULL"),
    ),
)


device_hashes = Table(
    "device_hashes",
    metadata,
    held_column("registration_id", "registrations", primary_key=True),
    held_column("partner_id", "partners", nullable=False),
    Column("data", LargeBinary, nullable=False, comment="the hash without its zero fill"),
)


registration_counts = Table(
    "registration_counts",
    metadata,
    partner_column(),
    Column("order_id", Uuid, nullable=False),
    Column("bucket", Uuid, nullable=False, comment="the batch, or the order for rows in none"),
    Column("state", Text, nullable=False),
    Column("n", Integer, nullable=False),
    PrimaryKeyConstraint("order_id", "bucket", "state"),
    of_parent("order_id", "orders", ondelete="CASCADE"),
    comment="kept by triggers on registrations, in the same transaction",
)


batch_attempts = Table(
    "batch_attempts",
    metadata,
    id_column(),
    partner_column(),
    Column("batch_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("request_id", Uuid),
    Column("correlation_id", Uuid),
    time_column("started_at", required=True),
    time_column("finished_at"),
    Column("outcome", Text),
    Column("said", Text),
    Column("made_by", Uuid, comment="the API key of who recorded it by hand"),
    of_parent("batch_id", "batches", ondelete="CASCADE"),
    Index("ix_batch_attempts_batch_id_started_at", "batch_id", "started_at"),
    Index("ix_batch_attempts_made_by", "made_by", postgresql_where=text("made_by IS NOT NULL")),
)

for _child, _parents in ((registrations, (orders, customers, batches)), (device_hashes, (registrations,))):
    for _parent in _parents:
        _child.add_is_dependent_on(_parent)  # as with a foreign key

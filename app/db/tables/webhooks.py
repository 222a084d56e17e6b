"""The tables of events, webhook endpoints and deliveries."""

from sqlalchemy import (
    ARRAY,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.db.tables.base import id_column, metadata, of_parent, partner_column, time_column

events = Table(
    "events",
    metadata,
    id_column(),
    partner_column(),
    Column("type", Text, nullable=False),
    Column("order_id", Uuid),
    Column("customer_id", Uuid),
    Column("sequence", Integer),
    time_column("occurred_at", required=True),
    Column("data", JSONB, nullable=False),
    UniqueConstraint("partner_id", "id"),
    Index("ix_events_order_id_sequence", "order_id", "sequence"),
)


webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    id_column(),
    partner_column(),
    Column("url", Text, nullable=False),
    Column("description", Text),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("secret", LargeBinary, nullable=False, comment="sealed"),
    Column("state", Text, nullable=False),
    Column("consecutive_failures", Integer, nullable=False, server_default=text("0")),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    UniqueConstraint("partner_id", "id"),
)


webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    id_column(),
    partner_column(),
    Column("endpoint_id", Uuid, nullable=False),
    Column("secret", LargeBinary, nullable=False, comment="sealed"),
    time_column("expires_at", required=True),
    of_parent("endpoint_id", "webhook_endpoints", ondelete="CASCADE"),
    Index("ix_webhook_secrets_endpoint_id", "endpoint_id"),
)


deleted_webhook_endpoints = Table(
    "deleted_webhook_endpoints",
    metadata,
    partner_column(),
    Column("endpoint_id", Uuid, nullable=False),
    time_column("deleted_at", required=True),
    PrimaryKeyConstraint("endpoint_id"),
    of_parent("endpoint_id", "webhook_endpoints", ondelete="CASCADE"),
)


webhook_pauses = Table(
    "webhook_pauses",
    metadata,
    partner_column(),
    Column("endpoint_id", Uuid, nullable=False),
    Column("not_before", DateTime(timezone=True), comment="of the next attempt"),
    Column("full_since", DateTime(timezone=True), comment="too much waits for it"),
    PrimaryKeyConstraint("endpoint_id"),
    of_parent("endpoint_id", "webhook_endpoints", ondelete="CASCADE"),
)


deliveries = Table(
    "deliveries",
    metadata,
    id_column(),
    partner_column(),
    Column("event_id", Uuid, nullable=False),
    Column("endpoint_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    time_column("due_at", required=True),
    time_column("lease_until"),
    Column("owner", Uuid),
    Column("worker_id", Text),
    Column("last_status", Integer),
    Column("last_kind", Text),
    time_column("created_at", required=True),
    time_column("settled_at"),
    of_parent("event_id", "events", ondelete="CASCADE"),
    of_parent("endpoint_id", "webhook_endpoints", ondelete="CASCADE"),
    UniqueConstraint("partner_id", "id"),
    Index("ix_deliveries_endpoint_id_id", "endpoint_id", "id"),
    Index("ix_deliveries_event_id", "event_id"),
    Index(
        "ix_deliveries_open_due_at",
        "due_at",
        postgresql_where=text("state IN ('pending', 'retrying')"),
    ),
    # For claims and quotas: waiting deliveries by partner and endpoint, and those under way.
    Index(
        "ix_deliveries_partner_id_open",
        "partner_id",
        "endpoint_id",
        "due_at",
        "id",
        postgresql_where=text("state IN ('pending', 'retrying')"),
    ),
    Index("ix_deliveries_owner", "owner", postgresql_where=text("owner IS NOT NULL")),
)


delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    id_column(),
    partner_column(),
    Column("delivery_id", Uuid, nullable=False),
    time_column("started_at", required=True),
    Column("duration_ms", Integer, nullable=False),
    Column("status", Integer),
    Column("kind", Text, nullable=False),
    Column("excerpt", Text),
    of_parent("delivery_id", "deliveries", ondelete="CASCADE"),
    Index("ix_delivery_attempts_delivery_id_started_at", "delivery_id", "started_at"),
)

"""The tables: partners and everything they own.

Expand first, contract in a later release: the workers of the release before still run on this schema.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db import table_locks

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.create_table(
        "partners",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partners")),
        sa.UniqueConstraint("name", name=op.f("uq_partners_name")),
    )
    op.create_table(
        "worker_heartbeats",
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_worker_heartbeats")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_digest", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_api_keys_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_api_keys_partner_id_id")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
    op.create_table(
        "connections",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("entra_tenant_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=True),
        sa.Column("default_group_tag", sa.Text(), nullable=False),
        sa.Column("client_secret", sa.LargeBinary(), nullable=False, comment="sealed"),
        sa.Column("refresh_token", sa.LargeBinary(), nullable=True, comment="sealed"),
        sa.Column("refresh_token_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_owner", sa.Uuid(), nullable=True),
        sa.Column("token_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trouble_code", sa.Text(), nullable=True),
        sa.Column("trouble_said", sa.Text(), nullable=True),
        sa.Column("trouble_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("customers_due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("customers_read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_connections_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connections")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_connections_partner_id_id")),
        sa.UniqueConstraint("partner_id", "name", name=op.f("uq_connections_partner_id_name")),
    )
    op.create_index("ix_connections_customers_due_at", "connections", ["customers_due_at"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("customer_id", sa.Uuid(), nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_events_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_events_partner_id_id")),
    )
    op.create_index("ix_events_order_id_sequence", "events", ["order_id", "sequence"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True, comment="null while the first request is running"),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column(
            "body", sa.LargeBinary(), nullable=True, comment="sealed: an answer may show a secret once"
        ),
        sa.Column("running_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_idempotency_keys_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("partner_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("event_types", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False, comment="sealed"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("consecutive_failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_webhook_endpoints_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_webhook_endpoints_partner_id_id")),
    )
    op.create_table(
        "customers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("entra_tenant_id", sa.Uuid(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("default_group_tag", sa.Text(), nullable=True),
        sa.Column("last_turn_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "connection_id"],
            ["connections.partner_id", "connections.id"],
            name=op.f("fk_customers_partner_id_connection_id"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_customers_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customers")),
        sa.UniqueConstraint(
            "partner_id",
            "connection_id",
            "entra_tenant_id",
            name=op.f("uq_customers_partner_id_connection_id_entra_tenant_id"),
        ),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_customers_partner_id_id")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("owner", sa.Uuid(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_kind", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["partner_id", "endpoint_id"],
            ["webhook_endpoints.partner_id", "webhook_endpoints.id"],
            name=op.f("fk_deliveries_partner_id_endpoint_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "event_id"],
            ["events.partner_id", "events.id"],
            name=op.f("fk_deliveries_partner_id_event_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_deliveries_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_deliveries_partner_id_id")),
    )
    op.create_index("ix_deliveries_endpoint_id_id", "deliveries", ["endpoint_id", "id"], unique=False)
    op.create_index("ix_deliveries_event_id", "deliveries", ["event_id"], unique=False)
    op.create_index(
        "ix_deliveries_open_due_at",
        "deliveries",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('pending', 'retrying')"),
    )
    op.create_table(
        "consent_changes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "customer_id"],
            ["customers.partner_id", "customers.id"],
            name=op.f("fk_consent_changes_partner_id_customer_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_consent_changes_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent_changes")),
    )
    op.create_index(
        "ix_consent_changes_customer_id_at", "consent_changes", ["customer_id", "at"], unique=False
    )
    op.create_table(
        "consents",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("proved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('granted', 'requested', 'revoked', 'stale', 'unknown')",
            name=op.f("ck_consents_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "customer_id"],
            ["customers.partner_id", "customers.id"],
            name=op.f("fk_consents_partner_id_customer_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_consents_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("customer_id", name=op.f("pk_consents")),
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("excerpt", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["partner_id", "delivery_id"],
            ["deliveries.partner_id", "deliveries.id"],
            name=op.f("fk_delivery_attempts_partner_id_delivery_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_delivery_attempts_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_attempts")),
    )
    op.create_index(
        "ix_delivery_attempts_delivery_id_started_at",
        "delivery_attempts",
        ["delivery_id", "started_at"],
        unique=False,
    )
    op.create_table(
        "group_tags",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column(
            "tag_key", sa.Text(), nullable=False, comment="case-folded: Partner Center ignores capitals"
        ),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("known", sa.Boolean(), nullable=False, comment="Partner Center has a batch of this name"),
        sa.Column("creating_batch_id", sa.Uuid(), nullable=True, comment="the batch that is creating it now"),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "customer_id"],
            ["customers.partner_id", "customers.id"],
            name=op.f("fk_group_tags_partner_id_customer_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_group_tags_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("customer_id", "tag_key", name=op.f("pk_group_tags")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("purchase_order", sa.Text(), nullable=True),
        sa.Column("group_tag", sa.Text(), nullable=False),
        sa.Column("device_count", sa.Integer(), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("last_sequence", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("announced_state", sa.Text(), nullable=True, comment="the last state an event told of"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "connection_id"],
            ["connections.partner_id", "connections.id"],
            name=op.f("fk_orders_partner_id_connection_id"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "customer_id"],
            ["customers.partner_id", "customers.id"],
            name=op.f("fk_orders_partner_id_customer_id"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_orders_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_orders_partner_id_id")),
        sa.UniqueConstraint("partner_id", "reference", name=op.f("uq_orders_partner_id_reference")),
    )
    op.create_index("ix_orders_partner_id_customer_id", "orders", ["partner_id", "customer_id"], unique=False)
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("group_tag", sa.Text(), nullable=False),
        sa.Column("device_count", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("owner", sa.Uuid(), nullable=True, comment="fencing token of the present claim"),
        sa.Column("submissions", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("polls", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lookups", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("troubles", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "request_id",
            sa.Uuid(),
            nullable=True,
            comment="MS-RequestId of the call under way or to be repeated",
        ),
        sa.Column("correlation_id", sa.Uuid(), nullable=False),
        sa.Column("uncertain", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("tracking_id", sa.Text(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_said", sa.Text(), nullable=True),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('cancelled', 'held', 'queued', 'settled', 'submitted', 'submitting', 'unknown')",
            name=op.f("ck_batches_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "connection_id"],
            ["connections.partner_id", "connections.id"],
            name=op.f("fk_batches_partner_id_connection_id"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "customer_id"],
            ["customers.partner_id", "customers.id"],
            name=op.f("fk_batches_partner_id_customer_id"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "order_id"],
            ["orders.partner_id", "orders.id"],
            name=op.f("fk_batches_partner_id_order_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_batches_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_batches_partner_id_id")),
    )
    op.create_index("ix_batches_customer_id_state", "batches", ["customer_id", "state"], unique=False)
    op.create_index(
        "ix_batches_queued",
        "batches",
        ["customer_id", "due_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_batches_under_way",
        "batches",
        ["due_at", "id"],
        unique=False,
        postgresql_where=sa.text("state IN ('submitted', 'submitting', 'unknown')"),
    )
    op.create_index(
        "ix_batches_queued_leased",
        "batches",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("state = 'queued' AND lease_until IS NOT NULL"),
    )
    op.create_index(
        "ix_batches_queued_due",
        "batches",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index("ix_batches_order_id", "batches", ["order_id"], unique=False)
    op.create_table(
        "registration_counts",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("bucket", sa.Uuid(), nullable=False, comment="the batch, or the order for rows in none"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["partner_id", "order_id"],
            ["orders.partner_id", "orders.id"],
            name=op.f("fk_registration_counts_partner_id_order_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"],
            ["partners.id"],
            name=op.f("fk_registration_counts_partner_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("order_id", "bucket", "state", name=op.f("pk_registration_counts")),
        comment="kept by triggers on registrations, in the same transaction",
    )
    op.create_table(
        "batch_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=True),
        sa.Column("correlation_id", sa.Uuid(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("said", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["partner_id", "batch_id"],
            ["batches.partner_id", "batches.id"],
            name=op.f("fk_batch_attempts_partner_id_batch_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_batch_attempts_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch_attempts")),
    )
    op.create_index(
        "ix_batch_attempts_batch_id_started_at", "batch_attempts", ["batch_id", "started_at"], unique=False
    )
    op.create_table(
        "registrations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("batch_position", sa.Integer(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("line_ref", sa.Text(), nullable=True),
        sa.Column("group_tag", sa.Text(), nullable=True),
        sa.Column(
            "identity", sa.Text(), nullable=True, comment="the kind that is sent; null for an invalid row"
        ),
        sa.Column(
            "serial_number",
            sa.Text(),
            nullable=True,
            comment="as given, or as the hash has it; null for placeholders",
        ),
        sa.Column("manufacturer", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("product_key", sa.Text(), nullable=True),
        sa.Column("findings", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("upstream_code", sa.Text(), nullable=True),
        sa.Column("upstream_name", sa.Text(), nullable=True),
        sa.Column("upstream_device_id", sa.Text(), nullable=True),
        sa.Column("attempt", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('already_registered', 'cancelled', 'conflict', 'deregistered', 'deregistering', 'failed', 'held', 'invalid', 'processing', 'queued', 'registered', 'submitting', 'unknown')",
            name=op.f("ck_registrations_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "batch_id"],
            ["batches.partner_id", "batches.id"],
            name=op.f("fk_registrations_partner_id_batch_id"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "customer_id"],
            ["customers.partner_id", "customers.id"],
            name=op.f("fk_registrations_partner_id_customer_id"),
        ),
        sa.ForeignKeyConstraint(
            ["partner_id", "order_id"],
            ["orders.partner_id", "orders.id"],
            name=op.f("fk_registrations_partner_id_order_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_registrations_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registrations")),
        sa.UniqueConstraint("order_id", "row_number", name=op.f("uq_registrations_order_id_row_number")),
        sa.UniqueConstraint("partner_id", "id", name=op.f("uq_registrations_partner_id_id")),
    )
    op.create_index(
        "ix_registrations_batch_id_batch_position",
        "registrations",
        ["batch_id", "batch_position"],
        unique=False,
    )
    op.create_index(
        "ix_registrations_order_id_state_row_number",
        "registrations",
        ["order_id", "state", "row_number"],
        unique=False,
    )
    op.create_index(
        "ix_registrations_partner_id_serial_number",
        "registrations",
        ["partner_id", sa.literal_column("upper(serial_number) text_pattern_ops")],
        unique=False,
    )
    op.create_index(
        "ix_registrations_partner_id_updated_at", "registrations", ["partner_id", "updated_at"], unique=False
    )
    op.create_table(
        "device_hashes",
        sa.Column("registration_id", sa.Uuid(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False, comment="the hash without its zero fill"),
        sa.ForeignKeyConstraint(
            ["partner_id", "registration_id"],
            ["registrations.partner_id", "registrations.id"],
            name=op.f("fk_device_hashes_partner_id_registration_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["partner_id"], ["partners.id"], name=op.f("fk_device_hashes_partner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("registration_id", name=op.f("pk_device_hashes")),
    )
    # ### end Alembic commands ###


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.drop_table("device_hashes")
    op.drop_index("ix_registrations_partner_id_updated_at", table_name="registrations")
    op.drop_index("ix_registrations_partner_id_serial_number", table_name="registrations")
    op.drop_index("ix_registrations_order_id_state_row_number", table_name="registrations")
    op.drop_index("ix_registrations_batch_id_batch_position", table_name="registrations")
    op.drop_table("registrations")
    op.drop_index("ix_batch_attempts_batch_id_started_at", table_name="batch_attempts")
    op.drop_table("batch_attempts")
    op.drop_table("registration_counts")
    op.drop_index("ix_batches_order_id", table_name="batches")
    op.drop_index("ix_batches_queued_due", table_name="batches")
    op.drop_index("ix_batches_queued_leased", table_name="batches")
    op.drop_index("ix_batches_under_way", table_name="batches")
    op.drop_index("ix_batches_queued", table_name="batches")
    op.drop_index("ix_batches_customer_id_state", table_name="batches")
    op.drop_table("batches")
    op.drop_index("ix_orders_partner_id_customer_id", table_name="orders")
    op.drop_table("orders")
    op.drop_table("group_tags")
    op.drop_index("ix_delivery_attempts_delivery_id_started_at", table_name="delivery_attempts")
    op.drop_table("delivery_attempts")
    op.drop_table("consents")
    op.drop_index("ix_consent_changes_customer_id_at", table_name="consent_changes")
    op.drop_table("consent_changes")
    op.drop_index(
        "ix_deliveries_open_due_at",
        table_name="deliveries",
        postgresql_where=sa.text("state IN ('pending', 'retrying')"),
    )
    op.drop_index("ix_deliveries_event_id", table_name="deliveries")
    op.drop_index("ix_deliveries_endpoint_id_id", table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_table("customers")
    op.drop_table("webhook_endpoints")
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index("ix_events_order_id_sequence", table_name="events")
    op.drop_table("events")
    op.drop_index("ix_connections_customers_due_at", table_name="connections")
    op.drop_table("connections")
    op.drop_table("api_keys")
    op.drop_table("worker_heartbeats")
    op.drop_table("partners")
    # ### end Alembic commands ###

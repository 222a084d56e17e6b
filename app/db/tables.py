"""The tables. PostgreSQL 15 or newer; every row but a heartbeat belongs to a partner.

Children carry `partner_id` in their foreign keys, so that no row can hang on another partner's
parent. Row-level security, the count triggers and the roles are in the migrations: they are not
something SQLAlchemy's metadata can say.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
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
from app.domain.batch import IN_FLIGHT, BatchState
from app.domain.connection import ConnectionMode
from app.domain.consent import ConsentState
from app.domain.registration import RegistrationState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[object]:
    return Column("id", Uuid, primary_key=True)


def _partner() -> Column[object]:
    return Column("partner_id", Uuid, ForeignKey("partners.id", ondelete="CASCADE"), nullable=False)


def _time(name: str, *, required: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=not required)


def _of(column: str, parent: str, *, ondelete: str | None = None) -> ForeignKeyConstraint:
    """A child's parent, of the same partner."""
    return ForeignKeyConstraint(
        ["partner_id", column], [f"{parent}.partner_id", f"{parent}.id"], ondelete=ondelete
    )


def _held(column: str, parent: str, **details: Any) -> Column[Any]:
    """The id of a parent of the same partner, checked by a trigger once a statement (migration 0003): a
    foreign key would look it up once a row, and these tables are filled by the thousand."""
    return Column(column, Uuid, info={"parent": parent}, **details)


def _one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({listed(values)})", name=f"{column}_known")


partners = Table(
    "partners",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    _time("created_at", required=True),
)

partner_quotas = Table(
    "partner_quotas",
    metadata,
    _partner(),
    Column("quota", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    _time("set_at", required=True),
    PrimaryKeyConstraint("partner_id", "quota"),
    comment="what the operator has set; of the others the settings say it",
)

partner_uses = Table(
    "partner_uses",
    metadata,
    _partner(),
    Column("quota", Text, nullable=False),
    Column("used", BigInteger, nullable=False),
    PrimaryKeyConstraint("partner_id", "quota"),
    comment="kept by triggers on customers, idempotency_keys and orders, in the same transaction",
)

partner_turns = Table(
    "partner_turns",
    metadata,
    _partner(),
    Column("kind", Text, nullable=False, comment="of work"),
    _time("last_turn_at", required=True),
    Column("after_id", Uuid, comment="what the partner's last turn was for"),
    PrimaryKeyConstraint("partner_id", "kind"),
)

partner_networks = Table(
    "partner_networks",
    metadata,
    _partner(),
    Column("network", Text, nullable=False, comment="CIDR that its webhooks may go to"),
    Column("first_port", Integer, nullable=False),
    Column("last_port", Integer, nullable=False),
    _time("created_at", required=True),
    PrimaryKeyConstraint("partner_id", "network", "first_port", "last_port"),
)

api_keys = Table(
    "api_keys",
    metadata,
    _id(),
    _partner(),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False, unique=True),
    Column("secret_digest", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    _time("created_at", required=True),
    _time("expires_at"),
    _time("revoked_at"),
    _time("last_used_at"),
    UniqueConstraint("partner_id", "id"),
)

api_key_successors = Table(
    "api_key_successors",
    metadata,
    Column("key_id", Uuid, primary_key=True),
    _partner(),
    Column("successor_id", Uuid, nullable=False),
    _time("rotated_at", required=True),
    _of("key_id", "api_keys", ondelete="CASCADE"),
    _of("successor_id", "api_keys", ondelete="CASCADE"),
)

connections = Table(
    "connections",
    metadata,
    _id(),
    _partner(),
    Column("name", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("mode", Text, nullable=False, server_default=text("'api'")),
    Column("entra_tenant_id", Uuid, nullable=False),
    Column("client_id", Text),
    Column("region", Text),
    Column("default_group_tag", Text, nullable=False),
    Column("client_secret", LargeBinary, comment="sealed"),
    Column("refresh_token", LargeBinary, comment="sealed"),
    _time("refresh_token_at"),
    Column("token_owner", Uuid),
    _time("token_lease_until"),
    Column("token_worker_id", Text),
    Column("reading_owner", Uuid),
    _time("reading_lease_until"),
    Column("reading_worker_id", Text),
    Column("trouble_code", Text),
    Column("trouble_said", Text),
    _time("trouble_since"),
    _time("not_before"),
    _time("customers_due_at", required=True),
    _time("customers_read_at"),
    _time("checked_at"),
    _time("created_at", required=True),
    _time("updated_at", required=True),
    UniqueConstraint("partner_id", "id"),
    UniqueConstraint("partner_id", "name"),
    CheckConstraint("(client_id IS NULL) = (client_secret IS NULL)", name="credentials_given"),
    _one_of("mode", ConnectionMode),
    CheckConstraint("mode = 'portal' OR client_id IS NOT NULL", name="api_has_credentials"),
    Index("ix_connections_customers_due_at", "customers_due_at"),
    Index("ix_connections_portal", "id", postgresql_where=text("mode = 'portal'")),
    Index("ix_connections_read", "reading_lease_until", postgresql_where=text("reading_owner IS NOT NULL")),
)

customers = Table(
    "customers",
    metadata,
    _id(),
    _partner(),
    Column("connection_id", Uuid, nullable=False),
    Column("entra_tenant_id", Uuid, nullable=False),
    Column("domain", Text),
    Column("name", Text, nullable=False),
    Column("default_group_tag", Text),
    _time("last_turn_at", required=True),
    _time("created_at", required=True),
    _time("updated_at", required=True),
    _of("connection_id", "connections"),
    UniqueConstraint("partner_id", "id"),
    UniqueConstraint("partner_id", "connection_id", "entra_tenant_id"),
    Index("ix_customers_partner_id_entra_tenant_id", "partner_id", "entra_tenant_id"),
)

consents = Table(
    "consents",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    _partner(),
    Column("state", Text, nullable=False),
    _time("since", required=True),
    Column("evidence", Text, nullable=False),
    _time("proved_at"),
    _time("checked_at"),
    _of("customer_id", "customers", ondelete="CASCADE"),
    _one_of("state", ConsentState),
)

consent_changes = Table(
    "consent_changes",
    metadata,
    _id(),
    _partner(),
    Column("customer_id", Uuid, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("note", Text, comment="what a person wrote down with it"),
    Column("made_by", Uuid, comment="the API key of who recorded it by hand"),
    _time("at", required=True),
    _of("customer_id", "customers", ondelete="CASCADE"),
    Index("ix_consent_changes_customer_id_at", "customer_id", "at"),
    Index("ix_consent_changes_made_by", "made_by", postgresql_where=text("made_by IS NOT NULL")),
)

orders = Table(
    "orders",
    metadata,
    _id(),
    _partner(),
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
    _time("created_at", required=True),
    _time("updated_at", required=True),
    _of("customer_id", "customers"),
    _of("connection_id", "connections"),
    UniqueConstraint("partner_id", "id"),
    UniqueConstraint("partner_id", "reference"),
    # Each filter of the list, in the list's own order.
    Index("ix_orders_partner_id_customer_id_id", "partner_id", "customer_id", "id"),
    Index("ix_orders_partner_id_announced_state_id", "partner_id", "announced_state", "id"),
    Index(
        "ix_orders_partner_id_purchase_order_id",
        "partner_id",
        "purchase_order",
        "id",
        postgresql_where=text("purchase_order IS NOT NULL"),
    ),
    # Whether an API key is named in an order: such a key is not forgotten.
    Index("ix_orders_created_by", "created_by", postgresql_where=text("created_by IS NOT NULL")),
)

batches = Table(
    "batches",
    metadata,
    _id(),
    _partner(),
    Column("order_id", Uuid, nullable=False),
    Column("customer_id", Uuid, nullable=False),
    Column("connection_id", Uuid, nullable=False),
    Column("group_tag", Text, nullable=False),
    Column("device_count", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("holds", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="why it is held"),
    _time("due_at", required=True),
    _time("lease_until"),
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
    _time("submitted_at"),
    _time("settled_at"),
    _time("created_at", required=True),
    _time("updated_at", required=True),
    _of("order_id", "orders", ondelete="CASCADE"),
    _of("customer_id", "customers"),
    _of("connection_id", "connections"),
    UniqueConstraint("partner_id", "id"),
    _one_of("state", BatchState),
    CheckConstraint("(state = 'held') = (cardinality(holds) > 0)", name="held_by_reasons"),
    Index("ix_batches_order_id_id", "order_id", "id"),
    Index("ix_batches_partner_id_customer_id_id", "partner_id", "customer_id", "id"),
    Index("ix_batches_partner_id_state_id", "partner_id", "state", "id"),
    Index("ix_batches_customer_id_state", "customer_id", "state"),
    # The claim's looks: each customer's queue, what is under way, what is being sent now; then a partner's.
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
    # Those that the claim walks: from partner to partner, and from customer to customer of each connection.
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
    # The sweep's: anything due at all.
    Index("ix_batches_queued_due", "due_at", postgresql_where=text("state = 'queued'")),
)

registrations = Table(
    "registrations",
    metadata,
    _id(),
    _held("partner_id", "partners", nullable=False),
    _held("order_id", "orders", nullable=False),
    _held("customer_id", "customers", nullable=False),
    _held("batch_id", "batches"),
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
    _time("created_at", required=True),
    _time("updated_at", required=True),
    _time("settled_at"),
    UniqueConstraint("order_id", "row_number"),
    _one_of("state", RegistrationState),
    # None of these has a column that an outcome changes: so PostgreSQL writes an outcome beside its row
    # and touches no index.
    Index("ix_registrations_batch_id_batch_position", "batch_id", "batch_position"),
    Index(
        "ix_registrations_in_no_batch", "order_id", "row_number", postgresql_where=text("batch_id IS NULL")
    ),
    Index("ix_registrations_updated_at", "updated_at", postgresql_using="brin"),
    # Newest first, of one partner: what a list without another index steps through, window by window.
    Index("ix_registrations_partner_id_id", "partner_id", "id"),
    # On the bare column: under row-level security no index on upper() can be used, since that function is
    # not leakproof, and for the same reason prefixes are looked for by these operators and not by LIKE.
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
    _held("registration_id", "registrations", primary_key=True),
    _held("partner_id", "partners", nullable=False),
    Column("data", LargeBinary, nullable=False, comment="the hash without its zero fill"),
)

for _child, _parents in ((registrations, (orders, customers, batches)), (device_hashes, (registrations,))):
    for _parent in _parents:
        _child.add_is_dependent_on(_parent)  # as its foreign key would have said

registration_counts = Table(
    "registration_counts",
    metadata,
    _partner(),
    Column("order_id", Uuid, nullable=False),
    Column("bucket", Uuid, nullable=False, comment="the batch, or the order for rows in none"),
    Column("state", Text, nullable=False),
    Column("n", Integer, nullable=False),
    PrimaryKeyConstraint("order_id", "bucket", "state"),
    _of("order_id", "orders", ondelete="CASCADE"),
    comment="kept by triggers on registrations, in the same transaction",
)

batch_attempts = Table(
    "batch_attempts",
    metadata,
    _id(),
    _partner(),
    Column("batch_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("request_id", Uuid),
    Column("correlation_id", Uuid),
    _time("started_at", required=True),
    _time("finished_at"),
    Column("outcome", Text),
    Column("said", Text),
    Column("made_by", Uuid, comment="the API key of who recorded it by hand"),
    _of("batch_id", "batches", ondelete="CASCADE"),
    Index("ix_batch_attempts_batch_id_started_at", "batch_id", "started_at"),
    Index("ix_batch_attempts_made_by", "made_by", postgresql_where=text("made_by IS NOT NULL")),
)

group_tags = Table(
    "group_tags",
    metadata,
    Column("customer_id", Uuid, nullable=False),
    Column("tag_key", Text, nullable=False, comment="case-folded: Partner Center ignores capitals"),
    _partner(),
    Column("tag", Text, nullable=False),
    Column("known", Boolean, nullable=False, comment="Partner Center has a batch of this name"),
    Column("creating_batch_id", Uuid, comment="the batch that is creating it now"),
    _time("updated_at", required=True),
    PrimaryKeyConstraint("customer_id", "tag_key"),
    Index(
        "ix_group_tags_creating",
        "partner_id",
        "creating_batch_id",
        postgresql_where=text("creating_batch_id IS NOT NULL"),
    ),
    _of("customer_id", "customers", ondelete="CASCADE"),
)

events = Table(
    "events",
    metadata,
    _id(),
    _partner(),
    Column("type", Text, nullable=False),
    Column("order_id", Uuid),
    Column("customer_id", Uuid),
    Column("sequence", Integer),
    _time("occurred_at", required=True),
    Column("data", JSONB, nullable=False),
    UniqueConstraint("partner_id", "id"),
    Index("ix_events_order_id_sequence", "order_id", "sequence"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    _id(),
    _partner(),
    Column("url", Text, nullable=False),
    Column("description", Text),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("secret", LargeBinary, nullable=False, comment="sealed"),
    Column("state", Text, nullable=False),
    Column("consecutive_failures", Integer, nullable=False, server_default=text("0")),
    _time("created_at", required=True),
    _time("updated_at", required=True),
    UniqueConstraint("partner_id", "id"),
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    _id(),
    _partner(),
    Column("endpoint_id", Uuid, nullable=False),
    Column("secret", LargeBinary, nullable=False, comment="sealed"),
    _time("expires_at", required=True),
    _of("endpoint_id", "webhook_endpoints", ondelete="CASCADE"),
    Index("ix_webhook_secrets_endpoint_id", "endpoint_id"),
)

deleted_webhook_endpoints = Table(
    "deleted_webhook_endpoints",
    metadata,
    _partner(),
    Column("endpoint_id", Uuid, nullable=False),
    _time("deleted_at", required=True),
    PrimaryKeyConstraint("endpoint_id"),
    _of("endpoint_id", "webhook_endpoints", ondelete="CASCADE"),
)

webhook_pauses = Table(
    "webhook_pauses",
    metadata,
    _partner(),
    Column("endpoint_id", Uuid, nullable=False),
    Column("not_before", DateTime(timezone=True), comment="of the next attempt"),
    Column("full_since", DateTime(timezone=True), comment="too much waits for it"),
    PrimaryKeyConstraint("endpoint_id"),
    _of("endpoint_id", "webhook_endpoints", ondelete="CASCADE"),
)

deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    _partner(),
    Column("event_id", Uuid, nullable=False),
    Column("endpoint_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _time("due_at", required=True),
    _time("lease_until"),
    Column("owner", Uuid),
    Column("worker_id", Text),
    Column("last_status", Integer),
    Column("last_kind", Text),
    _time("created_at", required=True),
    _time("settled_at"),
    _of("event_id", "events", ondelete="CASCADE"),
    _of("endpoint_id", "webhook_endpoints", ondelete="CASCADE"),
    UniqueConstraint("partner_id", "id"),
    Index("ix_deliveries_endpoint_id_id", "endpoint_id", "id"),
    Index("ix_deliveries_event_id", "event_id"),
    Index(
        "ix_deliveries_open_due_at",
        "due_at",
        postgresql_where=text("state IN ('pending', 'retrying')"),
    ),
    # The claim's and the quota's: what waits by partner and endpoint, and what is under way.
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
    _id(),
    _partner(),
    Column("delivery_id", Uuid, nullable=False),
    _time("started_at", required=True),
    Column("duration_ms", Integer, nullable=False),
    Column("status", Integer),
    Column("kind", Text, nullable=False),
    Column("excerpt", Text),
    _of("delivery_id", "deliveries", ondelete="CASCADE"),
    Index("ix_delivery_attempts_delivery_id_started_at", "delivery_id", "started_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _partner(),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", Integer, comment="null while the first request is running"),
    Column("location", Text),
    Column("body", LargeBinary, comment="sealed: an answer may show a secret once"),
    _time("running_until"),
    _time("created_at", required=True),
    PrimaryKeyConstraint("partner_id", "key"),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

removals = Table(
    "removals",
    metadata,
    Column("subject", Uuid, primary_key=True, comment="the partner, connection or customer"),
    _partner(),
    Column("kind", Text, nullable=False),
    _time("began_at", required=True),
)

row_sealing = Table(
    "row_sealing",
    metadata,
    Column("since", DateTime(timezone=True), primary_key=True),
    comment="a row: values are sealed to their row; none: the release before may have to open them",
)

worker_heartbeats = Table(
    "worker_heartbeats",
    metadata,
    Column("worker_id", Text, primary_key=True),
    _time("started_at", required=True),
    _time("beat_at", required=True),
)

import app.db.device_tables  # noqa: E402
import app.db.import_tables  # noqa: E402, F401 - their tables belong to the same metadata

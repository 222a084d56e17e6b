"""The tables of connections and customers, their consents and group tags."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from app.db.tables.base import id_column, metadata, of_parent, one_of, partner_column, time_column
from app.domain.connection import ConnectionMode
from app.domain.consent import ConsentState

connections = Table(
    "connections",
    metadata,
    id_column(),
    partner_column(),
    Column("name", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("mode", Text, nullable=False, server_default=text("'api'")),
    Column("entra_tenant_id", Uuid, nullable=False),
    Column("client_id", Text),
    Column("region", Text),
    Column("default_group_tag", Text, nullable=False),
    Column("client_secret", LargeBinary, comment="sealed"),
    Column("refresh_token", LargeBinary, comment="sealed"),
    time_column("refresh_token_at"),
    Column("token_owner", Uuid),
    time_column("token_lease_until"),
    Column("token_worker_id", Text),
    Column("reading_owner", Uuid),
    time_column("reading_lease_until"),
    Column("reading_worker_id", Text),
    Column("trouble_code", Text),
    Column("trouble_said", Text),
    time_column("trouble_since"),
    time_column("not_before"),
    time_column("customers_due_at", required=True),
    time_column("customers_read_at"),
    time_column("checked_at"),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    UniqueConstraint("partner_id", "id"),
    UniqueConstraint("partner_id", "name"),
    CheckConstraint("(client_id IS NULL) = (client_secret IS NULL)", name="credentials_given"),
    one_of("mode", ConnectionMode),
    CheckConstraint("mode = 'portal' OR client_id IS NOT NULL", name="api_has_credentials"),
    Index("ix_connections_customers_due_at", "customers_due_at"),
    Index("ix_connections_portal", "id", postgresql_where=text("mode = 'portal'")),
    Index("ix_connections_read", "reading_lease_until", postgresql_where=text("reading_owner IS NOT NULL")),
)


customers = Table(
    "customers",
    metadata,
    id_column(),
    partner_column(),
    Column("connection_id", Uuid, nullable=False),
    Column("entra_tenant_id", Uuid, nullable=False),
    Column("domain", Text),
    Column("name", Text, nullable=False),
    Column("default_group_tag", Text),
    time_column("last_turn_at", required=True),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    of_parent("connection_id", "connections"),
    UniqueConstraint("partner_id", "id"),
    UniqueConstraint("partner_id", "connection_id", "entra_tenant_id"),
    Index("ix_customers_partner_id_entra_tenant_id", "partner_id", "entra_tenant_id"),
)


consents = Table(
    "consents",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    partner_column(),
    Column("state", Text, nullable=False),
    time_column("since", required=True),
    Column("evidence", Text, nullable=False),
    time_column("proved_at"),
    time_column("checked_at"),
    of_parent("customer_id", "customers", ondelete="CASCADE"),
    one_of("state", ConsentState),
)


consent_changes = Table(
    "consent_changes",
    metadata,
    id_column(),
    partner_column(),
    Column("customer_id", Uuid, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("note", Text, comment="what a person wrote down with it"),
    Column("made_by", Uuid, comment="the API key of who recorded it by hand"),
    time_column("at", required=True),
    of_parent("customer_id", "customers", ondelete="CASCADE"),
    Index("ix_consent_changes_customer_id_at", "customer_id", "at"),
    Index("ix_consent_changes_made_by", "made_by", postgresql_where=text("made_by IS NOT NULL")),
)


group_tags = Table(
    "group_tags",
    metadata,
    Column("customer_id", Uuid, nullable=False),
    Column("tag_key", Text, nullable=False, comment="case-folded: Partner Center ignores capitals"),
    partner_column(),
    Column("tag", Text, nullable=False),
    Column("known", Boolean, nullable=False, comment="Partner Center has a batch of this name"),
    Column("creating_batch_id", Uuid, comment="the batch that is creating it now"),
    time_column("updated_at", required=True),
    PrimaryKeyConstraint("customer_id", "tag_key"),
    Index(
        "ix_group_tags_creating",
        "partner_id",
        "creating_batch_id",
        postgresql_where=text("creating_batch_id IS NOT NULL"),
    ),
    of_parent("customer_id", "customers", ondelete="CASCADE"),
)

"""The tables of partners, their keys, quotas and answers to Idempotency-Keys."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from app.db.tables.base import id_column, metadata, of_parent, partner_column, time_column

partners = Table(
    "partners",
    metadata,
    id_column(),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    time_column("created_at", required=True),
)


partner_quotas = Table(
    "partner_quotas",
    metadata,
    partner_column(),
    Column("quota", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    time_column("set_at", required=True),
    PrimaryKeyConstraint("partner_id", "quota"),
    comment="what the operator has set; of the others the settings say it",
)


partner_uses = Table(
    "partner_uses",
    metadata,
    partner_column(),
    Column("quota", Text, nullable=False),
    Column("used", BigInteger, nullable=False),
    PrimaryKeyConstraint("partner_id", "quota"),
    comment="kept by triggers on customers, idempotency_keys and orders, in the same transaction",
)


partner_turns = Table(
    "partner_turns",
    metadata,
    partner_column(),
    Column("kind", Text, nullable=False, comment="of work"),
    time_column("last_turn_at", required=True),
    Column("after_id", Uuid, comment="what the partner's last turn was for"),
    PrimaryKeyConstraint("partner_id", "kind"),
)


partner_networks = Table(
    "partner_networks",
    metadata,
    partner_column(),
    Column("network", Text, nullable=False, comment="CIDR that its webhooks may go to"),
    Column("first_port", Integer, nullable=False),
    Column("last_port", Integer, nullable=False),
    time_column("created_at", required=True),
    PrimaryKeyConstraint("partner_id", "network", "first_port", "last_port"),
)


api_keys = Table(
    "api_keys",
    metadata,
    id_column(),
    partner_column(),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False, unique=True),
    Column("secret_digest", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    time_column("created_at", required=True),
    time_column("expires_at"),
    time_column("revoked_at"),
    time_column("last_used_at"),
    UniqueConstraint("partner_id", "id"),
)


api_key_successors = Table(
    "api_key_successors",
    metadata,
    Column("key_id", Uuid, primary_key=True),
    partner_column(),
    Column("successor_id", Uuid, nullable=False),
    time_column("rotated_at", required=True),
    of_parent("key_id", "api_keys", ondelete="CASCADE"),
    of_parent("successor_id", "api_keys", ondelete="CASCADE"),
)


idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    partner_column(),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", Integer, comment="null while the first request is running"),
    Column("location", Text),
    Column("body", LargeBinary, comment="sealed: an answer may show a secret once"),
    time_column("running_until"),
    time_column("created_at", required=True),
    PrimaryKeyConstraint("partner_id", "key"),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

"""The tables of devices. Only a trigger on registrations writes devices (migration 0017)."""

from sqlalchemy import (
    Column,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from app.db.tables.base import held_column, metadata, one_of, time_column
from app.db.tables.customers import customers
from app.domain.devices import DeviceState

TRIGRAMS = "ix_devices_serial_number_trigrams"
"""An index that exists only if the database has pg_trgm (`app.db.serial_search`)."""

devices = Table(
    "devices",
    metadata,
    held_column("partner_id", "partners", nullable=False),
    Column("id", Uuid, nullable=False),
    held_column("customer_id", "customers", nullable=False),
    Column("identity", Uuid, nullable=False, comment="a digest of what identifies the device"),
    Column("state", Text, nullable=False, comment="by the last definite answer for this customer"),
    time_column("state_at", required=True),
    Column("registration_id", Uuid, nullable=False, comment="the one that the state comes from"),
    time_column("first_outcome_at", required=True),
    time_column("last_outcome_at", required=True),
    Column("last_registration_id", Uuid, nullable=False),
    Column("serial_number", Text),
    Column("manufacturer", Text),
    Column("model", Text),
    Column("product_key", Text),
    PrimaryKeyConstraint("partner_id", "id"),
    UniqueConstraint("customer_id", "identity"),
    one_of("state", DeviceState),
    # Outcomes of a known device change no indexed column, so PostgreSQL can use HOT updates.
    Index("ix_devices_customer_id_id", "customer_id", "id"),
    # As for registrations: exact values and prefixes, under row-level security.
    Index(
        "ix_devices_serial_number",
        "partner_id",
        "serial_number",
        postgresql_ops={"serial_number": "text_pattern_ops"},
        postgresql_where=text("serial_number IS NOT NULL"),
    ),
    Index(
        "ix_devices_partner_id_product_key",
        "partner_id",
        "product_key",
        postgresql_where=text("product_key IS NOT NULL"),
    ),
    # Devices that need attention. Most are registered, and their list needs no index.
    Index(
        "ix_devices_not_registered",
        "partner_id",
        "state",
        "id",
        postgresql_where=text("state <> 'registered'"),
    ),
    comment="kept by a trigger on registrations, in the same transaction",
)
devices.add_is_dependent_on(customers)

device_backfill = Table(
    "device_backfill",
    metadata,
    Column("last_id", Uuid, primary_key=True),
    Column("after_id", Uuid, nullable=False, comment="registrations up to here are done"),
    comment="a row: registrations up to last_id were there before devices, and are being looked through",
)

"""The tables of the service itself: removals, sealing and heartbeats."""

from sqlalchemy import (
    Column,
    DateTime,
    Table,
    Text,
    Uuid,
)

from app.db.tables.base import metadata, partner_column, time_column

removals = Table(
    "removals",
    metadata,
    Column("subject", Uuid, primary_key=True, comment="the partner, connection or customer"),
    partner_column(),
    Column("kind", Text, nullable=False),
    time_column("began_at", required=True),
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
    time_column("started_at", required=True),
    time_column("beat_at", required=True),
)

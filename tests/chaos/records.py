"""Reads both sides for `verdict`: the database's rows and the simulator's ledger.

It reads as the tables' owner, without row-level security and the product's queries, so that a wrong query
cannot hide a wrong row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy.engine import make_url

from tests.chaos.verdict import Attempt, Batch, Event, Held, Row, Upload

PATIENCE = 30.0
"""Seconds for the database to answer, a restart included."""

_OPEN = """
SELECT (SELECT count(*) FROM batches WHERE state NOT IN ('settled', 'cancelled')) AS batches,
       (SELECT count(*) FROM deliveries WHERE state IN ('pending', 'retrying')) AS deliveries
"""
_ROWS = """
SELECT r.id::text, r.line_ref, c.entra_tenant_id::text AS tenant, r.state, r.error_code,
       coalesce(b.group_tag, r.group_tag, o.group_tag) AS tag, r.batch_id::text
FROM registrations r JOIN orders o ON o.id = r.order_id JOIN customers c ON c.id = r.customer_id
LEFT JOIN batches b ON b.id = r.batch_id
"""
_BATCHES = (
    "SELECT id::text, state, uncertain, extract(epoch FROM settled_at)::float8 AS settled_at FROM batches"
)
_ATTEMPTS = """
SELECT batch_id::text, kind, request_id::text, extract(epoch FROM started_at)::float8 AS started_at, outcome
FROM batch_attempts
"""
_EVENTS = """
SELECT e.id::text, e.type, o.reference FROM events e LEFT JOIN orders o ON o.id = e.order_id
WHERE EXISTS (SELECT FROM deliveries d WHERE d.event_id = e.id)
"""
_TROUBLE = """
SELECT b.*, (SELECT json_agg(a ORDER BY a.started_at) FROM batch_attempts a
             WHERE a.batch_id = b.id) AS attempts
FROM batches b WHERE b.uncertain OR b.lookups > 0 OR b.state NOT IN ('settled', 'cancelled')
   OR b.failure_code IS NOT NULL ORDER BY b.created_at
"""


async def connect(database_url: str) -> asyncpg.Connection:
    url = make_url(database_url)
    return await asyncpg.connect(
        user=url.username,
        database=url.database,
        host=str(url.query["host"]),
        port=int(str(url.query["port"])),
        timeout=5,
        command_timeout=PATIENCE,
        server_settings={"application_name": "chaos"},
    )


async def open_work(database_url: str) -> tuple[int, int]:
    """Batches and deliveries that are not done yet."""
    connection = await connect(database_url)
    try:
        row = await connection.fetchrow(_OPEN)
    finally:
        await connection.close()
    assert row is not None
    return int(row["batches"]), int(row["deliveries"])


async def read(database_url: str) -> tuple[list[Row], list[Batch], list[Attempt], list[Event]]:
    connection = await connect(database_url)
    try:
        return (
            [Row(**dict(row)) for row in await connection.fetch(_ROWS)],
            [Batch(**dict(row)) for row in await connection.fetch(_BATCHES)],
            [Attempt(**dict(row)) for row in await connection.fetch(_ATTEMPTS)],
            [Event(**dict(row)) for row in await connection.fetch(_EVENTS)],
        )
    finally:
        await connection.close()


async def troubled_batches(database_url: str) -> list[dict[str, Any]]:
    """Whole rows of the disturbed batches, with their attempts, for people to read."""
    connection = await connect(database_url)
    try:
        return [dict(row) for row in await connection.fetch(_TROUBLE)]
    finally:
        await connection.close()


def held_of(ledger: dict[str, Any]) -> Sequence[Held]:
    return [
        Held(
            keys=tuple(key for key in (device["serial"], device["product_key"]) if key),
            tenant=device["customer"],
            tag=device["group_tag"],
            call=device["call"],
            submissions=device["submissions"],
        )
        for device in ledger["devices"]
    ]


def uploads_of(ledger: dict[str, Any]) -> Sequence[Upload]:
    return [
        Upload(
            number=call["number"],
            request_id=call["request_id"],
            at=call["at"],
            counted=bool(call["processed"] and not call["replayed"] and call["device_count"]),
        )
        for call in ledger["calls"]
        if call["operation"] in ("create", "append")
    ]

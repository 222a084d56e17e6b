"""Idempotency keys: which request used a key first, and the answer that it got."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db import tables
from app.db.sql import columns, execute, fetch_one, fetch_one_as
from app.domain.ids import PartnerId
from app.kernel.transactions import PartnerTx, SystemTx


@dataclass(frozen=True, slots=True)
class KnownKey:
    """An Idempotency-Key that an earlier request has used."""

    partner_id: PartnerId
    key: str
    fingerprint: bytes
    status: int | None
    """None: that request is still running."""
    location: str | None
    body: bytes | None
    running_until: datetime | None
    created_at: datetime


_OURS = "partner_id = :partner AND key = :key AND status IS NULL AND created_at = :begun"
"""SQL for the unanswered key of the request that began at that moment."""


async def begin(
    tx: PartnerTx,
    key: str,
    *,
    fingerprint: bytes,
    now: datetime,
    patience: timedelta,
    remembered_for: timedelta,
) -> KnownKey | None:
    """Takes the key for this request and returns None; otherwise the row of the request that used it first.

    If the first request died without an answer, its key is free after `patience`.
    """
    taken = await execute(
        tx,
        "INSERT INTO idempotency_keys (partner_id, key, fingerprint, running_until, created_at) "
        "VALUES (:partner, :key, :fingerprint, :until, :now) ON CONFLICT (partner_id, key) DO UPDATE "
        "SET fingerprint = excluded.fingerprint, running_until = excluded.running_until, "
        "created_at = excluded.created_at, status = NULL, location = NULL, body = NULL "
        "WHERE idempotency_keys.created_at < :forgotten "
        "OR (idempotency_keys.status IS NULL AND idempotency_keys.running_until < :now "
        "    AND idempotency_keys.fingerprint = excluded.fingerprint)",
        partner=tx.partner_id,
        key=key,
        fingerprint=fingerprint,
        until=now + patience,
        now=now,
        forgotten=now - remembered_for,
    )
    if taken:
        return None
    return await fetch_one_as(
        tx,
        KnownKey,
        f"SELECT {columns(tables.idempotency_keys)} FROM idempotency_keys "
        "WHERE partner_id = :partner AND key = :key",
        partner=tx.partner_id,
        key=key,
    )


async def is_answered(tx: PartnerTx, key: str) -> bool:
    row = await fetch_one(
        tx,
        "SELECT status FROM idempotency_keys WHERE partner_id = :partner AND key = :key",
        partner=tx.partner_id,
        key=key,
    )
    return row is not None and row["status"] is not None


async def complete(
    tx: PartnerTx,
    key: str,
    *,
    status: int,
    location: str | None,
    body: bytes,
    begun_at: datetime,
) -> bool:
    """Stores the answer. False if the key was given to a repeated request, which `begun_at` shows."""
    done = await execute(
        tx,
        "UPDATE idempotency_keys SET status = :status, location = :location, body = :body, "
        f"running_until = NULL WHERE {_OURS}",
        partner=tx.partner_id,
        key=key,
        status=status,
        location=location,
        body=body,
        begun=begun_at,
    )
    return bool(done)


async def renew(tx: PartnerTx, key: str, *, begun_at: datetime, until: datetime) -> None:
    """Keeps the key for a request that is still running."""
    await execute(
        tx,
        f"UPDATE idempotency_keys SET running_until = :until WHERE {_OURS}",
        partner=tx.partner_id,
        key=key,
        begun=begun_at,
        until=until,
    )


async def give_up(tx: PartnerTx, key: str, *, begun_at: datetime) -> None:
    """Frees the key, because the request was refused and changed nothing."""
    await execute(
        tx,
        f"DELETE FROM idempotency_keys WHERE {_OURS}",
        partner=tx.partner_id,
        key=key,
        begun=begun_at,
    )


async def empty_bodies(
    tx: SystemTx, *, longer_than: int, created_after: datetime, created_before: datetime
) -> int:
    """Empties the bodies of answers whose fingerprint has more bytes than `longer_than`."""
    return await execute(
        tx,
        "UPDATE idempotency_keys SET body = '' WHERE created_at >= :after AND created_at < :before "
        "AND octet_length(fingerprint) > :longer_than AND octet_length(body) > 0",
        after=created_after,
        before=created_before,
        longer_than=longer_than,
    )


async def purge(tx: SystemTx, *, created_before: datetime, limit: int = 5000) -> int:
    return await execute(
        tx,
        "DELETE FROM idempotency_keys WHERE (partner_id, key) IN ("
        "SELECT partner_id, key FROM idempotency_keys WHERE created_at < :before LIMIT :limit)",
        before=created_before,
        limit=limit,
    )

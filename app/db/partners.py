"""Partners and their API keys. Keys are looked up as the system, because the partner is not known yet."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import tables
from app.db.driver import fetch_alone
from app.db.sql import columns, execute, fetch_all, fetch_all_as, fetch_one, fetch_one_as, insert
from app.domain.ids import PartnerId
from app.domain.partner import ApiKey, HeldKey, KnownKey, Partner, SuccessorKey
from app.kernel.transactions import PartnerTx, SystemTx

_COLUMNS = columns(tables.partners)


async def add(tx: SystemTx, *, id: UUID, name: str, role: str, now: datetime) -> None:
    await insert(tx, "partners", {"id": id, "name": name, "role": role, "created_at": now})


async def get(tx: SystemTx, partner_id: PartnerId) -> Partner | None:
    return await fetch_one_as(tx, Partner, f"SELECT {_COLUMNS} FROM partners WHERE id = :id", id=partner_id)


async def get_by_name(tx: SystemTx, name: str) -> Partner | None:
    return await fetch_one_as(tx, Partner, f"SELECT {_COLUMNS} FROM partners WHERE name = :name", name=name)


async def list_all(tx: SystemTx) -> list[Partner]:
    return await fetch_all_as(tx, Partner, f"SELECT {_COLUMNS} FROM partners ORDER BY name")


async def add_key(
    tx: PartnerTx,
    *,
    id: UUID,
    name: str,
    prefix: str,
    secret_digest: bytes,
    scopes: list[str],
    expires_at: datetime | None,
    now: datetime,
) -> None:
    await insert(
        tx,
        "api_keys",
        {
            "id": id,
            "partner_id": tx.partner_id,
            "name": name,
            "prefix": prefix,
            "secret_digest": secret_digest,
            "scopes": scopes,
            "expires_at": expires_at,
            "created_at": now,
        },
    )


async def find_key(session: AsyncConnection, prefix: str) -> KnownKey | None:
    """The key, of any partner, with its partner's role. Outside a transaction, because every call needs it.

    The SQL function `find_api_key` has the system's rights.
    """
    rows = await fetch_alone(
        session,
        "SELECT id, partner_id, name, prefix, secret_digest, scopes, expires_at, revoked_at, last_used_at, "
        "partner_role, partner_name FROM find_api_key(:prefix)",
        {"prefix": prefix},
    )
    return KnownKey(**rows[0]) if rows else None


async def list_keys(tx: PartnerTx) -> list[ApiKey]:
    return await fetch_all_as(
        tx,
        ApiKey,
        "SELECT k.id, k.name, k.prefix, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at, "
        "n.prefix AS replaced_by FROM api_keys k "
        "LEFT JOIN api_key_successors s ON (s.partner_id, s.key_id) = (k.partner_id, k.id) "
        "LEFT JOIN api_keys n ON (n.partner_id, n.id) = (s.partner_id, s.successor_id) "
        "WHERE k.partner_id = :partner ORDER BY k.created_at, k.id",
        partner=tx.partner_id,
    )


async def revoke_key(tx: PartnerTx, prefix: str, now: datetime) -> bool:
    """Revokes the key. False if there is no such key, or if it was revoked before."""
    return bool(
        await execute(
            tx,
            "UPDATE api_keys SET revoked_at = :now "
            "WHERE partner_id = :partner AND prefix = :prefix AND revoked_at IS NULL",
            partner=tx.partner_id,
            prefix=prefix,
            now=now,
        )
    )


async def note_key_used(tx: SystemTx, key_id: UUID, now: datetime) -> None:
    await execute(tx, "UPDATE api_keys SET last_used_at = :now WHERE id = :id", id=key_id, now=now)


async def hold_key(tx: PartnerTx, key_id: UUID) -> HeldKey | None:
    """The key, locked until the transaction ends, so that rotations of one key run one after another."""
    return await fetch_one_as(
        tx,
        HeldKey,
        "SELECT name, prefix, scopes, expires_at, revoked_at FROM api_keys "
        "WHERE partner_id = :partner AND id = :id FOR NO KEY UPDATE",
        partner=tx.partner_id,
        id=key_id,
    )


async def successor_of(tx: PartnerTx, key_id: UUID) -> SuccessorKey | None:
    """The key that replaced this one in its last rotation, locked until the transaction ends."""
    return await fetch_one_as(
        tx,
        SuccessorKey,
        "SELECT k.id, k.prefix, k.expires_at, k.revoked_at, k.last_used_at FROM api_key_successors s "
        "JOIN api_keys k ON (k.partner_id, k.id) = (s.partner_id, s.successor_id) "
        "WHERE s.partner_id = :partner AND s.key_id = :id FOR NO KEY UPDATE OF k",
        partner=tx.partner_id,
        id=key_id,
    )


async def first_predecessor(tx: PartnerTx, key_id: UUID) -> UUID | None:
    """The first key of the rotations that led to this one; None if it was not made by a rotation."""
    row = await fetch_one(
        tx,
        "WITH RECURSIVE line (id, steps) AS ("
        "SELECT key_id, 1 FROM api_key_successors WHERE partner_id = :partner AND successor_id = :id "
        "UNION ALL SELECT s.key_id, line.steps + 1 FROM api_key_successors s "
        "JOIN line ON s.successor_id = line.id WHERE s.partner_id = :partner) "
        "SELECT id FROM line ORDER BY steps DESC LIMIT 1",
        partner=tx.partner_id,
        id=key_id,
    )
    return None if row is None else row["id"]


async def note_successor(tx: PartnerTx, key_id: UUID, successor_id: UUID, now: datetime) -> None:
    await execute(
        tx,
        "INSERT INTO api_key_successors (partner_id, key_id, successor_id, rotated_at) "
        "VALUES (:partner, :key, :successor, :now) ON CONFLICT (key_id) "
        "DO UPDATE SET successor_id = excluded.successor_id, rotated_at = excluded.rotated_at",
        partner=tx.partner_id,
        key=key_id,
        successor=successor_id,
        now=now,
    )


async def delete_key(tx: PartnerTx, key_id: UUID) -> None:
    """Deletes a key that has never been used, so nothing was made with it."""
    await execute(
        tx,
        "DELETE FROM api_keys WHERE partner_id = :partner AND id = :id AND last_used_at IS NULL",
        partner=tx.partner_id,
        id=key_id,
    )


_MADE_SOMETHING = " OR ".join(
    f"EXISTS (SELECT FROM {table} WHERE {column} = k.id)"
    for table, column in (
        ("orders", "created_by"),
        ("imports", "created_by"),
        ("consent_changes", "made_by"),
        ("batch_attempts", "made_by"),
    )
)
_ENDED = "least({0}.revoked_at, {0}.expires_at) < :before"  # NULL is ignored


async def purge_keys(
    tx: SystemTx, *, ended_before: datetime, after: UUID | None, limit: int
) -> tuple[int, UUID | None]:
    """Deletes those of the next `limit` keys ended before `ended_before` that no row names as its author.
    Returns how many, and the key after which to continue (None: that was the last).

    A key that replaced another one is kept while that one may still be rotated. The note of the rotation is
    deleted together with either key.
    """
    found = await fetch_all(
        tx,
        f"SELECT k.id FROM api_keys k WHERE {_ENDED.format('k')} "
        "AND (CAST(:after AS uuid) IS NULL OR k.id > CAST(:after AS uuid)) "
        "ORDER BY k.id LIMIT :limit FOR UPDATE SKIP LOCKED",
        before=ended_before,
        after=after,
        limit=limit,
    )
    ids = [row["id"] for row in found]
    gone = await execute(
        tx,
        f"DELETE FROM api_keys k WHERE k.id = ANY(:ids) AND NOT ({_MADE_SOMETHING}) AND NOT EXISTS ("
        "SELECT FROM api_key_successors s JOIN api_keys earlier ON earlier.id = s.key_id "
        f"WHERE s.successor_id = k.id AND ({_ENDED.format('earlier')}) IS NOT TRUE)",
        ids=ids,
        before=ended_before,
    )
    return gone, ids[-1] if len(ids) == limit else None


async def end_key_by(tx: PartnerTx, key_id: UUID, until: datetime) -> None:
    """Shortens the key's life to that time; never lengthens it."""
    await execute(
        tx,
        "UPDATE api_keys SET expires_at = least(expires_at, :until) WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=key_id,
        until=until,
    )

"""Group tags that a platform has for a customer: one batch creates a tag, later ones append to it.

The row is also the lock: while one batch creates a tag, the others of that tag wait.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.db.sql import execute, fetch_all, fetch_one
from app.domain.group_tag import tag_key
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class GroupTag:
    tag: str
    known: bool
    creating_batch_id: UUID | None
    """The batch that is creating it now, if that batch is still open."""
    creator_due_at: datetime | None
    """When that batch is or was due."""


async def is_known(tx: PartnerTx, customer_id: UUID, group_tag: str) -> bool:
    """Whether the platform has the tag in exactly this spelling. Locks nothing: if the tag has gone
    meanwhile, the answer to the next call shows it."""
    row = await fetch_one(
        tx,
        "SELECT known AND tag = :tag AS known FROM group_tags "
        "WHERE partner_id = :partner AND customer_id = :customer AND tag_key = :key",
        partner=tx.partner_id,
        customer=customer_id,
        key=tag_key(group_tag),
        tag=group_tag,
    )
    return row is not None and bool(row["known"])


async def lock(tx: PartnerTx, customer_id: UUID, group_tag: str, now: datetime) -> GroupTag:
    """The tag's row, created if missing, locked until the transaction ends."""
    await execute(
        tx,
        "INSERT INTO group_tags (customer_id, tag_key, partner_id, tag, known, updated_at) "
        "VALUES (:customer, :key, :partner, :tag, false, :now) ON CONFLICT DO NOTHING",
        customer=customer_id,
        key=tag_key(group_tag),
        partner=tx.partner_id,
        tag=group_tag,
        now=now,
    )
    row = await fetch_one(
        tx,
        "SELECT tag, known, creating_batch_id FROM group_tags "
        "WHERE partner_id = :partner AND customer_id = :customer AND tag_key = :key FOR UPDATE",
        partner=tx.partner_id,
        customer=customer_id,
        key=tag_key(group_tag),
    )
    if row is None:
        raise LookupError("the group tag's row has gone")
    # A separate statement, after waiting for the lock: a join above would still see the batch as it was
    # before the wait, which is none if another batch has just become the creator.
    creator = await fetch_one(
        tx,
        "SELECT due_at FROM batches WHERE partner_id = :partner AND id = :creator "
        "AND state IN ('queued', 'submitting', 'submitted', 'unknown')",
        partner=tx.partner_id,
        creator=row["creating_batch_id"],
    )
    if creator is None:
        return GroupTag(row["tag"], row["known"], None, None)
    return GroupTag(row["tag"], row["known"], row["creating_batch_id"], creator["due_at"])


async def set_creating(
    tx: PartnerTx,
    customer_id: UUID,
    group_tag: str,
    batch_id: UUID,
    now: datetime,
) -> None:
    await execute(
        tx,
        "UPDATE group_tags SET creating_batch_id = :batch, updated_at = :now "
        "WHERE partner_id = :partner AND customer_id = :customer AND tag_key = :key",
        partner=tx.partner_id,
        customer=customer_id,
        key=tag_key(group_tag),
        batch=batch_id,
        now=now,
    )


async def stop_creating(
    tx: PartnerTx, customer_id: UUID, group_tag: str, batch_id: UUID, now: datetime
) -> bool:
    """Ends this batch's creation of the tag, and locks the row. False if it was not creating the tag."""
    return bool(
        await execute(
            tx,
            "UPDATE group_tags SET creating_batch_id = NULL, updated_at = :now "
            "WHERE partner_id = :partner AND customer_id = :customer AND tag_key = :key "
            "AND creating_batch_id = :batch",
            partner=tx.partner_id,
            customer=customer_id,
            key=tag_key(group_tag),
            batch=batch_id,
            now=now,
        )
    )


async def set_known(
    tx: PartnerTx,
    customer_id: UUID,
    group_tag: str,
    *,
    known: bool,
    now: datetime,
) -> None:
    """Records whether the platform has the tag. If it does, `group_tag` is the platform's own spelling."""
    await execute(
        tx,
        "UPDATE group_tags SET known = :known, creating_batch_id = NULL, updated_at = :now, "
        "tag = CASE WHEN :known THEN :tag ELSE tag END "
        "WHERE partner_id = :partner AND customer_id = :customer AND tag_key = :key",
        partner=tx.partner_id,
        customer=customer_id,
        key=tag_key(group_tag),
        tag=group_tag,
        known=known,
        now=now,
    )


async def forget_of_connection(tx: PartnerTx, connection_id: UUID, now: datetime) -> None:
    """Marks the connection's tags as unknown, after a change of tenant. They are looked up before use."""
    await execute(
        tx,
        "UPDATE group_tags SET known = false, updated_at = :now WHERE partner_id = :partner AND known "
        "AND customer_id IN (SELECT id FROM customers WHERE partner_id = :partner "
        "AND connection_id = :connection)",
        partner=tx.partner_id,
        connection=connection_id,
        now=now,
    )


async def known(tx: PartnerTx, customer_id: UUID) -> dict[str, str]:
    """The customer's tags on the platform, in the platform's spelling, by `tag_key`."""
    rows = await fetch_all(
        tx,
        "SELECT tag FROM group_tags WHERE partner_id = :partner AND customer_id = :customer AND known",
        partner=tx.partner_id,
        customer=customer_id,
    )
    return {tag_key(row["tag"]): row["tag"] for row in rows}

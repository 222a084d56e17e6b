"""Batches: the work queue. Every write after a claim (app/db/batch_claims.py) checks the claim's owner."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from app.db import tables
from app.db.driver import run_raw
from app.db.engine import arrays
from app.db.holds import NONE_STORED, is_portal, takes_work
from app.db.ids import new_row_ids
from app.db.leases import BATCHES, LostClaim
from app.db.paging import Page, PageRequest
from app.db.registrations import state_of
from app.db.searching import Search, equal, page_of
from app.db.sql import (
    columns,
    execute,
    fetch_all,
    fetch_all_as,
    fetch_one,
    fetch_one_as,
    listed,
)
from app.domain.actor import SYSTEM, Actor
from app.domain.batch import BATCH_TRANSITIONS, IN_FLIGHT, Batch, BatchState, BatchSummary
from app.domain.group_tag import tag_key
from app.domain.hold import HoldReason
from app.domain.ids import PartnerId
from app.domain.transitions import IllegalMove, sources_of
from app.kernel.transactions import PartnerTx, SystemTx


@dataclass(frozen=True, slots=True)
class StuckBatch:
    id: UUID
    partner_id: PartnerId
    state: str
    due_at: datetime


_IN_FLIGHT = listed(IN_FLIGHT)
_CANCELLABLE = listed(sources_of(BATCH_TRANSITIONS, BatchState.CANCELLED))


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch that one worker has claimed until `lease_until`; `owner` is the fencing token."""

    partner_id: PartnerId
    id: UUID
    owner: UUID
    state: BatchState
    order_id: UUID
    customer_id: UUID
    connection_id: UUID
    entra_tenant_id: UUID
    """The customer's Entra tenant."""
    group_tag: str
    submissions: int
    polls: int
    lookups: int
    troubles: int
    request_id: UUID | None
    correlation_id: UUID
    uncertain: bool
    tracking_id: str | None
    failure_code: str | None
    """The code of the last failure, if the batch is in trouble."""
    submitted_at: datetime | None
    settled_at: datetime | None
    lease_until: datetime

    @property
    def actor(self) -> Actor:
        return SYSTEM


def claim_of(row: Mapping[str, Any]) -> Claim:
    return Claim(**{**row, "state": BatchState(row["state"])})


async def claim_by_hand(
    tx: PartnerTx,
    batch_id: UUID,
    *,
    owner: UUID,
    now: datetime,
    lease: timedelta,
    settled: bool = False,
) -> Claim | None:
    """Claims a portal connection's batch for a person who records its outcome, fenced like a worker's claim.

    None if it is claimed already or does not wait for a person. With `settled`, a batch whose outcomes are
    all recorded can be claimed too.
    """
    states = [BatchState.QUEUED, BatchState.SUBMITTED, *([BatchState.SETTLED] if settled else [])]
    row = await fetch_one(
        tx,
        f"UPDATE batches b SET {BATCHES.claimed}, updated_at = :now "
        "FROM connections n, customers c "
        f"WHERE n.id = b.connection_id AND {is_portal('n')} AND b.partner_id = :partner AND b.id = :id "
        f"AND b.state = ANY(:states) AND {BATCHES.free('b')} "
        f"AND c.id = b.customer_id RETURNING {columns(tables.batches, 'b', Claim)}, c.entra_tenant_id",
        states=states,
        partner=tx.partner_id,
        id=batch_id,
        owner=owner,
        worker=None,
        until=now + lease,
        now=now,
    )
    return None if row is None else claim_of(row)


async def count_due(tx: SystemTx, now: datetime, *, limit: int) -> int:
    """The number of batches that could be claimed now, counted up to `limit` of each kind."""
    due = (
        "SELECT FROM batches b JOIN connections n ON n.id = b.connection_id WHERE {} "
        f"AND b.due_at <= :now AND {BATCHES.free('b')} AND {takes_work('n')} LIMIT :limit"
    )
    queued, under_way = due.format("b.state = 'queued'"), due.format(f"b.state IN ({_IN_FLIGHT})")
    row = await fetch_one(
        tx,
        f"SELECT count(*) AS n FROM (({queued}) UNION ALL ({under_way})) AS due",
        now=now,
        limit=limit,
    )
    return int(row["n"]) if row else 0


async def lock_claimed(tx: PartnerTx, claim: Claim) -> Batch | None:
    """The batch, locked; None if the claim has been lost."""
    return await fetch_one_as(
        tx,
        Batch,
        f"SELECT {columns(tables.batches, of=Batch)} FROM batches "
        "WHERE partner_id = :partner AND id = :id AND owner = :owner FOR NO KEY UPDATE",
        partner=tx.partner_id,
        id=claim.id,
        owner=claim.owner,
    )


async def update_claimed(tx: PartnerTx, claim: Claim, values: dict[str, Any]) -> bool:
    """Updates the batch. Returns False, and changes nothing, if the claim has been lost.

    Raises IllegalMove.
    """
    assignments = ", ".join(f"{name} = :set_{name}" for name in values)
    mine = "partner_id = :partner AND id = :id AND owner = :owner"
    given = {"partner": tx.partner_id, "id": claim.id, "owner": claim.owner}
    new = BatchState(values["state"]) if "state" in values else None
    sources = BatchState if new is None else {new} | sources_of(BATCH_TRANSITIONS, new)
    changed = await execute(
        tx,
        f"UPDATE batches SET {assignments} WHERE {mine} AND state = ANY(:sources)",
        **given,
        sources=sorted(sources),
        **{f"set_{name}": value for name, value in values.items()},
    )
    if not changed and new is not None:
        present = await fetch_one(tx, f"SELECT state FROM batches WHERE {mine}", **given)
        if present is not None:
            raise IllegalMove("batches", present["state"], new)
    return bool(changed)


async def write_claimed(tx: PartnerTx, claim: Claim, values: dict[str, Any]) -> None:
    """`update_claimed`, but raises LostClaim if the claim has been lost."""
    if not await update_claimed(tx, claim, values):
        raise LostClaim


@dataclass(frozen=True, slots=True)
class NewBatch:
    order_id: UUID
    customer_id: UUID
    connection_id: UUID
    group_tag: str
    device_count: int
    state: BatchState
    """The state if there is no reason to hold it."""
    due_at: datetime
    uncertain: bool = False


_GIVEN = tuple(field.name for field in fields(NewBatch))
_OF_EACH = ("id", "correlation_id", *_GIVEN)
_ADD = (
    f"INSERT INTO batches (partner_id, holds, created_at, updated_at, {', '.join(_OF_EACH)}) "
    f"SELECT $1::uuid, $2::text[], $3::timestamptz, $3, {', '.join(_OF_EACH)} "
    f"FROM {arrays(tables.batches, _OF_EACH, first=4)}"
)


async def add(
    tx: PartnerTx, new: Sequence[NewBatch], now: datetime, *, holds: Collection[HoldReason] = ()
) -> list[UUID]:
    """Adds batches, held for these reasons if there are any. Returns their ids."""
    if not new:
        return []
    if holds:
        new = [replace(batch, state=BatchState.HELD) for batch in new]
    ids = new_row_ids(len(new))
    rows = [
        (id, uuid4(), *(getattr(batch, name) for name in _GIVEN)) for id, batch in zip(ids, new, strict=True)
    ]
    columns = (list(column) for column in zip(*rows, strict=True))
    await run_raw(tx.session, _ADD, tx.partner_id, sorted(holds), now, *columns)
    return ids


async def set_sizes(tx: PartnerTx, batch_ids: list[UUID], device_counts: list[int]) -> None:
    await execute(
        tx,
        "UPDATE batches b SET device_count = u.n "
        "FROM unnest(CAST(:ids AS uuid[]), CAST(:counts AS integer[])) AS u(id, n) "
        "WHERE b.partner_id = :partner AND b.id = u.id AND b.device_count <> u.n",
        partner=tx.partner_id,
        ids=batch_ids,
        counts=device_counts,
    )


async def hasten_under_way(tx: PartnerTx, customer_id: UUID, now: datetime) -> int:
    """After consent has returned: batches that are at Microsoft become due now. Returns how many."""
    return await execute(
        tx,
        f"UPDATE batches SET due_at = :now WHERE partner_id = :partner AND customer_id = :customer "
        f"AND state IN ({_IN_FLIGHT}) AND due_at > :now AND {BATCHES.free()}",
        partner=tx.partner_id,
        customer=customer_id,
        now=now,
    )


async def lock_waiting(tx: PartnerTx, order_id: UUID) -> list[UUID]:
    """Locks the order's batches that no call has begun to send. Returns their ids."""
    rows = await fetch_all(
        tx,
        "SELECT id FROM batches WHERE partner_id = :partner AND order_id = :order "
        f"AND state IN ({_CANCELLABLE}) ORDER BY id FOR NO KEY UPDATE",
        partner=tx.partner_id,
        order=order_id,
    )
    return [row["id"] for row in rows]


async def cancel(tx: PartnerTx, batch_ids: list[UUID], now: datetime) -> None:
    """Cancels batches whose rows are cancelled: until then a batch's state is that of its rows."""
    await execute(
        tx,
        f"UPDATE batches SET state = 'cancelled', {NONE_STORED}, {BATCHES.given_up}, settled_at = :now, "
        "updated_at = :now WHERE partner_id = :partner AND id = ANY(:ids)",
        partner=tx.partner_id,
        ids=batch_ids,
        now=now,
    )


async def hasten_tag(tx: PartnerTx, customer_id: UUID, group_tag: str, now: datetime) -> int:
    """Makes batches that wait for this tag due, because its creation has ended. Returns how many.

    Skips batches that another worker has locked: it waits for the tag's row, which the caller holds.
    """
    waiting = (
        "FROM batches WHERE partner_id = :partner AND customer_id = :customer AND state = 'queued' "
        "AND due_at > :now"
    )
    given = {"partner": tx.partner_id, "customer": customer_id, "now": now}
    found = await fetch_all(tx, f"SELECT DISTINCT group_tag {waiting}", **given)
    tags = [row["group_tag"] for row in found if tag_key(row["group_tag"]) == tag_key(group_tag)]
    if not tags:
        return 0
    return await execute(
        tx,
        f"UPDATE batches SET due_at = :now WHERE id IN (SELECT id {waiting} AND group_tag = ANY(:tags) "
        f"AND {BATCHES.free()} FOR NO KEY UPDATE SKIP LOCKED)",
        **given,
        tags=tags,
    )


async def get(tx: PartnerTx, batch_id: UUID) -> Batch | None:
    return await fetch_one_as(
        tx,
        Batch,
        f"SELECT {columns(tables.batches, of=Batch)} FROM batches WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=batch_id,
    )


async def list_page(
    tx: PartnerTx,
    page: PageRequest,
    *,
    order_id: UUID | None = None,
    customer_id: UUID | None = None,
    state: str | None = None,
) -> Page[Batch]:
    given = equal(order_id=order_id, customer_id=customer_id, state=state)
    by = next(iter(given), None)  # the first of these matches the fewest rows
    found_by = "" if by is None else f"{by} = :{by}"
    filters = "".join(f"AND b.{name} = :{name} " for name in given if name != by)
    search = Search(
        f"SELECT {columns(tables.batches, 'b', Batch)} FROM batches b",
        "batches",
        "b",
        found_by,
        filters,
        given,
    )
    return await page_of(tx, Batch, page, search)


async def of_order(tx: PartnerTx, order_id: UUID) -> list[BatchSummary]:
    """An order's batches, oldest first: what names their files, and their outcomes."""
    return await fetch_all_as(
        tx,
        BatchSummary,
        "SELECT id, group_tag, state, device_count, submitted_at, settled_at FROM batches "
        "WHERE partner_id = :partner AND order_id = :order ORDER BY id",
        partner=tx.partner_id,
        order=order_id,
    )


async def left_doubts(tx: PartnerTx, order_id: UUID) -> bool:
    """Whether a batch of the order may have sent devices to Microsoft without our knowing the outcome."""
    found = await fetch_one(
        tx,
        "SELECT id FROM batches WHERE partner_id = :partner AND order_id = :order "
        "AND (uncertain OR failure_code = 'outcome_unknown') LIMIT 1",
        partner=tx.partner_id,
        order=order_id,
    )
    return found is not None


async def counts(tx: PartnerTx, batch_ids: list[UUID]) -> dict[UUID, dict[str, int]]:
    found = await fetch_all(
        tx,
        f"SELECT c.bucket, {state_of('c.state')} AS state, sum(c.n) AS n "
        "FROM registration_counts c JOIN batches b ON b.id = c.bucket AND b.order_id = c.order_id "
        "WHERE c.partner_id = :partner AND b.id = ANY(:ids) AND c.n <> 0 GROUP BY 1, 2",
        partner=tx.partner_id,
        ids=batch_ids,
    )
    counted: dict[UUID, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    for row in found:
        counted[row["bucket"]][row["state"]] = int(row["n"])
    return counted


async def pull_back(tx: SystemTx, now: datetime, *, slack: timedelta) -> int:
    """Corrects due times and leases that a fast clock wrote: their remaining length counts from now.

    Running work keeps its batch, with a whole lease from now.
    """
    return await execute(
        tx,
        f"UPDATE batches SET due_at = due_at - (updated_at - :now), {BATCHES.moved}, updated_at = :now "
        f"WHERE updated_at > :later AND (state IN ({_IN_FLIGHT}) "
        f"OR (state = 'queued' AND (due_at > :later OR {BATCHES.until} > :later)))",
        now=now,
        later=now + slack,
    )


async def stuck(tx: SystemTx, *, before: datetime, limit: int = 50) -> list[StuckBatch]:
    """Work under way that was due long ago, although no worker has it and nothing delays it.

    Queued batches are left out: behind a large order they may rightly wait for hours. So are batches that
    wait for a person at a portal.
    """
    return await fetch_all_as(
        tx,
        StuckBatch,
        "SELECT b.id, b.partner_id, b.state, b.due_at FROM batches b "
        "JOIN connections n ON n.id = b.connection_id "
        f"WHERE b.state IN ({_IN_FLIGHT}) AND b.due_at < :before "
        f"AND {BATCHES.free('b', 'before')} "
        f"AND {takes_work('n', ':before')} "
        "ORDER BY b.due_at LIMIT :limit",
        before=before,
        limit=limit,
    )

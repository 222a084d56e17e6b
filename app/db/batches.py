"""Batches: the work queue. A claim is one statement; everything after it is fenced by its owner."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.paging import Page, PageRequest, cut
from app.db.registrations import state_of
from app.db.sql import Record, execute, fetch_all, fetch_one, insert, listed
from app.domain.batch import IN_FLIGHT, BatchState
from app.domain.ids import PartnerId
from app.domain.schedule import share_of

_IN_FLIGHT = listed(IN_FLIGHT)

# Rounds over partners: of those with something due, the one whose last turn is longest ago, after all those
# that hold less than their share of the lanes. A share is an order and no bar: no lane idles for it.
# Then over what the partner has. What is under way already (polls, look-ups, interrupted calls) goes before
# new submissions, and does not count as a customer's turn. Of new submissions the customer whose last turn is
# longest ago comes first. A window keeps one customer from filling its connection; claims that are made at
# the very same moment do not see each other and may pass it by their number.
#
# The cost follows the number of partners that wait, and of customers that one of them has waiting, up to
# WINDOW: `queued` and `ahead` step through an index from partner to partner and from customer to customer,
# and only the chosen customer's queue is opened. The WINDOW begins behind the customer of the last turn, so
# that everybody comes into it. With more customers than that the round is not exact, and still a round.
#
# What belongs to a portal connection is a person's: it has no client id, and no worker's query finds it
# (ADR 0016). It may be uploaded for weeks, and would be counted against every waiting customer if it were
# under way.
WINDOW: Final = 100
"""Waiting customers of a partner that one claim compares."""

_FREE = "(b.lease_until IS NULL OR b.lease_until < :now)"
_READY = "n.client_id IS NOT NULL AND (n.not_before IS NULL OR n.not_before <= :now)"


def _step(start: str, then: str) -> str:
    """Steps through the waiting customers of partner `p`: the first one, and from `w` to the next."""
    first = (
        "SELECT b.customer_id FROM batches b WHERE b.state = 'queued' AND b.partner_id = p.partner_id "
        "AND {} ORDER BY b.customer_id LIMIT 1"
    )
    return (
        f"({first.format(start)}) UNION ALL SELECT ({first.format(f'b.customer_id > w.customer_id {then}')}) "
        "FROM {name} w WHERE w.customer_id IS NOT NULL"
    )


_CLAIM = f"""
WITH RECURSIVE under_way AS MATERIALIZED (
    SELECT b.partner_id, b.customer_id, b.connection_id, b.lease_until >= :now AS held,
        b.due_at <= :now AND {_FREE} AND {_READY} AS due
    FROM batches b JOIN connections n ON n.id = b.connection_id
    WHERE b.state IN ({_IN_FLIGHT}) AND n.client_id IS NOT NULL
    UNION ALL
    SELECT partner_id, customer_id, connection_id, true, false
    FROM batches WHERE state = 'queued' AND lease_until >= :now
), full_customers AS MATERIALIZED (
    SELECT customer_id FROM under_way GROUP BY customer_id HAVING count(*) >= :customer_window
), full_connections AS MATERIALIZED (
    SELECT connection_id FROM under_way GROUP BY connection_id HAVING count(*) >= :connection_window
), of_partner AS MATERIALIZED (
    SELECT partner_id, count(*) FILTER (WHERE held) AS held, bool_or(due) AS due
    FROM under_way GROUP BY partner_id
), queued(partner_id) AS (
    (SELECT partner_id FROM batches WHERE state = 'queued' ORDER BY partner_id LIMIT 1)
    UNION ALL
    SELECT (SELECT b.partner_id FROM batches b WHERE b.state = 'queued' AND b.partner_id > q.partner_id
            ORDER BY b.partner_id LIMIT 1)
    FROM queued q WHERE q.partner_id IS NOT NULL
), asking AS MATERIALIZED (
    SELECT partner_id FROM queued WHERE partner_id IS NOT NULL
    UNION SELECT partner_id FROM of_partner WHERE due
), share AS MATERIALIZED (
    SELECT (CAST(:shares AS integer[]))[least(greatest((SELECT count(*) FROM asking), 1), :lanes)]
        * greatest((SELECT count(*) FROM worker_heartbeats WHERE beat_at >= :heard_since), 1) AS lanes
), turns AS MATERIALIZED (
    SELECT a.partner_id, coalesce(o.due, false) AS due,
        coalesce(t.after_id, '00000000-0000-0000-0000-000000000000') AS after_id
    FROM asking a LEFT JOIN of_partner o ON o.partner_id = a.partner_id
    LEFT JOIN partner_turns t ON t.partner_id = a.partner_id AND t.kind = 'batches'
    ORDER BY coalesce(o.held, 0) >= (SELECT lanes FROM share), t.last_turn_at NULLS FIRST, a.partner_id
), next AS MATERIALIZED (
    SELECT coalesce(followed.id, fresh.id) AS id FROM turns p
    LEFT JOIN LATERAL (
        SELECT b.id FROM batches b JOIN connections n ON n.id = b.connection_id
        WHERE p.due AND b.partner_id = p.partner_id AND b.state IN ({_IN_FLIGHT})
        AND b.due_at <= :now AND {_FREE} AND {_READY}
        ORDER BY b.due_at, b.id LIMIT 1 FOR NO KEY UPDATE OF b SKIP LOCKED
    ) followed ON true
    LEFT JOIN LATERAL (
        SELECT chosen.id FROM (
            WITH RECURSIVE ahead(customer_id) AS (
                {_step("b.customer_id > p.after_id", "").format(name="ahead")}
            ), behind(customer_id) AS (
                {_step("b.customer_id <= p.after_id", "AND b.customer_id <= p.after_id").format(name="behind")}
            ), waiting AS (
                SELECT c.id, c.last_turn_at
                FROM (SELECT customer_id FROM ahead UNION ALL SELECT customer_id FROM behind) w
                CROSS JOIN LATERAL (
                    SELECT id, connection_id, last_turn_at FROM customers WHERE id = w.customer_id LIMIT 1
                ) c
                CROSS JOIN LATERAL (SELECT FROM connections n WHERE n.id = c.connection_id AND {_READY} LIMIT 1) n
                CROSS JOIN LATERAL (
                    SELECT FROM batches b WHERE b.partner_id = p.partner_id AND b.customer_id = c.id
                    AND b.state = 'queued' AND b.due_at <= :now AND {_FREE} LIMIT 1
                ) due
                WHERE c.id NOT IN (SELECT customer_id FROM full_customers)
                AND c.connection_id NOT IN (SELECT connection_id FROM full_connections)
                LIMIT {WINDOW}
            ) SELECT id FROM waiting ORDER BY last_turn_at, id
        ) customer CROSS JOIN LATERAL (
            SELECT b.id FROM batches b WHERE b.partner_id = p.partner_id AND b.customer_id = customer.id
            AND b.state = 'queued' AND b.due_at <= :now AND {_FREE}
            ORDER BY b.due_at, b.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
        ) chosen WHERE followed.id IS NULL LIMIT 1
    ) fresh ON true
    WHERE followed.id IS NOT NULL OR fresh.id IS NOT NULL LIMIT 1
), claimed AS (
    UPDATE batches b SET owner = :owner, lease_until = :until, updated_at = :now
    WHERE b.id = (SELECT id FROM next) AND b.state IN ('queued', {_IN_FLIGHT}) AND {_FREE}
    RETURNING b.*
), turn AS (
    UPDATE customers SET last_turn_at = :now
    FROM claimed WHERE customers.id = claimed.customer_id AND claimed.state = 'queued'
), seat AS (
    INSERT INTO partner_turns (partner_id, kind, last_turn_at, after_id)
    SELECT partner_id, 'batches', :now, CASE WHEN state = 'queued' THEN customer_id END FROM claimed
    WHERE NOT EXISTS (SELECT FROM partner_turns t WHERE t.partner_id = claimed.partner_id
        AND t.kind = 'batches')
    ON CONFLICT DO NOTHING
), free AS MATERIALIZED (
    SELECT t.partner_id FROM partner_turns t JOIN claimed ON claimed.partner_id = t.partner_id
    WHERE t.kind = 'batches' FOR NO KEY UPDATE OF t SKIP LOCKED
), round AS (
    UPDATE partner_turns t SET last_turn_at = :now,
        after_id = CASE WHEN claimed.state = 'queued' THEN claimed.customer_id ELSE t.after_id END
    FROM claimed JOIN free ON free.partner_id = claimed.partner_id
    WHERE t.partner_id = claimed.partner_id AND t.kind = 'batches'
)
SELECT claimed.*, customers.entra_tenant_id
FROM claimed JOIN customers ON customers.id = claimed.customer_id
"""
# `free`: who takes a turn at the same moment writes it down too, and nobody waits for the other's commit.


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch that is this worker's until `lease_until`; `owner` is the fencing token."""

    partner_id: PartnerId
    id: UUID
    owner: UUID
    state: BatchState
    order_id: UUID
    customer_id: UUID
    connection_id: UUID
    entra_tenant_id: UUID
    """The customer's."""
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
    """Of the last failure, if the batch is in trouble."""
    submitted_at: datetime | None
    settled_at: datetime | None
    lease_until: datetime


async def claim_one(
    session: AsyncConnection,
    *,
    owner: UUID,
    now: datetime,
    lease: timedelta,
    customer_window: int,
    connection_window: int,
    lanes: int = 1,
) -> Claim | None:
    """As the system: the next due batch, or None. `lanes`: those of one worker process."""
    row = await fetch_one(
        session,
        _CLAIM,
        owner=owner,
        now=now,
        until=now + lease,
        customer_window=customer_window,
        connection_window=connection_window,
        lanes=lanes,
        shares=[share_of(lanes, partners) for partners in range(1, lanes + 1)],
        heard_since=now - lease,
    )
    return None if row is None else _claim(row)


def _claim(row: Record) -> Claim:
    values = {name: row[name] for name in Claim.__dataclass_fields__}
    return Claim(**{**values, "state": BatchState(row["state"])})


async def claim_by_hand(
    session: AsyncConnection,
    partner_id: PartnerId,
    batch_id: UUID,
    *,
    owner: UUID,
    now: datetime,
    lease: timedelta,
    settled: bool = False,
) -> Claim | None:
    """A portal connection's batch for a person who records something of it, fenced like a worker's claim.

    None when somebody else has it, or it is not one that waits for a person; with `settled`, one whose
    outcomes are all there will do as well.
    """
    states = [BatchState.QUEUED, BatchState.SUBMITTED, *([BatchState.SETTLED] if settled else [])]
    row = await fetch_one(
        session,
        "UPDATE batches b SET owner = :owner, lease_until = :until, updated_at = :now "
        "FROM connections n, customers c "
        "WHERE n.id = b.connection_id AND n.client_id IS NULL AND b.partner_id = :partner AND b.id = :id "
        "AND b.state = ANY(:states) AND (b.lease_until IS NULL OR b.lease_until < :now) "
        "AND c.id = b.customer_id RETURNING b.*, c.entra_tenant_id",
        states=states,
        partner=partner_id,
        id=batch_id,
        owner=owner,
        until=now + lease,
        now=now,
    )
    return None if row is None else _claim(row)


async def count_due(session: AsyncConnection, now: datetime, *, limit: int) -> int:
    """As the system: how many batches could be claimed now, counted up to `limit` of each kind."""
    due = (
        "SELECT FROM batches b JOIN connections n ON n.id = b.connection_id WHERE {} "
        "AND b.due_at <= :now AND (b.lease_until IS NULL OR b.lease_until < :now) "
        "AND (n.not_before IS NULL OR n.not_before <= :now) AND n.client_id IS NOT NULL LIMIT :limit"
    )
    queued, under_way = due.format("b.state = 'queued'"), due.format(f"b.state IN ({_IN_FLIGHT})")
    row = await fetch_one(
        session,
        f"SELECT count(*) AS n FROM (({queued}) UNION ALL ({under_way})) AS due",
        now=now,
        limit=limit,
    )
    return int(row["n"]) if row else 0


async def lock_claimed(session: AsyncConnection, claim: Claim) -> Record | None:
    """The batch as it is now, held; None when the claim has been lost to somebody else."""
    return await fetch_one(
        session,
        "SELECT * FROM batches WHERE partner_id = :partner AND id = :id AND owner = :owner FOR NO KEY UPDATE",
        partner=claim.partner_id,
        id=claim.id,
        owner=claim.owner,
    )


async def update_claimed(session: AsyncConnection, claim: Claim, values: dict[str, Any]) -> bool:
    """Fenced by the owner: False when the claim has been lost, and then nothing was changed."""
    assignments = ", ".join(f"{name} = :set_{name}" for name in values)
    return bool(
        await execute(
            session,
            f"UPDATE batches SET {assignments} WHERE partner_id = :partner AND id = :id AND owner = :owner",
            partner=claim.partner_id,
            id=claim.id,
            owner=claim.owner,
            **{f"set_{name}": value for name, value in values.items()},
        )
    )


async def add(session: AsyncConnection, partner_id: PartnerId, values: Record) -> None:
    await insert(session, "batches", {"partner_id": partner_id, **values})


async def set_sizes(
    session: AsyncConnection, partner_id: PartnerId, batch_ids: list[UUID], device_counts: list[int]
) -> None:
    await execute(
        session,
        "UPDATE batches b SET device_count = u.n "
        "FROM unnest(CAST(:ids AS uuid[]), CAST(:counts AS integer[])) AS u(id, n) "
        "WHERE b.partner_id = :partner AND b.id = u.id AND b.device_count <> u.n",
        partner=partner_id,
        ids=batch_ids,
        counts=device_counts,
    )


async def hold_queued(
    session: AsyncConnection, partner_id: PartnerId, customer_id: UUID, now: datetime
) -> list[int]:
    """Consent has gone: what no worker has begun to send waits again. Returns the devices of each batch."""
    rows = await fetch_all(
        session,
        "UPDATE batches SET state = 'held', owner = NULL, lease_until = NULL, updated_at = :now "
        "WHERE partner_id = :partner AND customer_id = :customer AND state = 'queued' RETURNING device_count",
        partner=partner_id,
        customer=customer_id,
        now=now,
    )
    return [row["device_count"] for row in rows]


async def release_held(
    session: AsyncConnection, partner_id: PartnerId, customer_id: UUID, now: datetime
) -> list[int]:
    """Consent is there. Returns the devices of each batch that has been released."""
    rows = await fetch_all(
        session,
        "UPDATE batches SET state = 'queued', due_at = :now, updated_at = :now "
        "WHERE partner_id = :partner AND customer_id = :customer AND state = 'held' RETURNING device_count",
        partner=partner_id,
        customer=customer_id,
        now=now,
    )
    return [row["device_count"] for row in rows]


async def hasten_under_way(
    session: AsyncConnection, partner_id: PartnerId, customer_id: UUID, now: datetime
) -> int:
    """Consent is back: what is at Microsoft already need not wait out its pause."""
    return await execute(
        session,
        f"UPDATE batches SET due_at = :now WHERE partner_id = :partner AND customer_id = :customer "
        f"AND state IN ({_IN_FLIGHT}) AND due_at > :now AND (lease_until IS NULL OR lease_until < :now)",
        partner=partner_id,
        customer=customer_id,
        now=now,
    )


async def cancel_waiting(
    session: AsyncConnection, partner_id: PartnerId, order_id: UUID, now: datetime
) -> list[UUID]:
    """Cancels what no call carries yet."""
    rows = await fetch_all(
        session,
        "UPDATE batches SET state = 'cancelled', owner = NULL, lease_until = NULL, settled_at = :now, "
        "updated_at = :now WHERE partner_id = :partner AND order_id = :order "
        "AND state IN ('held', 'queued') RETURNING id",
        partner=partner_id,
        order=order_id,
        now=now,
    )
    return [row["id"] for row in rows]


async def hasten_tag(
    session: AsyncConnection, partner_id: PartnerId, customer_id: UUID, tag_key: str, now: datetime
) -> int:
    """The group tag is there, or its creation has ended: those that waited need not wait any longer.

    Skips what another worker has locked: it holds its batch and waits for the tag's row, which the
    caller holds.
    """
    return await execute(
        session,
        "UPDATE batches SET due_at = :now WHERE id IN ("
        "  SELECT id FROM batches WHERE partner_id = :partner AND customer_id = :customer "
        "  AND lower(group_tag) = :tag AND state = 'queued' AND due_at > :now "
        "  AND (lease_until IS NULL OR lease_until < :now) FOR NO KEY UPDATE SKIP LOCKED)",
        partner=partner_id,
        customer=customer_id,
        tag=tag_key,
        now=now,
    )


async def get(session: AsyncConnection, partner_id: PartnerId, batch_id: UUID) -> Record | None:
    return await fetch_one(
        session,
        "SELECT * FROM batches WHERE partner_id = :partner AND id = :id",
        partner=partner_id,
        id=batch_id,
    )


async def list_page(
    session: AsyncConnection,
    partner_id: PartnerId,
    page: PageRequest,
    *,
    order_id: UUID | None = None,
    customer_id: UUID | None = None,
    state: str | None = None,
) -> Page[Record]:
    rows = await fetch_all(
        session,
        "SELECT * FROM batches WHERE partner_id = :partner "
        "AND (CAST(:after AS uuid) IS NULL OR id < CAST(:after AS uuid)) "
        "AND (CAST(:order AS uuid) IS NULL OR order_id = CAST(:order AS uuid)) "
        "AND (CAST(:customer AS uuid) IS NULL OR customer_id = CAST(:customer AS uuid)) "
        "AND (CAST(:state AS text) IS NULL OR state = CAST(:state AS text)) "
        "ORDER BY id DESC LIMIT :limit",
        partner=partner_id,
        after=page.after,
        order=order_id,
        customer=customer_id,
        state=state,
        limit=page.size + 1,
    )
    return cut(rows, page, lambda row: row["id"])


async def of_order(session: AsyncConnection, partner_id: PartnerId, order_id: UUID) -> list[Record]:
    """All of them, oldest first: what their files are named by, and what became of them."""
    return await fetch_all(
        session,
        "SELECT id, group_tag, state, device_count, submitted_at, settled_at FROM batches "
        "WHERE partner_id = :partner AND order_id = :order ORDER BY id",
        partner=partner_id,
        order=order_id,
    )


async def left_doubts(session: AsyncConnection, partner_id: PartnerId, order_id: UUID) -> bool:
    """Whether a batch of the order may have carried devices to Microsoft without our knowing."""
    found = await fetch_one(
        session,
        "SELECT id FROM batches WHERE partner_id = :partner AND order_id = :order "
        "AND (uncertain OR failure_code = 'outcome_unknown') LIMIT 1",
        partner=partner_id,
        order=order_id,
    )
    return found is not None


async def counts(
    session: AsyncConnection, partner_id: PartnerId, batch_ids: list[UUID]
) -> dict[UUID, dict[str, int]]:
    found = await fetch_all(
        session,
        f"SELECT c.bucket, {state_of('c.state')} AS state, sum(c.n) AS n "
        "FROM registration_counts c JOIN batches b ON b.id = c.bucket AND b.order_id = c.order_id "
        "WHERE c.partner_id = :partner AND b.id = ANY(:ids) AND c.n <> 0 GROUP BY 1, 2",
        partner=partner_id,
        ids=batch_ids,
    )
    counted: dict[UUID, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    for row in found:
        counted[row["bucket"]][row["state"]] = int(row["n"])
    return counted


async def pull_back(session: AsyncConnection, now: datetime, *, slack: timedelta) -> int:
    """As the system: what was written by a clock that was ahead is due, and free, as long after now as it
    was after its writing. So nobody who is at work loses a batch: from now on it is a whole lease again.
    """
    return await execute(
        session,
        "UPDATE batches SET due_at = due_at - (updated_at - :now), "
        "lease_until = lease_until - (updated_at - :now), updated_at = :now WHERE updated_at > :later "
        f"AND (state IN ({_IN_FLIGHT}) OR (state = 'queued' AND (due_at > :later OR lease_until > :later)))",
        now=now,
        later=now + slack,
    )


async def stuck(session: AsyncConnection, *, before: datetime, limit: int = 50) -> list[Record]:
    """As the system: work under way that was due long ago, that nobody holds and nothing keeps back.

    What is queued is not looked at: behind a large order it may wait for hours, and that is right.
    Nor is what waits for a person at a portal, however long.
    """
    return await fetch_all(
        session,
        "SELECT b.id, b.partner_id, b.state, b.due_at FROM batches b "
        "JOIN connections n ON n.id = b.connection_id "
        f"WHERE b.state IN ({_IN_FLIGHT}) AND b.due_at < :before "
        "AND (b.lease_until IS NULL OR b.lease_until < :before) "
        "AND (n.not_before IS NULL OR n.not_before < :before) AND n.client_id IS NOT NULL "
        "ORDER BY b.due_at LIMIT :limit",
        before=before,
        limit=limit,
    )

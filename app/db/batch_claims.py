"""Claims a batch in one statement: chooses whose turn it is (docs/adr/0022) and takes it for a worker."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.db import tables
from app.db.batches import Claim, claim_of
from app.db.holds import is_called, takes_work
from app.db.index_walks import FIRST_ID, LAST_ID, plan_by_index, with_id
from app.db.leases import BATCHES
from app.db.sql import columns, fetch_one, listed
from app.domain.batch import IN_FLIGHT
from app.domain.schedule import share_of
from app.kernel.transactions import SystemTx

_IN_FLIGHT = listed(IN_FLIGHT)

# Partners take turns: of those with due work, the one whose last turn is longest ago, but partners with fewer
# lanes than their share come first. A share is only an order: no lane stays idle because of it. Within a
# partner, work under way (polls, look-ups, interrupted calls) goes before new submissions, and does not count
# as a customer's turn. Of new submissions, the customer whose last turn is longest ago comes first. A window
# keeps one customer from filling its connection. Simultaneous claims do not see each other, so the window may
# be exceeded by their number.
#
# The cost grows with the number of waiting partners, and with up to WINDOW of one partner's waiting
# customers, but not with the number of batches or customers. `queued` steps through an index from partner to
# partner, and skips those with nothing due. `steps` goes from customer to customer, in the order of their
# connections, starting after the customer of the last turn. A connection that takes no work now is one step.
# If none of the WINDOW's customers has anything due, the EARLIEST of the partner's due batches are tried, and
# the next claim continues after the WINDOW. So the order of turns is exact for up to WINDOW customers; with
# more, each still gets its turn. Each subquery can be served by one index only (app/db/index_walks.py).
#
# Batches of portal connections are skipped, because people handle them. They may wait for weeks, and if they
# were under way they would count against every waiting customer.
WINDOW: Final = 100
"""Waiting customers of a partner that one claim compares."""
EARLIEST: Final = 100
"""Batches of a partner that one claim tries if none of those customers has anything due."""

_FREE = BATCHES.free("b")
_READY = takes_work("n")


def _is_open(connection: str) -> str:
    return f"""
        coalesce((SELECT {_READY} FROM connections n WHERE {with_id("n.id", connection)}), false)
        AND {connection} NOT IN (SELECT connection_id FROM full_connections)
    """


def _step(connection: str, customer: str) -> str:
    """SQL for the partner's first waiting customer after this one."""
    return f"""
        SELECT b.connection_id, b.customer_id, b.due_at FROM batches b
        WHERE b.state = 'queued' AND b.partner_id = p.partner_id
        AND (b.connection_id, b.customer_id) > ({connection}, {customer})
        ORDER BY b.connection_id, b.customer_id, b.due_at LIMIT 1
    """


def _steps(name: str, connection: str, customer: str, bound: str = "true") -> str:
    """SQL for all following steps; a connection that takes no work now is left after one step."""
    is_open = _is_open("s.connection_id")
    later = _step("w.connection_id", f"CASE WHEN w.is_open THEN w.customer_id ELSE {LAST_ID} END")
    return f"""
        {name}(connection_id, customer_id, due_at, is_open) AS (
            SELECT s.connection_id, s.customer_id, s.due_at, {is_open}
            FROM ({_step(connection, customer)}) s WHERE {bound}
            UNION ALL
            SELECT s.connection_id, s.customer_id, s.due_at,
                CASE WHEN s.connection_id = w.connection_id THEN w.is_open ELSE {is_open} END
            FROM {name} w CROSS JOIN LATERAL ({later}) s WHERE {bound}
        )
    """


_CLAIM = f"""
WITH RECURSIVE busy_connections(id) AS (
    (SELECT connection_id FROM batches WHERE state IN ({_IN_FLIGHT})
        ORDER BY connection_id, customer_id LIMIT 1)
    UNION ALL
    SELECT (SELECT b.connection_id FROM batches b WHERE b.state IN ({_IN_FLIGHT}) AND b.connection_id > c.id
            ORDER BY b.connection_id, b.customer_id LIMIT 1)
    FROM busy_connections c WHERE c.id IS NOT NULL
), under_way AS MATERIALIZED (
    SELECT b.id, b.partner_id, b.customer_id, b.connection_id, b.due_at, {BATCHES.held("b")} AS held,
        b.due_at <= :now AND {_FREE} AND n.is_ready AS due
    FROM busy_connections c CROSS JOIN LATERAL (
        SELECT {_READY} AS is_ready FROM connections n WHERE {is_called("n")} AND {with_id("n.id", "c.id")}
    ) n CROSS JOIN LATERAL (
        SELECT id, partner_id, customer_id, connection_id, due_at, lease_until FROM batches
        WHERE state IN ({_IN_FLIGHT}) AND connection_id = c.id ORDER BY customer_id, id
    ) b
    UNION ALL
    SELECT id, partner_id, customer_id, connection_id, due_at, held, due FROM (
        SELECT id, partner_id, customer_id, connection_id, due_at, true AS held, false AS due
        FROM batches WHERE state = 'queued' AND {BATCHES.held()} ORDER BY lease_until
    ) claimed_just_now
), full_customers AS MATERIALIZED (
    SELECT customer_id FROM under_way GROUP BY customer_id HAVING count(*) >= :customer_window
), full_connections AS MATERIALIZED (
    SELECT connection_id FROM under_way GROUP BY connection_id HAVING count(*) >= :connection_window
), of_partner AS MATERIALIZED (
    SELECT partner_id, count(*) FILTER (WHERE held) AS held, bool_or(due) AS due
    FROM under_way GROUP BY partner_id
), queued(partner_id, due_at) AS (
    (SELECT partner_id, due_at FROM batches WHERE state = 'queued' ORDER BY partner_id, due_at LIMIT 1)
    UNION ALL
    SELECT later.partner_id, later.due_at FROM queued q CROSS JOIN LATERAL (
        SELECT b.partner_id, b.due_at FROM batches b WHERE b.state = 'queued'
        AND b.partner_id > q.partner_id ORDER BY b.partner_id, b.due_at LIMIT 1
    ) later
), asking AS MATERIALIZED (
    SELECT partner_id FROM queued WHERE due_at <= :now
    UNION SELECT partner_id FROM of_partner WHERE due
), share AS MATERIALIZED (
    SELECT (CAST(:shares AS integer[]))[least(greatest((SELECT count(*) FROM asking), 1), :lanes)]
        * greatest((SELECT count(*) FROM worker_heartbeats WHERE beat_at >= :heard_since), 1) AS lanes
), turns AS MATERIALIZED (
    SELECT a.partner_id, coalesce(o.due, false) AS due, row_number() OVER (
            ORDER BY coalesce(o.held, 0) >= (SELECT lanes FROM share), t.last_turn_at NULLS FIRST,
            a.partner_id
        ) AS place, coalesce(c.connection_id, {FIRST_ID}) AS after_connection_id,
        coalesce(t.after_id, {FIRST_ID}) AS after_id
    FROM asking a LEFT JOIN of_partner o ON o.partner_id = a.partner_id
    LEFT JOIN LATERAL (
        SELECT last_turn_at, after_id FROM partner_turns
        WHERE partner_id = a.partner_id AND kind = 'batches' LIMIT 1
    ) t ON true
    LEFT JOIN LATERAL (
        SELECT connection_id FROM customers WHERE {with_id("id", "t.after_id")}
    ) c ON true
), looked(place, partner_id, id, after_id) AS (
    SELECT CAST(0 AS bigint), CAST(NULL AS uuid), CAST(NULL AS uuid), CAST(NULL AS uuid)
    UNION ALL
    SELECT p.place, p.partner_id, coalesce(followed.id, fresh.id, early.id),
        CASE WHEN followed.id IS NULL THEN coalesce(fresh.customer_id, w.ends_at) END
    FROM looked l JOIN turns p ON p.place = l.place + 1
    LEFT JOIN LATERAL (
        SELECT b.id FROM (
            SELECT u.id FROM under_way u WHERE u.partner_id = p.partner_id AND u.due ORDER BY u.due_at, u.id
        ) u CROSS JOIN LATERAL (
            SELECT b.id FROM batches b WHERE b.state IN ({_IN_FLIGHT}) AND b.due_at <= :now AND {_FREE}
            AND {with_id("b.id", "u.id")} FOR NO KEY UPDATE SKIP LOCKED
        ) b WHERE p.due LIMIT 1
    ) followed ON true
    LEFT JOIN LATERAL (
        WITH RECURSIVE {_steps("ahead", "p.after_connection_id", "p.after_id")},
        {
    _steps(
        "behind",
        FIRST_ID,
        FIRST_ID,
        "(s.connection_id, s.customer_id) <= (p.after_connection_id, p.after_id)",
    )
}
        SELECT array_agg(s.customer_id) FILTER (WHERE s.is_open AND s.due_at <= :now) AS customers,
            CASE WHEN count(*) = {WINDOW} THEN (array_agg(s.customer_id))[{WINDOW}] END AS ends_at
        FROM (SELECT s.customer_id, s.due_at, s.is_open FROM (TABLE ahead UNION ALL TABLE behind) s LIMIT {
    WINDOW
}) s
        WHERE followed.id IS NULL
    ) w ON true
    LEFT JOIN LATERAL (
        SELECT chosen.id, c.id AS customer_id FROM (
            SELECT c.id, c.connection_id FROM unnest(w.customers) waiting(id) CROSS JOIN LATERAL (
                SELECT id, connection_id, last_turn_at FROM customers WHERE {with_id("id", "waiting.id")}
            ) c
            WHERE c.id NOT IN (SELECT customer_id FROM full_customers)
            ORDER BY c.last_turn_at, c.id
        ) c CROSS JOIN LATERAL (
            SELECT b.id FROM batches b WHERE b.partner_id = p.partner_id AND b.connection_id = c.connection_id
            AND b.customer_id = c.id AND b.state = 'queued' AND b.due_at <= :now AND {_FREE}
            ORDER BY b.due_at, b.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
        ) chosen LIMIT 1
    ) fresh ON true
    LEFT JOIN LATERAL (
        SELECT chosen.id FROM (
            SELECT b.id, b.partner_id, b.connection_id, b.customer_id, b.due_at FROM batches b
            WHERE b.state = 'queued' AND (b.partner_id, b.due_at) >= (p.partner_id, '-infinity')
            ORDER BY b.partner_id, b.due_at LIMIT {EARLIEST}
        ) e CROSS JOIN LATERAL (
            SELECT b.id FROM batches b WHERE b.id = e.id AND b.state = 'queued' AND b.due_at <= :now AND {
    _FREE
}
            LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
        ) chosen
        WHERE followed.id IS NULL AND fresh.id IS NULL AND w.ends_at IS NOT NULL
        AND e.partner_id = p.partner_id AND e.due_at <= :now
        AND e.customer_id NOT IN (SELECT customer_id FROM full_customers)
        AND {_is_open("e.connection_id")}
        LIMIT 1
    ) early ON true
    WHERE l.id IS NULL
), claimed AS (
    UPDATE batches b SET {BATCHES.claimed}, updated_at = :now
    WHERE b.id = (SELECT id FROM looked WHERE id IS NOT NULL)
    AND b.state IN ('queued', {_IN_FLIGHT}) AND {_FREE}
    RETURNING {columns(tables.batches, "b", Claim)}
), free_customer AS MATERIALIZED (
    SELECT c.id FROM claimed CROSS JOIN LATERAL (
        SELECT id FROM customers WHERE {with_id("id", "claimed.customer_id")}
        FOR NO KEY UPDATE SKIP LOCKED
    ) c WHERE claimed.state = 'queued'
), turn AS (
    UPDATE customers SET last_turn_at = :now WHERE id = (SELECT id FROM free_customer)
), moved AS MATERIALIZED (
    SELECT l.partner_id, l.after_id, CASE WHEN l.id IS NOT NULL THEN CAST(:now AS timestamptz) END AS turn_at
    FROM looked l WHERE l.id IS NOT NULL OR l.after_id IS NOT NULL
), seat AS (
    INSERT INTO partner_turns (partner_id, kind, last_turn_at, after_id)
    SELECT m.partner_id, 'batches', coalesce(m.turn_at, 'epoch'), m.after_id FROM moved m
    WHERE NOT EXISTS (SELECT FROM partner_turns t WHERE t.partner_id = m.partner_id AND t.kind = 'batches')
    ON CONFLICT DO NOTHING
), free AS MATERIALIZED (
    SELECT m.partner_id, m.after_id, m.turn_at FROM moved m CROSS JOIN LATERAL (
        SELECT FROM partner_turns t WHERE t.partner_id = m.partner_id AND t.kind = 'batches'
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) t
), round AS (
    UPDATE partner_turns t SET last_turn_at = coalesce(f.turn_at, t.last_turn_at),
        after_id = coalesce(f.after_id, t.after_id)
    FROM free f WHERE t.partner_id = f.partner_id AND t.kind = 'batches'
)
SELECT {columns(tables.batches, "claimed", Claim)}, c.entra_tenant_id FROM claimed CROSS JOIN LATERAL (
    SELECT entra_tenant_id FROM customers WHERE {with_id("id", "claimed.customer_id")}
) c
"""
# `free`, `free_customer`: simultaneous claims that take the same turn both record it, so neither waits for
# the other's commit; nor for a call that holds the customer, for example to remove it.


async def claim_one(
    tx: SystemTx,
    *,
    owner: UUID,
    worker_id: str | None = None,
    now: datetime,
    lease: timedelta,
    customer_window: int,
    connection_window: int,
    lanes: int = 1,
) -> Claim | None:
    """Claims the next due batch; None if there is none. `lanes`: the lanes of one worker process. A claim
    without `worker_id` lasts to the end of its lease, even if the claimant dies."""
    await plan_by_index(tx)
    row = await fetch_one(
        tx,
        _CLAIM,
        owner=owner,
        worker=worker_id,
        now=now,
        until=now + lease,
        customer_window=customer_window,
        connection_window=connection_window,
        lanes=lanes,
        shares=[share_of(lanes, partners) for partners in range(1, lanes + 1)],
        heard_since=now - lease,
    )
    return None if row is None else claim_of(row)

"""The claim of a batch, in one statement: whose turn it is (docs/adr/0022), and that it is ours now."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.batches import Claim, claim_of
from app.db.sql import fetch_one, listed
from app.domain.batch import IN_FLIGHT
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
# and only the chosen customer's queue is opened. Customers of a connection that takes no more are passed over
# in the index, and with no connection that does nothing of the partner is looked at. The WINDOW begins behind
# the customer of the last turn, so that everybody comes into it. With more customers than that the round is
# not exact, and still a round.
#
# What belongs to a portal connection is a person's: it has no client id, and no worker's query finds it
# (ADR 0016). It may be uploaded for weeks, and would be counted against every waiting customer if it were
# under way.
WINDOW: Final = 100
"""Waiting customers of a partner that one claim compares."""

_FREE = "(b.lease_until IS NULL OR b.lease_until < :now)"
_READY = "n.client_id IS NOT NULL AND (n.not_before IS NULL OR n.not_before <= :now)"
_BEHIND = "b.customer_id <= p.after_id"


def _step(start: str, then: str) -> str:
    """Steps through the waiting customers of partner `p`: the first one, and from `w` to the next."""
    first = (
        "SELECT b.customer_id FROM batches b WHERE b.state = 'queued' AND b.partner_id = p.partner_id "
        "AND b.connection_id = ANY(p.open) AND {} ORDER BY b.customer_id LIMIT 1"
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
    SELECT a.partner_id, coalesce(o.due, false) AS due, ARRAY(
            SELECT n.id FROM connections n WHERE n.partner_id = a.partner_id AND {_READY}
            AND n.id NOT IN (SELECT connection_id FROM full_connections)
        ) AS open, coalesce(t.after_id, '00000000-0000-0000-0000-000000000000') AS after_id
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
                {_step(_BEHIND, f"AND {_BEHIND}").format(name="behind")}
            ), waiting AS (
                SELECT c.id, c.last_turn_at
                FROM (SELECT customer_id FROM ahead UNION ALL SELECT customer_id FROM behind) w
                CROSS JOIN LATERAL (
                    SELECT id, connection_id, last_turn_at FROM customers WHERE id = w.customer_id LIMIT 1
                ) c
                CROSS JOIN LATERAL (
                    SELECT FROM connections n WHERE n.id = c.connection_id AND {_READY} LIMIT 1
                ) ready
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
        ) chosen WHERE followed.id IS NULL AND p.open <> '{{}}' LIMIT 1
    ) fresh ON true
    WHERE followed.id IS NOT NULL OR fresh.id IS NOT NULL LIMIT 1
), claimed AS (
    UPDATE batches b SET owner = :owner, lease_until = :until, updated_at = :now
    WHERE b.id = (SELECT id FROM next) AND b.state IN ('queued', {_IN_FLIGHT}) AND {_FREE}
    RETURNING b.*
), free_customer AS MATERIALIZED (
    SELECT c.id FROM customers c JOIN claimed ON claimed.customer_id = c.id
    WHERE claimed.state = 'queued' FOR NO KEY UPDATE OF c SKIP LOCKED
), turn AS (
    UPDATE customers SET last_turn_at = :now FROM free_customer WHERE customers.id = free_customer.id
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
# `free`, `free_customer`: who takes a turn at the same moment writes it down too, and nobody waits for the
# other's commit; nor for a call that holds the customer, to remove it for example.


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
    return None if row is None else claim_of(row)

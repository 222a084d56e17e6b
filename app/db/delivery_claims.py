"""Claims the next webhook delivery. Every write after a claim checks the claim's owner."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.db.index_walks import BY_INDEX, FIRST_ID, with_id
from app.db.leases import DELIVERIES
from app.db.sql import execute, fetch_one, listed
from app.domain.actor import SYSTEM, Actor
from app.domain.attempt import OPEN_DELIVERY
from app.domain.endpoint_health import WINDOW, LaneBounds
from app.domain.ids import PartnerId
from app.kernel.transactions import PartnerTx, SystemTx

_OPEN = listed(OPEN_DELIVERY)

# Partners take turns: of those with due deliveries, the one that holds the fewest lanes, then the one whose
# last turn is longest ago. So no partner has more than an equal share while another one waits, and no lane
# stays idle. Within a partner, endpoints take turns by id, starting after the endpoint of the last turn. The
# deliveries under way are limited by endpoint, by partner, and for all failing endpoints together: a receiver
# that hangs occupies a lane until the timeout, and a free lane must always remain.
#
# Lanes are counted by their leases, over all workers. Claims are made one after another, so that the limits
# hold; each takes a millisecond.
#
# The cost grows with the number of waiting partners, and of waiting endpoints of the partner whose turn it
# is, but not with the number of deliveries: `waiting` and `asked` step through an index from partner to
# partner and from endpoint to endpoint. Each subquery can be served by one index only
# (app/db/index_walks.py).
_NEXT_ENDPOINT = f"""
    SELECT first.endpoint_id FROM (
        SELECT q.partner_id, q.endpoint_id FROM deliveries q WHERE q.state IN ({_OPEN})
        AND (q.partner_id, q.endpoint_id) > (t.partner_id, {{after}})
        ORDER BY q.partner_id, q.endpoint_id LIMIT 1
    ) first WHERE first.partner_id = t.partner_id
"""
_CLAIM = f"""
WITH RECURSIVE busy AS MATERIALIZED (
    SELECT d.partner_id, d.endpoint_id, count(*) AS n,
        count(*) FILTER (WHERE e.consecutive_failures > 0) AS failing
    FROM (
        SELECT partner_id, endpoint_id FROM deliveries
        WHERE owner IS NOT NULL AND {DELIVERIES.held()} -- one that is over has no owner
        ORDER BY owner
    ) d CROSS JOIN LATERAL (
        SELECT consecutive_failures FROM webhook_endpoints WHERE {with_id("id", "d.endpoint_id")}
    ) e
    GROUP BY d.partner_id, d.endpoint_id
), held AS MATERIALIZED (
    SELECT partner_id, sum(n) AS n, sum(failing) AS failing FROM busy GROUP BY partner_id
), waiting(partner_id) AS (
    (SELECT partner_id FROM deliveries WHERE state IN ({_OPEN}) ORDER BY partner_id, endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.partner_id FROM deliveries d WHERE d.state IN ({_OPEN}) AND d.partner_id > w.partner_id
            ORDER BY d.partner_id, d.endpoint_id LIMIT 1)
    FROM waiting w WHERE w.partner_id IS NOT NULL
), turns AS MATERIALIZED (
    SELECT w.partner_id, coalesce(h.failing, 0) < :failing_of_one_partner
            AND (SELECT coalesce(sum(failing), 0) FROM held) < :failing AS may_fail,
        coalesce(t.after_id, {FIRST_ID}) AS after_id
    FROM waiting w LEFT JOIN held h ON h.partner_id = w.partner_id
    LEFT JOIN LATERAL (
        SELECT last_turn_at, after_id FROM partner_turns
        WHERE partner_id = w.partner_id AND kind = 'deliveries' LIMIT 1
    ) t ON true
    WHERE w.partner_id IS NOT NULL AND coalesce(h.n, 0) < :one_partner
    ORDER BY coalesce(h.n, 0), t.last_turn_at NULLS FIRST, w.partner_id
), next AS MATERIALIZED (
    SELECT chosen.id FROM turns t CROSS JOIN LATERAL (
        SELECT first.id FROM (
            WITH RECURSIVE asked(endpoint_id) AS (
                ({_NEXT_ENDPOINT.format(after=FIRST_ID)})
                UNION ALL
                SELECT ({_NEXT_ENDPOINT.format(after="a.endpoint_id")})
                FROM asked a WHERE a.endpoint_id IS NOT NULL
            )
            SELECT a.endpoint_id FROM asked a
            CROSS JOIN LATERAL (
                SELECT consecutive_failures FROM webhook_endpoints WHERE {with_id("id", "a.endpoint_id")}
            ) e
            LEFT JOIN LATERAL (
                SELECT not_before FROM webhook_pauses WHERE endpoint_id = a.endpoint_id LIMIT 1
            ) p ON true
            LEFT JOIN busy b ON b.endpoint_id = a.endpoint_id
            WHERE (e.consecutive_failures = 0 OR t.may_fail)
            AND coalesce(b.n, 0)
                < CASE WHEN e.consecutive_failures = 0 THEN CAST(:window AS integer) ELSE 1 END
            AND (p.not_before IS NULL OR p.not_before <= :now)
            ORDER BY a.endpoint_id <= t.after_id, a.endpoint_id
        ) endpoint CROSS JOIN LATERAL (
            SELECT q.id FROM deliveries q WHERE q.state IN ({_OPEN}) AND q.partner_id = t.partner_id
            AND q.endpoint_id = endpoint.endpoint_id AND q.due_at <= :now
            AND {DELIVERIES.free("q")}
            ORDER BY q.due_at, q.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
        ) first LIMIT 1
    ) chosen LIMIT 1
), claimed AS (
    UPDATE deliveries d SET {DELIVERIES.claimed}
    WHERE d.id = (SELECT id FROM next) AND d.state IN ({_OPEN})
    AND {DELIVERIES.free("d")}
    RETURNING d.partner_id, d.id, d.owner, d.event_id, d.endpoint_id, d.attempts
), turn AS (
    INSERT INTO partner_turns (partner_id, kind, last_turn_at, after_id)
    SELECT partner_id, 'deliveries', CAST(:now AS timestamptz), endpoint_id FROM claimed
    ON CONFLICT (partner_id, kind)
    DO UPDATE SET last_turn_at = excluded.last_turn_at, after_id = excluded.after_id
)
SELECT partner_id, id, owner, event_id, endpoint_id, attempts FROM claimed
"""


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    partner_id: PartnerId
    id: UUID
    owner: UUID
    event_id: UUID
    endpoint_id: UUID
    attempts: int

    @property
    def actor(self) -> Actor:
        return SYSTEM


async def take_the_floor(tx: SystemTx, *, heard_since: datetime) -> int:
    """Blocks other claims until the transaction ends. Returns the number of living workers.

    The transaction's other statements are planned by their indexes."""
    row = await fetch_one(
        tx,
        f"SELECT pg_advisory_xact_lock(hashtext('registrar.deliveries')), {BY_INDEX}, "
        "(SELECT count(*) FROM worker_heartbeats WHERE beat_at >= :heard_since) AS workers",
        heard_since=heard_since,
    )
    return 0 if row is None else int(row["workers"])


async def claim_delivery(
    tx: SystemTx,
    *,
    owner: UUID,
    worker_id: str | None = None,
    now: datetime,
    lease: timedelta,
    bounds: LaneBounds,
) -> DeliveryClaim | None:
    """Claims the next due delivery; None if there is none. Call `take_the_floor` first."""
    row = await fetch_one(
        tx,
        _CLAIM,
        owner=owner,
        worker=worker_id,
        now=now,
        until=now + lease,
        window=WINDOW,
        one_partner=bounds.one_partner,
        failing=bounds.failing,
        failing_of_one_partner=bounds.failing_of_one_partner,
    )
    return None if row is None else DeliveryClaim(**row)


async def add_attempt(
    tx: PartnerTx,
    claim: DeliveryClaim,
    *,
    attempt_id: UUID,
    status: int | None,
    kind: str,
    excerpt: str | None,
    duration_ms: int,
    started_at: datetime,
) -> None:
    """Records the attempt, even if another worker has the delivery by now; not if it is deleted."""
    await execute(
        tx,
        "INSERT INTO delivery_attempts "
        "(id, partner_id, delivery_id, started_at, duration_ms, status, kind, excerpt) "
        "SELECT CAST(:attempt AS uuid), partner_id, id, CAST(:started AS timestamptz), "
        "CAST(:duration AS integer), CAST(:status AS integer), CAST(:kind AS text), CAST(:excerpt AS text) "
        "FROM deliveries WHERE partner_id = :partner AND id = :id",
        attempt=attempt_id,
        started=started_at,
        duration=duration_ms,
        status=status,
        kind=kind,
        excerpt=excerpt,
        partner=tx.partner_id,
        id=claim.id,
    )


async def finish_delivery_attempt(
    tx: PartnerTx,
    claim: DeliveryClaim,
    *,
    state: str,
    status: int | None,
    kind: str,
    due_at: datetime | None,
    now: datetime,
) -> bool:
    """Records the outcome and the next attempt's time; False if the claim was lost meanwhile."""
    return bool(
        await execute(
            tx,
            "UPDATE deliveries SET state = :state, attempts = attempts + 1, last_status = :status, "
            f"last_kind = :kind, {DELIVERIES.given_up}, "
            "due_at = coalesce(CAST(:due AS timestamptz), due_at), "
            "settled_at = CASE WHEN CAST(:due AS timestamptz) IS NULL THEN CAST(:now AS timestamptz) END "
            "WHERE partner_id = :partner AND id = :id AND owner = :owner",
            partner=tx.partner_id,
            id=claim.id,
            owner=claim.owner,
            state=state,
            status=status,
            kind=kind,
            due=due_at,
            now=now,
        )
    )


async def pause(tx: PartnerTx, endpoint_id: UUID, not_before: datetime) -> None:
    """Makes no deliveries to the endpoint until then."""
    await execute(
        tx,
        "INSERT INTO webhook_pauses (partner_id, endpoint_id, not_before) "
        "VALUES (:partner, :endpoint, :until) "
        "ON CONFLICT (endpoint_id) DO UPDATE SET not_before = excluded.not_before",
        partner=tx.partner_id,
        endpoint=endpoint_id,
        until=not_before,
    )


async def end_pause(tx: PartnerTx, endpoint_id: UUID) -> None:
    await execute(
        tx,
        "UPDATE webhook_pauses SET not_before = NULL WHERE partner_id = :partner AND endpoint_id = :endpoint",
        partner=tx.partner_id,
        endpoint=endpoint_id,
    )

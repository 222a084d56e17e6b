"""Claims an import in one statement: chooses whose turn it is, and takes it for a worker."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.db import tables
from app.db.imports import ImportClaim, claim_of
from app.db.index_walks import BY_INDEX
from app.db.leases import IMPORTS
from app.db.sql import columns, execute, fetch_one_as
from app.domain.imports import Import
from app.domain.schedule import share_of
from app.kernel.transactions import SystemTx

_FREE: Final = IMPORTS.free("i")

# Partners take turns; within a partner, imports go by their due time. Unlike with batches, a partner's share
# is a limit: imports take long, so places above it stay free for the next partner. Each partner's running
# imports are counted over all workers.
#
# The cost grows with the number of partners that have staged imports, not with the number of imports: `first`
# steps through an index from one partner's earliest import to that of the next partner. Each subquery can be
# served by one index only (app/db/index_walks.py).
_CLAIM: Final = f"""
WITH RECURSIVE first(partner_id, due_at) AS (
    (SELECT partner_id, due_at FROM imports WHERE due_at IS NOT NULL ORDER BY partner_id, due_at LIMIT 1)
    UNION ALL
    SELECT later.partner_id, later.due_at FROM first f CROSS JOIN LATERAL (
        SELECT i.partner_id, i.due_at FROM imports i WHERE i.due_at IS NOT NULL
        AND i.partner_id > f.partner_id ORDER BY i.partner_id, i.due_at LIMIT 1
    ) later
), asking AS MATERIALIZED (
    SELECT f.partner_id FROM first f CROSS JOIN LATERAL (
        SELECT FROM imports i WHERE i.partner_id = f.partner_id AND i.due_at <= :now AND {_FREE}
        ORDER BY i.due_at, i.id LIMIT 1
    ) due WHERE f.due_at <= :now
), share AS MATERIALIZED (
    SELECT (CAST(:shares AS integer[]))[least(greatest((SELECT count(*) FROM asking), 1), :places)]
        * greatest((SELECT count(*) FROM worker_heartbeats WHERE beat_at >= :heard_since), 1) AS places
), held AS MATERIALIZED (
    SELECT partner_id, count(*) AS places FROM (
        SELECT partner_id FROM imports WHERE {IMPORTS.held()} AND due_at IS NOT NULL ORDER BY lease_until
    ) leased GROUP BY partner_id
), turns AS MATERIALIZED (
    SELECT a.partner_id FROM asking a LEFT JOIN held h ON h.partner_id = a.partner_id
    LEFT JOIN LATERAL (
        SELECT last_turn_at FROM partner_turns WHERE partner_id = a.partner_id AND kind = 'imports' LIMIT 1
    ) t ON true
    WHERE coalesce(h.places, 0) < (SELECT places FROM share)
    ORDER BY t.last_turn_at NULLS FIRST, a.partner_id
), next AS MATERIALIZED (
    SELECT chosen.id FROM turns p CROSS JOIN LATERAL (
        SELECT i.id FROM imports i WHERE i.partner_id = p.partner_id AND i.due_at <= :now AND {_FREE}
        ORDER BY i.due_at, i.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) chosen LIMIT 1
), claimed AS (
    UPDATE imports i SET {IMPORTS.claimed}, attempts = i.attempts + 1
    WHERE i.id = (SELECT id FROM next) AND i.due_at <= :now AND {_FREE}
    RETURNING {columns(tables.imports, "i", Import)}
), turn AS (
    INSERT INTO partner_turns (partner_id, kind, last_turn_at)
    SELECT partner_id, 'imports', :now FROM claimed
    ON CONFLICT (partner_id, kind) DO UPDATE SET last_turn_at = excluded.last_turn_at
)
SELECT {columns(tables.imports, of=Import)} FROM claimed
"""


async def claim_one(
    tx: SystemTx,
    *,
    owner: UUID,
    worker_id: str | None = None,
    now: datetime,
    lease: timedelta,
    places: int = 1,
    each: int = 1,
) -> ImportClaim | None:
    """Claims the next import that is due; None if there is none.

    `places`: the places of one worker process. A partner that waits alone may hold `each` of them.
    """
    # One claim at a time: simultaneous claims would not see each other, and would claim one partner's files
    # beyond its share. The next statement sees what the previous claim wrote.
    await execute(
        tx, f"SELECT pg_advisory_xact_lock(hashtextextended('registrar.import_claims', 0)), {BY_INDEX}"
    )
    found = await fetch_one_as(
        tx,
        Import,
        _CLAIM,
        owner=owner,
        worker=worker_id,
        now=now,
        until=now + lease,
        places=places,
        shares=[share_of(places, waiting, kept_free=places - each) for waiting in range(1, places + 1)],
        heard_since=now - lease,
    )
    return None if found is None else claim_of(found, owner)

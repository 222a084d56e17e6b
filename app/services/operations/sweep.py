"""The sweep and the tidying: find work whose wake-up was lost, end dead claims, delete old rows.

They make up for a lost Redis, wrong clocks and killed workers. The sweep wakes lanes, ends claims of dead
workers and corrects times in the future; tidying ages consent and deletes old keys, hashes, events, imports
and secrets.
"""

from datetime import timedelta

from app.db import (
    batches,
    connections,
    events,
    heartbeats,
    idempotency,
    imports,
    leases,
    registrations,
    webhook_secrets,
)
from app.kernel import metrics
from app.kernel.metrics import LeaseEnd
from app.kernel.telemetry import logger
from app.kernel.transactions import SystemTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.access.idempotency import forget_secrets
from app.services.connections.access import token_lease
from app.services.consents import consents
from app.services.operations import backlogs, retention

log = logger("sweep")

HEARTBEAT_KEPT = timedelta(hours=1)
ENDPOINT_KEPT = timedelta(hours=1)
"""How long a deleted endpoint without deliveries is kept, so that a delivery being written still finds it."""
EVENT_CHUNK = 1000
"""Events deleted in one transaction, with a few deliveries and attempts each."""
EVENT_CHUNKS = 200
"""The most chunks in one round: more than arrives between two rounds."""
CLOCK_SLACK = timedelta(seconds=30)
"""A time that is later than now by more than this was written by a wrong clock: by an older release that used
its own machine's clock, or before the database server's clock was set back."""


async def sweep(runtime: Runtime) -> dict[str, int]:
    """Runs one round. Returns the counts of waiting work, for the log and the tests."""
    await end_claims_of_the_dead(runtime)
    now, settings = runtime.now(), runtime.settings
    async with runtime.system_transaction() as tx:
        ahead = await batches.pull_back(tx, now, slack=CLOCK_SLACK)
        ahead += await leases.shorten(tx, leases.TOKENS, now, token_lease(settings))
        ahead += await leases.shorten(tx, leases.READINGS, now, settings.lease)
        due = await batches.count_due(tx, now, limit=settings.worker_lanes)
        deliveries = await events.count_deliveries_due(tx, now, limit=settings.delivery_lanes)
        readings = await connections.count_customers_due(tx, now)
        files = await imports.count_due(tx, now, limit=settings.import_places)
        stuck = await batches.stuck(tx, before=now - timedelta(seconds=settings.sweep_patience_s))
        for kind, lanes in (
            (WakeKind.BATCHES, due),
            (WakeKind.DELIVERIES, deliveries),
            (WakeKind.CONSENT, min(readings, 1)),
            (WakeKind.IMPORTS, files),
        ):
            if lanes:
                tx.wake(kind, lanes=lanes)
    if ahead:
        log.warning("clock_was_ahead", rows=ahead)
    for row in stuck:
        log.error("batch_stuck", batch_id=str(row.id), state=row.state)
    return {
        "batches": due,
        "deliveries": deliveries,
        "connections": readings,
        "imports": files,
        "stuck": len(stuck),
    }


async def end_claims_of_the_dead(runtime: Runtime) -> int:
    """Ends the claims of silent workers before their leases end; returns how many.

    A recently made or renewed claim counts as a heartbeat too. If a worker has been silent for longer than a
    lease, its claims have already ended.
    """
    now, settings, presence = runtime.now(), runtime.settings, runtime.presence
    if not presence.may_judge(now):
        return 0
    heard_until = now - presence.silence
    lasting = {
        leases.BATCHES: settings.lease,
        leases.DELIVERIES: settings.lease,
        leases.IMPORTS: settings.lease,
        leases.TOKENS: token_lease(settings),
        leases.READINGS: settings.lease,
    }
    async with runtime.system_transaction() as tx:
        dead = await heartbeats.silent(tx, since=now - max(lasting.values()), until=heard_until)
        ended: list[str] = []
        for leased, lease in lasting.items() if dead else ():
            ended += await leases.end_of_workers(tx, leased, dead, now, lease_before=heard_until + lease)
    metrics.leases_ended(LeaseEnd.WORKER_SILENT, len(ended))
    if ended:
        log.warning("claims_of_dead_worker_ended", worker_ids=sorted(set(ended)), claims=len(ended))
    return len(ended)


async def tidy(runtime: Runtime) -> None:
    """Does the housekeeping that need not happen every few seconds."""
    now, settings = runtime.now(), runtime.settings
    await consents.age(runtime)
    async with runtime.system_transaction() as tx:
        ahead = await leases.shorten(tx, leases.DELIVERIES, now, settings.lease)
    if ahead:
        log.warning("clock_was_ahead", rows=ahead)
    async with runtime.system_transaction() as tx:
        keys = await idempotency.purge(tx, created_before=now - timedelta(hours=settings.idempotency_hours))
        await forget_secrets(tx, now)
        hashes = await registrations.purge_hashes(
            tx, settled_before=now - timedelta(days=settings.hash_retention_days)
        )
        await heartbeats.purge(tx, now, older_than=HEARTBEAT_KEPT)
        await webhook_secrets.purge(tx, now)
    await backlogs.look_after(runtime)
    told = await forget_events(runtime)
    files = await retention.forget_imports(runtime)
    ended = await retention.forget_keys(runtime)
    async with runtime.system_transaction() as tx:
        await events.purge_deleted_endpoints(tx, deleted_before=now - ENDPOINT_KEPT)
    if keys or hashes or told or files or ended:
        log.info(
            "old_rows_deleted",
            idempotency_keys=keys,
            hashes=hashes,
            events=told,
            imports=files,
            api_keys=ended,
        )


async def forget_events(runtime: Runtime, *, chunk: int = EVENT_CHUNK, chunks: int = EVENT_CHUNKS) -> int:
    """Deletes old events that have been delivered or given up; returns how many."""
    before = runtime.now() - timedelta(days=runtime.settings.event_retention_days)

    async def purge(tx: SystemTx, limit: int) -> int:
        return await events.purge(tx, occurred_before=before, limit=limit)

    return await retention.forget_in_chunks(runtime, purge, chunk=chunk, chunks=chunks)


async def beat(runtime: Runtime) -> None:
    async with runtime.system_transaction() as tx:
        now = runtime.now()
        await heartbeats.beat(tx, runtime.presence.worker_id, now)
    runtime.presence.note(now)


async def end_beat(runtime: Runtime) -> None:
    async with runtime.system_transaction() as tx:
        await heartbeats.end(tx, runtime.presence.worker_id)

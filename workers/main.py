"""The worker process (`python -m workers.main`): arq's functions, the sweep and the heartbeat.

arq only carries wake-ups here. The rows and the sweep make up for its limits: a timeout is final, a lost
Redis ends the process, a job id swallows wake-ups.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import uvloop
from arq import func
from arq.typing import StartupShutdown, WorkerCoroutine

from app.db.engine import OUTAGES
from app.db.walls import WallsDown
from app.kernel import metrics, telemetry
from app.kernel.queue import QUEUE_NAME, deserialize, redis_settings, serialize
from app.kernel.redis_outage import REDIS_OUTAGES
from app.kernel.secrets import SecretError
from app.kernel.settings import Settings, load_or_exit
from app.kernel.telemetry import logger, origin
from app.kernel.wakeups import WakeKind, WakeUp
from app.runtime import NoInstallation, Purpose, Runtime, check_installation, settle
from app.services.connections import customer_readings
from app.services.devices import devices
from app.services.imports import work
from app.services.imports.reading import Stopping
from app.services.operations import health, sweep
from app.services.registering import batches
from app.services.webhooks import deliveries
from workers.alive import showing_life
from workers.lanes import SLICE, run_lane
from workers.stopping import PromptWorker, end_tasks

log = logger("worker")

Context = dict[Any, Any]
"""arq's context. Ours holds the runtime, the settings, and the number of running lanes."""

REDIS_ATTEMPTS = 240
"""Retries of a quarter second while Redis is down: after a minute the worker ends and its supervisor restarts
it."""
POLL_DELAY = 0.05
"""Seconds between arq's looks for a wake-up: the idle wait for work is half of it on average."""
PASS_ON_SECONDS = 0.5
"""The delay before a wake-up that found all lanes busy is put back into the queue."""
TIDY_SECONDS = 600.0
SWEEP_SECONDS = 30.0
"""Seconds a sweep may take."""
BEAT_SECONDS = 5.0
"""Seconds that a heartbeat may take. Short enough that after one that hangs on a dead connection, another one
comes before this worker counts as dead."""
IMPORT_TIMEOUT = 24 * 3600
"""Seconds. No step of an import takes nearly as long: the deadline of its chunk ends one that hangs."""


def _runtime(ctx: Context) -> Runtime:
    return ctx["runtime"]  # type: ignore[no-any-return]


async def advance_batches(ctx: Context) -> None:
    """Opens a lane over batches."""
    runtime = _runtime(ctx)

    async def step() -> bool:
        return await batches.advance_next(runtime) is not None

    await _lane(ctx, WakeKind.BATCHES, step)


async def deliver_webhooks(ctx: Context) -> None:
    """Opens a lane over webhook deliveries."""
    runtime = _runtime(ctx)
    await _lane(ctx, WakeKind.DELIVERIES, lambda: deliveries.deliver_next(runtime))


async def read_customers(ctx: Context) -> None:
    """Opens a lane over connections whose customers list is due."""
    runtime = _runtime(ctx)
    await _lane(ctx, WakeKind.CONSENT, lambda: customer_readings.read_due(runtime))


async def advance_imports(ctx: Context) -> None:
    """Opens a lane over imports. One step reads a whole file; its claim is renewed chunk by chunk."""
    runtime = _runtime(ctx)

    async def step() -> bool:
        return await work.advance_next(runtime, ctx["stopping"])

    with contextlib.suppress(Stopping):
        await _lane(ctx, WakeKind.IMPORTS, step)


async def _lane(ctx: Context, kind: WakeKind, step: Any) -> None:
    """Runs a lane, or passes the wake-up on if this process has no free lane of its kind."""
    runtime = _runtime(ctx)
    lanes: dict[WakeKind, int] = ctx["lanes"]
    if lanes[kind] >= ctx["limits"][kind]:
        await _pass_on(ctx, kind)
        return
    lanes[kind] += 1
    try:
        await run_lane(step, lambda: runtime.queue.send([WakeUp(kind)], runtime.now()))
    except OUTAGES as error:
        # The database is unavailable. Rows and leases are unchanged, so the sweep finds them again.
        log.warning("lane_interrupted", kind=kind.value, error=type(error).__name__)
    finally:
        lanes[kind] -= 1


async def _pass_on(ctx: Context, kind: WakeKind) -> None:
    """Puts a wake-up back for the next free lane, also in another process: all lanes here may be waiting for
    receivers that hang. One at a time is enough."""
    runtime, passed_on = _runtime(ctx), ctx["passed_on"]
    if time.monotonic() < passed_on.get(kind, 0.0):
        return
    passed_on[kind] = time.monotonic() + PASS_ON_SECONDS
    now = runtime.now()
    await runtime.queue.send([WakeUp(kind, at=now + timedelta(seconds=PASS_ON_SECONDS))], now)


async def _beat(ctx: Context) -> None:
    """Sends a heartbeat every few seconds while the event loop runs."""
    runtime = _runtime(ctx)
    pause = runtime.settings.heartbeat_s
    await _repeat("heartbeat", pause, lambda: sweep.beat(runtime), patience=BEAT_SECONDS)


async def _sweep(ctx: Context) -> None:
    """Sweeps every few seconds. Not arq's cron, which uses this machine's clock: if that is set back by an
    hour, work that only the sweep finds would wait for an hour."""
    runtime = _runtime(ctx)
    await _repeat("sweep", runtime.settings.sweep_interval_s, lambda: sweep.sweep(runtime))


async def _tidy(ctx: Context) -> None:
    await asyncio.sleep(TIDY_SECONDS)
    await _repeat("tidy", TIDY_SECONDS, lambda: sweep.tidy(_runtime(ctx)), patience=TIDY_SECONDS / 2)


async def _backfill(ctx: Context) -> None:
    """Adds the devices of earlier outcomes. Separate from tidying, so that neither waits for the other."""
    await asyncio.sleep(TIDY_SECONDS)
    work = functools.partial(devices.backfill, _runtime(ctx))
    await _repeat("device_backfill", TIDY_SECONDS, work, patience=TIDY_SECONDS / 2)


async def _repeat(
    name: str, pause: float, work: Callable[[], Awaitable[object]], *, patience: float = SWEEP_SECONDS
) -> None:
    while True:
        try:
            async with asyncio.timeout(patience):
                await work()
        except OUTAGES as error:  # TimeoutError is an OSError
            log.warning("background_task_failed", task=name, error=type(error).__name__)
        except Exception as error:  # noqa: BLE001 - a worker must not lose its background loops
            log.error("background_task_failed", task=name, **origin(error))
        await asyncio.sleep(pause)


async def startup(ctx: Context) -> None:
    settings: Settings = ctx["settings"]
    runtime = await Runtime.open(settings, process="worker")
    ctx["runtime"] = runtime
    ctx["lanes"] = dict.fromkeys(WakeKind, 0)
    ctx["passed_on"] = {}
    ctx["limits"] = {
        WakeKind.BATCHES: settings.worker_lanes,
        WakeKind.DELIVERIES: settings.delivery_lanes,
        WakeKind.CONSENT: 2,
        WakeKind.IMPORTS: settings.import_places,
    }
    # Before the first claim, so that every worker that dies with claims has had a heartbeat.
    with contextlib.suppress(*OUTAGES):  # TimeoutError is an OSError
        async with asyncio.timeout(BEAT_SECONDS):
            await sweep.beat(runtime)
    found = await health.look(runtime)
    if found.database and not found.schema_serves:
        # It works as soon as the migration has run. Errors until then would not name the cause.
        log.error("schema_not_current", schema=found.schema)
    ctx["loops"] = [asyncio.create_task(loop(ctx)) for loop in (_beat, _sweep, _tidy, _backfill)]
    settle()
    log.info("worker_started", worker_id=runtime.presence.worker_id)


async def shutdown(ctx: Context) -> None:
    if "loops" not in ctx:
        return  # It never started: show the first error, not those of stopping.
    await end_tasks(ctx["loops"])
    runtime = _runtime(ctx)
    with contextlib.suppress(*OUTAGES):  # TimeoutError is an OSError
        async with asyncio.timeout(BEAT_SECONDS):
            await sweep.end_beat(runtime)
    await runtime.close()
    log.info("worker_stopped")


def build(settings: Settings) -> PromptWorker:
    """The worker for settings that have both URLs. Building it connects nothing."""
    if settings.redis_url is None:
        raise ValueError("a worker needs the URL of Redis")
    lane_timeout = SLICE + settings.step_timeout_s + 10
    ctx: Context = {"settings": settings}
    worker = PromptWorker(
        functions=[
            # One try, because the rows bring back unfinished work. The timeout ends a lane that hangs.
            func(cast(WorkerCoroutine, coroutine), timeout=lane_timeout, max_tries=1, keep_result=0)
            for coroutine in (advance_batches, deliver_webhooks, read_customers)
        ]
        + [func(cast(WorkerCoroutine, advance_imports), timeout=IMPORT_TIMEOUT, max_tries=1, keep_result=0)],
        ctx=ctx,
        on_startup=cast(StartupShutdown, startup),
        on_shutdown=cast(StartupShutdown, shutdown),
        redis_settings=redis_settings(settings.redis_url, attempts=REDIS_ATTEMPTS),
        queue_name=QUEUE_NAME,
        job_serializer=serialize,
        job_deserializer=deserialize,
        max_jobs=2 * (settings.worker_lanes + settings.delivery_lanes + settings.import_places) + 4,
        queue_read_limit=1000,
        poll_delay=POLL_DELAY,
        keep_result=0,
        health_check_interval=10,
        # On SIGTERM: take no new wake-up, let the lanes finish their step.
        job_completion_wait=int(SLICE + settings.step_timeout_s),
        retry_jobs=False,
        log_results=False,
    )
    # arq waits for running jobs, but reading a file may take too long.
    ctx["stopping"] = lambda: not worker.allow_pick_jobs
    return worker


@contextlib.contextmanager
def _showing_metrics(settings: Settings) -> Iterator[None]:
    """Serves metrics on the worker's only port, if set. A port that is taken does not end the worker."""
    end = None
    if settings.worker_metrics_port is not None:
        try:
            end = metrics.serve(settings.worker_metrics_host, settings.worker_metrics_port)
        except OSError as error:
            log.error("metrics_not_served", port=settings.worker_metrics_port, reason=error.strerror)
    try:
        yield
    finally:
        if end is not None:
            end()


async def run(settings: Settings) -> None:
    with _showing_metrics(settings):
        await _run(settings)


async def _run(settings: Settings) -> None:
    async with showing_life(settings.alive_file, settings.heartbeat_s):
        worker = build(settings)
        try:
            await worker.async_run()
        except asyncio.CancelledError:
            log.info("worker_stopping")
        except REDIS_OUTAGES:
            if worker.allow_pick_jobs:
                raise
            # Told to stop: a lost Redis does not matter any more.
        finally:
            await worker.close()


def main() -> None:
    settings = load_or_exit()
    telemetry.configure(**settings.logging, process="worker")
    try:
        check_installation(settings, Purpose.SERVE)
        uvloop.run(run(settings))
    except (NoInstallation, SecretError, WallsDown) as error:
        log.error("worker_cannot_start", reason=str(error))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

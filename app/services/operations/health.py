"""Readiness of this process and of the whole service, for `/readyz`."""

from dataclasses import dataclass

from app.db import heartbeats, schema
from app.db.engine import OUTAGES, stamp
from app.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Health:
    database: bool
    schema: str
    """The schema in words: `current`, that of a later release that this one can run on, or what to do."""
    redis: bool
    worker: str
    schema_serves: bool = False

    @property
    def takes_orders(self) -> bool:
        """Orders are written to the database alone, so Redis and workers may be down."""
        return self.database and self.schema_serves

    @property
    def complete(self) -> bool:
        return self.takes_orders and self.redis and self.worker == "alive"


async def look(runtime: Runtime) -> Health:
    """Checks everything: database, schema, Redis and workers."""
    return await _look(runtime, redis=await runtime.queue.ping())


async def look_at_database(runtime: Runtime) -> Health:
    """Checks only what this process needs to take orders. Redis is not asked and counts as down."""
    return await _look(runtime, redis=False)


async def _look(runtime: Runtime, *, redis: bool) -> Health:
    try:
        async with runtime.system_transaction() as tx:
            version = await schema.current(tx.session)
            last = await heartbeats.last(tx)
    except OUTAGES:
        return await _without_tables(runtime, redis)
    newest = schema.newest()
    if last is None:
        worker = "none has been seen"
    elif runtime.now() - last > runtime.settings.silence:
        worker = f"last seen {stamp(last)}"
    else:
        worker = "alive"
    return Health(
        database=True,
        schema=_words(version, newest),
        redis=redis,
        worker=worker,
        schema_serves=version == newest or _is_later(version, newest),
    )


async def _without_tables(runtime: Runtime, redis: bool) -> Health:
    """Health of a database that has no tables yet, because nothing has been migrated."""
    version, newest = await runtime.schema_version(), schema.newest()
    if version is None or version == newest or _is_later(version, newest):
        return Health(database=False, schema="unknown", redis=redis, worker="unknown")
    return Health(database=True, schema=_words(version, newest), redis=redis, worker="unknown")


def _is_later(version: str, newest: str) -> bool:
    """Revisions are numbered. A later release only adds, so this one may run on it until it is replaced."""
    return version.isdigit() and version > newest


def _words(version: str, newest: str) -> str:
    if version == newest:
        return "current"
    if _is_later(version, newest):
        return f"at {version}, of a later release; this one knows {newest} and can run on it"
    return f"at {version}, needs {newest}: run `registrar migrate`"

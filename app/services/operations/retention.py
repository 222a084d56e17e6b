"""Deletes old rows in small transactions: finished imports, and API keys that nothing refers to."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

from app.db import imports, partners
from app.kernel.transactions import SystemTx
from app.runtime import Runtime

CHUNK = 500
"""Imports or keys in one transaction."""
CHUNKS = 200
"""The most chunks in one round: more than ends between two rounds."""


async def forget_in_chunks(
    runtime: Runtime, purge: Callable[[SystemTx, int], Awaitable[int]], *, chunk: int, chunks: int
) -> int:
    """Deletes up to `chunk` rows in each transaction, as the system; returns how many. The next rounds delete
    what is left of a long backlog."""
    forgotten = 0
    for _ in range(chunks):
        async with runtime.system_transaction() as tx:
            gone = await purge(tx, chunk)
        forgotten += gone
        if gone < chunk:
            break
    return forgotten


async def forget_imports(runtime: Runtime, *, chunk: int = CHUNK, chunks: int = CHUNKS) -> int:
    """Deletes finished imports; returns how many."""
    before = _ended_before(runtime, runtime.settings.import_record_retention_days)

    async def purge(tx: SystemTx, limit: int) -> int:
        return await imports.purge(tx, ended_before=before, limit=limit)

    return await forget_in_chunks(runtime, purge, chunk=chunk, chunks=chunks)


async def forget_keys(runtime: Runtime, *, chunk: int = CHUNK, chunks: int = CHUNKS) -> int:
    """Deletes revoked and expired API keys; returns how many."""
    before = _ended_before(runtime, runtime.settings.ended_key_retention_days)
    forgotten, after = 0, None
    for _ in range(chunks):
        gone, after = await _forget_some_keys(runtime, before, after, chunk)
        forgotten += gone
        if after is None:
            break
    return forgotten


async def _forget_some_keys(
    runtime: Runtime, before: datetime, after: UUID | None, chunk: int
) -> tuple[int, UUID | None]:
    async with runtime.system_transaction() as tx:
        return await partners.purge_keys(tx, ended_before=before, after=after, limit=chunk)


def _ended_before(runtime: Runtime, days: float) -> datetime:
    """Not before answers to Idempotency-Keys are deleted, because a repeated request shows the row."""
    return runtime.now() - max(timedelta(days=days), timedelta(hours=runtime.settings.idempotency_hours))

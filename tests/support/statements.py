"""The statements sent to the database while a block runs: each round trip with its values.

BEGIN and COMMIT too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

EVERY_FEW_SECONDS = ("SELECT clock_timestamp()", "row_sealing")
"""Statements that the runtime adds to any transaction, which do not count."""


@dataclass
class Sent:
    trips: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return [query for query, _ in self.trips]

    @property
    def statements(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Without statements that begin or end transactions."""
        edges = ("BEGIN", "COMMIT", "ROLLBACK")
        return [(query, values) for query, values in self.trips if not query.startswith(edges)]

    def by_driver(self, record: Any) -> None:
        if "pg_catalog.pg_type" not in record.query:  # the driver looks up each type only once
            self._note(record.query, tuple(record.args))

    def by_sqlalchemy(self, _c: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        self._note(statement, tuple(values))

    def _note(self, query: str, values: tuple[Any, ...]) -> None:
        if not any(words in query for words in EVERY_FEW_SECONDS):
            self.trips.append((query, values))


@asynccontextmanager
async def sent_by(engine: AsyncEngine, *sessions: AsyncConnection) -> AsyncIterator[Sent]:
    """Records what the engine's connections send; of connections in use, those of these sessions."""
    sent = Sent()
    watched: set[asyncpg.Connection[Any]] = set()

    def watch(driver: asyncpg.Connection[Any]) -> None:
        if driver not in watched:
            watched.add(driver)
            driver.add_query_logger(sent.by_driver)

    def on_checkout(adapted: Any, *_rest: object) -> None:
        watch(adapted.driver_connection)

    for session in sessions:
        driver = (await session.get_raw_connection()).driver_connection
        assert driver is not None
        watch(driver)
    event.listen(engine.sync_engine, "checkout", on_checkout)
    event.listen(engine.sync_engine, "before_cursor_execute", sent.by_sqlalchemy)
    try:
        yield sent
    finally:
        await asyncio.sleep(0)  # the driver reports a statement in the loop's next round
        event.remove(engine.sync_engine, "checkout", on_checkout)
        event.remove(engine.sync_engine, "before_cursor_execute", sent.by_sqlalchemy)
        for driver in watched:
            driver.remove_query_logger(sent.by_driver)

"""Statements and transactions by the driver itself, in the connection that SQLAlchemy holds.

SQLAlchemy's own way of sending a text takes six times as much of the processor, and most of what a call costs
is its statements. So texts go to asyncpg directly; connections, their pool, commits and errors stay
SQLAlchemy's, and its statements can be mixed with these.

A transaction begins in one round trip with whose it is: `Bound` adds that to the driver's BEGIN.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import asyncpg
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

DriverError = AsyncAdapt_asyncpg_dbapi.Error
_DIALECT = make_url("postgresql+asyncpg://").get_dialect()()
_BEGIN = "BEGIN"
_REFUSED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, DriverError)


class Bound(_Connection):
    """A connection whose transactions begin as somebody: `usual`, unless `next_one` says who else."""

    usual = ""
    """Statements that begin every transaction, whatever begins it."""
    next_one: str | None = None
    """Statements that begin the next transaction instead."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if not query.startswith(_BEGIN):
            return str(await super().execute(query, *args, timeout=timeout))
        becoming, self.next_one = self.usual if self.next_one is None else self.next_one, None
        try:
            return str(await super().execute(f"{query.removesuffix(';')}; {becoming}", timeout=timeout))
        except asyncpg.PostgresError:
            # asyncpg takes it for begun, or not, by the whole; PostgreSQL may have begun it.
            self._top_xact = None
            if not self.is_closed() and self.is_in_transaction():
                await super().execute("ROLLBACK")
            raise
        except BaseException:
            self.terminate()  # nobody knows whether it has begun
            raise


def bound_to(role: str) -> type[Bound]:
    """The class of connections whose transactions run as this role unless they say otherwise."""
    return type("BoundToRole", (Bound,), {"usual": f"SET LOCAL ROLE {role}"})


async def begin_as(session: AsyncConnection, becoming: str) -> None:
    """Runs the statements in one round trip: with the BEGIN where the transaction has not begun yet.

    They are our own; nothing that a caller has sent may be part of them.
    """
    adapted = _adapted(session)
    driver = adapted.driver_connection
    async with adapted._execute_mutex:
        try:
            if driver.is_in_transaction():
                await driver.execute(becoming)
            elif issubclass(type(driver), Bound):  # asyncpg takes every connection for an instance
                driver.next_one = becoming
                await adapted._start_transaction()
            else:
                await adapted._start_transaction()
                await driver.execute(becoming)
        except _REFUSED as error:
            _raise(error, adapted, becoming)


async def fetch(session: AsyncConnection, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """The rows; of each, its fields by name and by position."""
    query, names = _numbered(statement)
    rows: Sequence[Any] = await _run(session, "fetch", query, [values[name] for name in names])
    return rows


async def run(session: AsyncConnection, statement: str, values: Mapping[str, Any]) -> int:
    """How many rows it has touched; -1 for a statement that touches none."""
    query, names = _numbered(statement)
    status = await _run(session, "execute", query, [values[name] for name in names])
    count = str(status).rpartition(" ")[2]
    return int(count) if count.isdigit() else -1


async def run_raw(session: AsyncConnection, statement: str, *values: object) -> None:
    """A statement in the driver's own form, with `$1` for the first value."""
    await _run(session, "execute", statement, values)


async def _run(session: AsyncConnection, verb: str, query: str, values: Sequence[object]) -> Any:
    if not session.in_transaction():
        await session.begin()  # or SQLAlchemy would not know that there is something to commit
    adapted = _adapted(session)
    async with adapted._execute_mutex:
        try:
            if adapted._transaction is None:
                await adapted._start_transaction()
            return await getattr(adapted.driver_connection, verb)(query, *values)
        except _REFUSED as error:
            _raise(error, adapted, query)


def _adapted(session: AsyncConnection) -> Any:
    """SQLAlchemy's cover of the driver's connection; it knows whether a transaction has begun."""
    assert session.sync_connection is not None
    return session.sync_connection.connection.dbapi_connection


def _raise(error: Exception, adapted: Any, query: str) -> NoReturn:
    """As SQLAlchemy raises it, with the driver's error as the cause of `orig`. Never shows the values."""
    try:
        if not isinstance(error, DriverError):
            adapted._handle_exception(error)
        raise error
    except DriverError as known:
        is_gone = adapted.driver_connection.is_closed()
        raise DBAPIError.instance(
            query,
            None,
            known,
            DriverError,
            hide_parameters=True,
            connection_invalidated=is_gone,
            dialect=_DIALECT,
        ) from known


@lru_cache(maxsize=1024)
def _numbered(statement: str) -> tuple[str, tuple[str, ...]]:
    """The statement with `$1` in place of `:name`, and the names in the order of their numbers."""
    compiled = text(statement).compile(dialect=_DIALECT)
    return str(compiled), tuple(getattr(compiled, "positiontup", None) or ())

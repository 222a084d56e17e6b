"""Runs statements and transactions directly with asyncpg, on SQLAlchemy's connections.

Statements sent through SQLAlchemy take six times as much processor time, and most of a call's cost is its
statements. So texts go to asyncpg directly. SQLAlchemy still handles connections, their pool, commits and
errors, and its statements can be mixed with these.

A transaction's role and partner are set in the same round trip as its BEGIN: see `Bound`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import asyncpg
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

DriverError = AsyncAdapt_asyncpg_dbapi.Error
_DIALECT = make_url("postgresql+asyncpg://").get_dialect()()
_BEGIN = "BEGIN"
_REFUSED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, DriverError)


class Bound(_Connection):
    """A connection that sets each transaction's role: by `usual`, or once by `next_one`."""

    usual = ""
    """Statements that begin every transaction, whatever starts it."""
    next_one: str | None = None
    """Statements that begin the next transaction instead."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if not query.startswith(_BEGIN):
            return str(await super().execute(query, *args, timeout=timeout))
        becoming, self.next_one = self.usual if self.next_one is None else self.next_one, None
        try:
            return str(await super().execute(f"{query.removesuffix(';')}; {becoming}", timeout=timeout))
        except asyncpg.PostgresError:
            # If a statement fails, asyncpg assumes that nothing has begun. PostgreSQL may have begun it.
            self._top_xact = None
            if not self.is_closed() and self.is_in_transaction():
                await super().execute("ROLLBACK")
            raise
        except BaseException:
            self.terminate()  # it is unknown whether the transaction has begun
            raise


class Direct(Bound):
    """A connection without a pooler: statements outside a transaction reach the same server connection."""


def bound_to(role: str, kind: type[Bound]) -> type[Bound]:
    """A class of connections whose transactions run as this role, unless they set another one."""
    return type(f"{kind.__name__}To", (kind,), {"usual": f"SET LOCAL ROLE {role}"})


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that commits at the end, like `engine.begin`, with fewer task switches."""
    async with engine.connect() as session:
        sync = _sync(session)
        sync.begin()
        yield session
        adapted = _adapted(session)
        if adapted._transaction is not None:
            try:
                await adapted._call_and_discard(adapted._transaction.commit)
            except _REFUSED as error:
                _raise(error, adapted, "COMMIT")
        if (begun := sync.get_transaction()) is not None:
            begun.commit()  # sends nothing to the server any more


async def begin_as(session: AsyncConnection, becoming: str) -> None:
    """Runs the statements in one round trip, together with the BEGIN if the transaction has not begun yet.

    They must be our own text; nothing that a caller sent may be in them.
    """
    adapted = _adapted(session)
    driver = adapted.driver_connection
    async with adapted._execute_mutex:
        try:
            if driver.is_in_transaction():
                await driver.execute(becoming)
            elif issubclass(type(driver), Bound):  # isinstance() is true for every connection
                driver.next_one = becoming
                await adapted._start_transaction()
            else:
                await adapted._start_transaction()
                await driver.execute(becoming)
        except _REFUSED as error:
            _raise(error, adapted, becoming)


async def fetch(session: AsyncConnection, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """The rows; each row's fields can be read by name and by position."""
    query, names = _numbered(statement)
    rows: Sequence[Any] = await _run(session, "fetch", query, [values[name] for name in names])
    return rows


async def fetch_alone(session: AsyncConnection, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """`fetch` outside a transaction. The statement itself must be limited to what the caller may see.

    Behind a pooler it runs in a transaction after all: otherwise its parts could reach different servers.
    """
    if not issubclass(type(_adapted(session).driver_connection), Direct):
        return await fetch(session, statement, values)
    assert not session.in_transaction()
    query, names = _numbered(statement)
    adapted = _adapted(session)
    async with adapted._execute_mutex:
        try:
            rows: Sequence[Any] = await adapted.driver_connection.fetch(query, *(values[n] for n in names))
        except _REFUSED as error:
            _raise(error, adapted, query)
    return rows


async def run(session: AsyncConnection, statement: str, values: Mapping[str, Any]) -> int:
    """Runs a statement; returns the number of rows it changed, or -1 for a statement that changes none."""
    query, names = _numbered(statement)
    status = await _run(session, "execute", query, [values[name] for name in names])
    count = str(status).rpartition(" ")[2]
    return int(count) if count.isdigit() else -1


async def run_raw(session: AsyncConnection, statement: str, *values: object) -> None:
    """Runs a statement with the driver's own parameters: `$1` is the first value."""
    await _run(session, "execute", statement, values)


async def _run(session: AsyncConnection, verb: str, query: str, values: Sequence[object]) -> Any:
    if not session.in_transaction():
        _sync(session).begin()  # otherwise SQLAlchemy would not commit
    adapted = _adapted(session)
    async with adapted._execute_mutex:
        try:
            if adapted._transaction is None:
                await adapted._start_transaction()
            return await getattr(adapted.driver_connection, verb)(query, *values)
        except _REFUSED as error:
            _raise(error, adapted, query)


def _adapted(session: AsyncConnection) -> Any:
    """SQLAlchemy's wrapper of the driver's connection; it knows whether a transaction has begun."""
    return _sync(session).connection.dbapi_connection


def _sync(session: AsyncConnection) -> SyncConnection:
    assert session.sync_connection is not None
    return session.sync_connection


def _raise(error: Exception, adapted: Any, query: str) -> NoReturn:
    """Raises what SQLAlchemy would, with the driver's error as the cause of `orig`. Hides the values."""
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
    """The statement with numbered parameters (`$1` and so on), and the parameters' names in that order."""
    compiled = text(statement).compile(dialect=_DIALECT)
    return str(compiled), tuple(getattr(compiled, "positiontup", None) or ())

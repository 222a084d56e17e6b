"""The database engine, the role and partner of transactions, and bulk inserts.

Transactions run as the role `registrar_app`, which row-level security limits to the partner that is set in
the transaction. `registrar_system` sees every partner; only claims, sweeps and authentication use it. The
first migration creates both. Each transaction sets its role and partner when it begins, in the same round
trip: behind a pooler, settings made when a connection started may be wrong.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy import Table, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.connecting import make_engine
from app.db.driver import begin_as, run_raw
from app.db.sqlstate import sqlstate_of
from app.domain.ids import PartnerId
from app.kernel.transactions import PartnerTx

APP_ROLE = "registrar_app"
SYSTEM_ROLE = "registrar_system"

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def open_engine(url: str, *, pool_size: int, name: str) -> AsyncEngine:
    engine = make_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        hide_parameters=True,  # otherwise a failing statement would log serial numbers, hashes and secrets
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        connect_args={"command_timeout": 60},
        parameters={
            "role": APP_ROLE,  # limits even a transaction that sets no role itself
            "application_name": f"registrar-{name}",
            "timezone": "UTC",
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(adapted: Any, _record: object, _proxy: object) -> None:
    """Replaces a connection that the server has closed before it is used.

    The driver notices at once when its socket is closed, so no ping is needed: pinging before each
    transaction took a tenth of the worker's time. If a connection has died silently, its first statement
    fails, which callers must expect at any time anyway.
    """
    if adapted.driver_connection.is_closed():
        raise DisconnectionError


OUTAGES: tuple[type[Exception], ...] = (SQLAlchemyError, OSError)
"""Exceptions that an unavailable database raises. Broad: loops that must continue catch these and log."""

PASSING_STATES = ("08", "40", "53", "57", "58")
"""Classes of SQLSTATE for temporary failures: connection, deadlock, resources, shutdown, system."""


def is_passing(error: Exception) -> bool:
    """Whether the same work may succeed later: the database was unavailable, and the statement is not
    wrong."""
    if isinstance(error, OSError | PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = sqlstate_of(error)
    if state is not None:
        return state[:2] in PASSING_STATES
    cause = error.orig and (error.orig.__cause__ or error.orig)
    # A wrong argument is an InterfaceError too, but also a ValueError: that is our own bug.
    return isinstance(cause, OSError | asyncpg.InterfaceError) and not isinstance(cause, ValueError)


TOOK_TOO_LONG = "57014"
"""PostgreSQL's SQLSTATE for a statement that was ended by `statement_timeout`."""

_BECOME = (
    "SET LOCAL ROLE {role}; SET LOCAL registrar.partner_id = '{partner}'; "
    # Turns off migration 0003's compatibility trigger (for the previous release).
    "SET LOCAL registrar.row_states = 'of_batch'; "
    "SET LOCAL jit = off"  # compiling takes longer than any statement of ours
)
_PATIENCE = "; SET LOCAL statement_timeout = {ms}; SET LOCAL idle_in_transaction_session_timeout = {ms}"
_NOBODY = _BECOME.format(role=APP_ROLE, partner="")
_SYSTEM = _BECOME.format(role=SYSTEM_ROLE, partner="")


async def become_partner(session: AsyncConnection, partner_id: PartnerId) -> None:
    """Limits the rest of the transaction to this partner's rows."""
    await begin_as(session, _as_partner(partner_id))


async def become_reader(session: AsyncConnection, partner_id: PartnerId, patience_s: float) -> None:
    """`become_partner`, with a timeout for each statement, and for each pause between two."""
    await begin_as(session, _as_partner(partner_id) + _PATIENCE.format(ms=max(1, round(patience_s * 1000))))


def _as_partner(partner_id: PartnerId) -> str:
    # Parsed as a UUID again, because these statements cannot have parameters.
    return _BECOME.format(role=APP_ROLE, partner=UUID(str(partner_id)))


async def become_nobody(session: AsyncConnection) -> None:
    """Limits the rest of the transaction to no partner's rows."""
    await begin_as(session, _NOBODY)


async def become_system(session: AsyncConnection) -> None:
    """Opens every partner's rows to the rest of the transaction."""
    await begin_as(session, _SYSTEM)


async def load(tx: PartnerTx, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Inserts many rows with one statement and one array per column.

    COPY would be the obvious way, but PostgreSQL refuses COPY FROM into a table with row-level security. COPY
    into a temporary table is a little faster than arrays, but costs more elsewhere (docs/adr/0004).
    """
    if not rows:
        return
    names = ", ".join(f'"{name}"' for name in columns)
    await run_raw(
        tx.session,
        f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {arrays(table, columns)}",
        *(list(column) for column in zip(*rows, strict=True)),
    )


def arrays(table: Table, columns: Sequence[str], alias: str = "given", first: int = 1) -> str:
    """SQL for rows given as one array per column of the table; the first array is parameter `$first`."""
    types = [table.c[name].type.compile(dialect=_DIALECT) for name in columns]
    given = ", ".join(f"${index}::{type_}[]" for index, type_ in enumerate(types, start=first))
    names = ", ".join(f'"{name}"' for name in columns)
    return f"unnest({given}) AS {alias}({names})"


def encode_json(value: Any) -> str:
    """A value for a JSONB column in `load`: inside arrays, drivers expect JSON as text."""
    return orjson.dumps(value).decode()


def stamp(value: datetime | None) -> str | None:
    """A time as JSON shows it everywhere: RFC 3339, UTC, milliseconds."""
    return None if value is None else value.isoformat(timespec="milliseconds").replace("+00:00", "Z")

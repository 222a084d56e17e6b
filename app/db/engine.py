"""The door to PostgreSQL: the engine, who one is inside a transaction, and loading rows in bulk.

Transactions run as the role `registrar_app`, which row-level security binds to the partner set in
the transaction. `registrar_system` sees every partner; only claims, sweeps and authentication use
it. Both are made by the first migration. Every transaction begins with its role and partner, in one
round trip: what a connection was told at its start may not be true behind a pooler.
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
        hide_parameters=True,  # or a failing statement would log serial numbers, hashes and secrets
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        connect_args={"command_timeout": 60},
        parameters={
            "role": APP_ROLE,  # so that even a transaction that says nothing about itself is bound
            "application_name": f"registrar-{name}",
            "timezone": "UTC",
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(adapted: Any, _record: object, _proxy: object) -> None:
    """A connection that the server has closed is replaced by a new one before it is used.

    The driver knows at once when its socket ends, so nobody has to ask the server: a ping before each
    transaction was a tenth of the worker's time. A connection that has died silently fails its first
    statement, which every caller must expect at any moment anyway.
    """
    if adapted.driver_connection.is_closed():
        raise DisconnectionError


OUTAGES: tuple[type[Exception], ...] = (SQLAlchemyError, OSError)
"""What working without a database raises. Broad: a loop that must go on catches these and logs."""

PASSING_STATES = ("08", "40", "53", "57", "58")
"""Classes of SQLSTATE that pass by themselves: connection, deadlock, resources, shutdown, system."""


def is_passing(error: Exception) -> bool:
    """Whether the same work may succeed later: the database is unavailable, and the statement is not
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
    # A wrong argument is an InterfaceError too, and a ValueError besides: that is our own mistake.
    return isinstance(cause, OSError | asyncpg.InterfaceError) and not isinstance(cause, ValueError)


TOOK_TOO_LONG = "57014"
"""PostgreSQL's SQLSTATE for a statement that was ended by `statement_timeout`."""

_BECOME = (
    "SET LOCAL ROLE {role}; SET LOCAL registrar.partner_id = '{partner}'; "
    # Spares us the bridge that migration 0003 has for the release before.
    "SET LOCAL registrar.row_states = 'of_batch'; "
    "SET LOCAL jit = off"  # its compile time exceeds every statement we have
)
_PATIENCE = "; SET LOCAL statement_timeout = {ms}; SET LOCAL idle_in_transaction_session_timeout = {ms}"
_NOBODY = _BECOME.format(role=APP_ROLE, partner="")
_SYSTEM = _BECOME.format(role=SYSTEM_ROLE, partner="")


async def become_partner(session: AsyncConnection, partner_id: PartnerId) -> None:
    """Everything until the end of the transaction concerns this partner only."""
    await begin_as(session, _as_partner(partner_id))


async def become_reader(session: AsyncConnection, partner_id: PartnerId, patience_s: float) -> None:
    """As `become_partner`. Each statement, and each pause between two, may take so many seconds."""
    await begin_as(session, _as_partner(partner_id) + _PATIENCE.format(ms=max(1, round(patience_s * 1000))))


def _as_partner(partner_id: PartnerId) -> str:
    # Read as an id once more: statements of this form have no place for values.
    return _BECOME.format(role=APP_ROLE, partner=UUID(str(partner_id)))


async def become_nobody(session: AsyncConnection) -> None:
    """No partner's rows, until the end of the transaction."""
    await begin_as(session, _NOBODY)


async def become_system(session: AsyncConnection) -> None:
    """Every partner's rows, until the end of the transaction."""
    await begin_as(session, _SYSTEM)


async def load(tx: PartnerTx, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Inserts many rows with one statement and one array per column.

    COPY would be the obvious way, but PostgreSQL refuses COPY FROM into a table with row-level
    security. COPY into a temporary table is a little faster than arrays and costs more elsewhere
    (docs/adr/0004).
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
    """SQL of rows that are given as one array per column of the table, the first of them as `$first`."""
    types = [table.c[name].type.compile(dialect=_DIALECT) for name in columns]
    given = ", ".join(f"${index}::{type_}[]" for index, type_ in enumerate(types, start=first))
    names = ", ".join(f'"{name}"' for name in columns)
    return f"unnest({given}) AS {alias}({names})"


def encode_json(value: Any) -> str:
    """JSONB as `load` wants it: drivers take text for JSON inside arrays."""
    return orjson.dumps(value).decode()


def stamp(value: datetime | None) -> str | None:
    """A time as JSON shows it everywhere: RFC 3339, UTC, milliseconds."""
    return None if value is None else value.isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""The verbs for statements, so that query functions read as the SQL they are."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Table

from app.db import driver
from app.kernel.transactions import Tx

Record = Mapping[str, Any]
"""One row by column name."""


def listed(states: Iterable[str]) -> str:
    """Our own state names as they stand inside `IN (...)`."""
    return ", ".join(sorted(f"'{state}'" for state in states))


@cache
def columns(table: Table, alias: str = "") -> str:
    """The table's columns as this release knows them, for a SELECT or RETURNING; behind `alias` if given.

    Never `*`: a column that a later release adds would change what a prepared statement returns, and
    PostgreSQL then refuses it once on each connection.
    """
    prefix = f"{alias}." if alias else ""
    return ", ".join(f"{prefix}{column.name}" for column in table.columns)


async def fetch_one(tx: Tx, statement: str, **parameters: Any) -> Record | None:
    rows = await driver.fetch(tx.session, statement, parameters)
    return dict(rows[0]) if rows else None


async def fetch_all(tx: Tx, statement: str, **parameters: Any) -> list[Record]:
    return [dict(row) for row in await driver.fetch(tx.session, statement, parameters)]


async def fetch_rows(tx: Tx, statement: str, **parameters: Any) -> Sequence[Sequence[Any]]:
    """As `fetch_all`, for many rows: each by its columns' positions."""
    return await driver.fetch(tx.session, statement, parameters)


async def execute(tx: Tx, statement: str, **parameters: Any) -> int:
    """The number of rows the statement touched."""
    return await driver.run(tx.session, statement, parameters)


async def insert(tx: Tx, table: str, values: Record) -> None:
    """One row. Column names are our own, never a caller's."""
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    await driver.run(tx.session, f"INSERT INTO {table} ({names}) VALUES ({marks})", values)

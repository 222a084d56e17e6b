"""Three verbs for statements, so that query functions read as the SQL they are."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy import text as parse
from sqlalchemy.ext.asyncio import AsyncConnection

Record = Mapping[str, Any]
"""One row by column name."""


@lru_cache(maxsize=1024)
def text(statement: str) -> TextClause:
    """Parsed once: finding the parameters of a long statement takes longer than sending it."""
    return parse(statement)


def listed(states: Iterable[str]) -> str:
    """Our own state names as they stand inside `IN (...)`."""
    return ", ".join(sorted(f"'{state}'" for state in states))


async def fetch_one(session: AsyncConnection, statement: str, **parameters: Any) -> Record | None:
    row = (await session.execute(text(statement), parameters)).mappings().first()
    return dict(row) if row is not None else None


async def fetch_all(session: AsyncConnection, statement: str, **parameters: Any) -> list[Record]:
    rows = (await session.execute(text(statement), parameters)).mappings().all()
    return [dict(row) for row in rows]


async def execute(session: AsyncConnection, statement: str, **parameters: Any) -> int:
    """The number of rows the statement touched."""
    result = await session.execute(text(statement), parameters)
    return result.rowcount


async def insert(session: AsyncConnection, table: str, values: Record) -> None:
    """One row. Column names are our own, never a caller's."""
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    await session.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), dict(values))

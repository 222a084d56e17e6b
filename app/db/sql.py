"""The verbs for statements, so that query functions read as the SQL they are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from sqlalchemy import Table

from app.db import driver
from app.kernel.transactions import Tx

Kind = TypeVar("Kind")

_Row = Mapping[str, Any]
"""One row by column name: for queries that make a value of it themselves."""


def listed(states: Iterable[str]) -> str:
    """Our own state names as they stand inside `IN (...)`."""
    return ", ".join(sorted(f"'{state}'" for state in states))


@cache
def columns(table: Table, alias: str = "", of: type | None = None) -> str:
    """The table's columns as this release knows them, for a SELECT or RETURNING; behind `alias` if given.
    With `of`, a dataclass, only those that it has as fields.

    Never `*`: a column that a later release adds would change what a prepared statement returns, and
    PostgreSQL then refuses it once on each connection.
    """
    prefix = f"{alias}." if alias else ""
    asked = table.columns.keys() if of is None else [field.name for field in fields(of)]
    return ", ".join(f"{prefix}{column.name}" for column in table.columns if column.name in asked)


async def fetch_one(tx: Tx, statement: str, **parameters: Any) -> _Row | None:
    rows = await driver.fetch(tx.session, statement, parameters)
    return dict(rows[0]) if rows else None


async def fetch_all(tx: Tx, statement: str, **parameters: Any) -> list[_Row]:
    return [dict(row) for row in await driver.fetch(tx.session, statement, parameters)]


async def fetch_one_as(tx: Tx, kind: type[Kind], statement: str, **parameters: Any) -> Kind | None:
    """The row as a value of the dataclass `kind`, whose fields are the statement's columns by name."""
    rows = await driver.fetch(tx.session, statement, parameters)
    return _maker(kind)(rows[0]) if rows else None


async def fetch_all_as(tx: Tx, kind: type[Kind], statement: str, **parameters: Any) -> list[Kind]:
    """As `fetch_one_as`, all rows."""
    rows = await driver.fetch(tx.session, statement, parameters)
    make = _maker(kind)
    return [make(row) for row in rows]


_MAKERS: dict[type, Callable[[Mapping[str, Any]], Any]] = {}


def _maker(kind: type[Kind]) -> Callable[[Mapping[str, Any]], Kind]:
    if kind not in _MAKERS:
        _MAKERS[kind] = _new_maker(kind)
    return _MAKERS[kind]


def _new_maker(kind: type[Kind]) -> Callable[[Mapping[str, Any]], Kind]:
    """Makes a value of a row. The names of states become their enums."""
    enums = {name: found for name, hint in get_type_hints(kind).items() if (found := _enum_of(hint))}
    if not enums:
        return lambda row: kind(**row)

    def make(row: Mapping[str, Any]) -> Kind:
        values = dict(row)
        for name, enum in enums.items():
            if values[name] is not None:
                values[name] = enum(values[name])
        return kind(**values)

    return make


def _enum_of(hint: Any) -> type[StrEnum] | None:
    for part in (hint, *get_args(hint)):
        if isinstance(part, type) and issubclass(part, StrEnum):
            return part
    return None


async def fetch_rows(tx: Tx, statement: str, **parameters: Any) -> Sequence[Sequence[Any]]:
    """As `fetch_all`, for many rows: each by its columns' positions."""
    return await driver.fetch(tx.session, statement, parameters)


async def execute(tx: Tx, statement: str, **parameters: Any) -> int:
    """The number of rows the statement touched."""
    return await driver.run(tx.session, statement, parameters)


async def insert(tx: Tx, table: str, values: Mapping[str, Any]) -> None:
    """One row. Column names are our own, never a caller's."""
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    await driver.run(tx.session, f"INSERT INTO {table} ({names}) VALUES ({marks})", values)

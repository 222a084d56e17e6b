"""Functions that run statements: fetch, execute and insert; and the columns of a SELECT."""

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
"""One row by column name, for queries that build a value of it themselves."""


def listed(states: Iterable[str]) -> str:
    """Our own state names, for `IN (...)`."""
    return ", ".join(sorted(f"'{state}'" for state in states))


@cache
def columns(table: Table, alias: str = "", of: type | None = None) -> str:
    """The columns of the table that this release knows, for SELECT or RETURNING; with `alias` in front if
    given. With `of`, a dataclass, only the columns that are its fields.

    Never use `*`: a column that a later release adds would change the result of a prepared statement, and
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
    """All rows, each as in `fetch_one_as`."""
    rows = await driver.fetch(tx.session, statement, parameters)
    make = _maker(kind)
    return [make(row) for row in rows]


_MAKERS: dict[type, Callable[[Mapping[str, Any]], Any]] = {}


def _maker(kind: type[Kind]) -> Callable[[Mapping[str, Any]], Kind]:
    if kind not in _MAKERS:
        _MAKERS[kind] = _new_maker(kind)
    return _MAKERS[kind]


def _new_maker(kind: type[Kind]) -> Callable[[Mapping[str, Any]], Kind]:
    """A function that makes a value of a row, with state names as their enums."""
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
    """`fetch_all` for many rows: each is a sequence in the order of the columns."""
    return await driver.fetch(tx.session, statement, parameters)


async def execute(tx: Tx, statement: str, **parameters: Any) -> int:
    """Runs a statement; returns the number of rows that it changed."""
    return await driver.run(tx.session, statement, parameters)


async def insert(tx: Tx, table: str, values: Mapping[str, Any]) -> None:
    """Inserts one row. Column names must be our own, never a caller's."""
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    await driver.run(tx.session, f"INSERT INTO {table} ({names}) VALUES ({marks})", values)

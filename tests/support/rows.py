"""One row of every table for a partner, made from the tables' own definitions.

So the tests of row-level security also cover tables that are added later.
"""

from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, Boolean, Column, DateTime, Integer, LargeBinary, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.tables import metadata

OWNED: list[Table] = [table for table in metadata.sorted_tables if "partner_id" in table.c]
"""Every table that belongs to a partner, parents first. `partners` itself is not among them."""

Row = dict[str, Any]

_NUMBERS = count(1)
_PUBLISHED = {
    "type": "endpoint.test",
    "sequence": None,
    "data": {"endpoint_id": str(UUID(int=1)), "message": "This is a test."},
}
"""An event with its published shape, which `tests.support.published` checks."""
_STATES = {
    "batches": "queued",
    "registrations": "queued",
    "consents": "granted",
    "imports": "uploaded",
    "devices": "registered",
}


def _value(column: Column[Any]) -> Any:
    match column.type:
        case Uuid():
            return uuid4()
        case Text() if column.name == "state":
            return _STATES.get(column.table.name, "pending")
        case Text() if column.name == "mode":
            return "api"
        case Text() if column.name == "verdict":
            return "valid"
        case Text():
            return f"{column.name} {uuid4().hex[:8]}"
        case Boolean():
            return False
        case Integer():  # SmallInteger is one
            return next(_NUMBERS)
        case DateTime():
            return datetime.now(UTC)
        case LargeBinary():
            return b"value"
        case ARRAY() if column.name == "holds":
            return []  # the batch is queued
        case ARRAY():
            return ["value"]
        case JSONB():
            return {"value": 1}
        case other:
            raise AssertionError(f"{column}: no example of {other!r}; add one here")


def parents_of(table: Table) -> dict[str, set[str]]:
    """A table's parents with the columns that hold their ids, bound by a foreign key or by a trigger."""
    found: dict[str, set[str]] = {}
    for key in table.foreign_key_constraints:
        found.setdefault(key.referred_table.name, set()).update(e.parent.name for e in key.elements)
    for column in table.c:
        if "parent" in column.info:
            found.setdefault(column.info["parent"], set()).add(column.name)
    return found


def new_row(table: Table, partner_id: UUID, parents: dict[str, Row]) -> Row:
    """Values for every column. `parents` has the parents' ids by table name."""
    row = {column.name: _value(column) for column in table.c}
    if table.name == "events":
        row |= _PUBLISHED
    for key in table.foreign_key_constraints:
        parent = parents[key.referred_table.name]
        for element in key.elements:
            row[element.parent.name] = parent[element.column.name]
    for column in table.c:
        if "parent" in column.info:
            row[column.name] = parents[column.info["parent"]]["id"]
    if "partner_id" in row:
        row["partner_id"] = partner_id
    return row


async def insert(session: AsyncConnection, table: Table, row: Row) -> None:
    await session.execute(table.insert().values(row))


async def fill(session: AsyncConnection) -> tuple[UUID, dict[str, Row]]:
    """Creates a partner with one row in every table, as the system."""
    rows: dict[str, Row] = {}
    partner_id = uuid4()
    for table in metadata.sorted_tables:
        row = new_row(table, partner_id, rows)
        if table.name == "partners":
            row["id"] = partner_id
        rows[table.name] = row
        await insert(session, table, row)
    return partner_id, rows

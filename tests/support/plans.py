"""Plans of statements from the transaction that runs them, which show what each one really reads.

PostgreSQL plans by statistics, which are outdated whenever a table has just grown. So a statement whose cost
matters is tested with statistics of an empty table, of a full one, and with fresh ones; and with its values
and without, because PostgreSQL may keep one plan for all values of a statement.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, event, text

from tests.support.world import World

EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "
LOOKED_AT_IN_VAIN = ("Rows Removed by Filter", "Rows Removed by Index Recheck")


@dataclass(frozen=True)
class Reading:
    """One statement, run and rolled back."""

    plan: dict[str, Any]

    @property
    def rows(self) -> float:
        """Rows read by all scans of tables, including those that the filter dropped."""
        scans = [node for node in nodes(self.plan) if "Relation Name" in node and "Scan" in node["Node Type"]]
        in_vain = [sum(scan.get(name, 0) for name in LOOKED_AT_IN_VAIN) for scan in scans]
        rows = (
            float((scan["Actual Rows"] + more) * scan["Actual Loops"])
            for scan, more in zip(scans, in_vain, strict=True)
        )
        return sum(rows)

    @property
    def pages(self) -> int:
        """Pages of tables and indexes, because entries read inside an index do not count as rows."""
        return int(self.plan["Shared Hit Blocks"] + self.plan["Shared Read Blocks"])

    def __str__(self) -> str:
        return f"{self.rows:.0f} rows, {self.pages} pages: {orjson.dumps(self.plan).decode()}"


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)


@asynccontextmanager
async def readings(world: World, part: str) -> AsyncIterator[list[Reading]]:
    """Plans of each statement that contains `part`: for its values, and for any values."""
    found: list[Reading] = []
    looking = False

    def look(connection: Connection, _c: Any, statement: str, values: Any, _x: Any, _many: bool) -> None:
        nonlocal looking
        if looking or part not in statement:
            return
        looking = True
        for explain in (for_values, for_any):
            with connection.begin_nested() as savepoint:
                found.append(Reading(explain(connection, statement, values)[0]["Plan"]))
                savepoint.rollback()
        looking = False

    engine = world.runtime.engine.sync_engine
    event.listen(engine, "before_cursor_execute", look)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", look)


def for_values(connection: Connection, statement: str, values: Any) -> Any:
    return connection.exec_driver_sql(EXPLAIN + statement, values).scalar_one()


def for_any(connection: Connection, statement: str, values: Any) -> Any:
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql(f"PREPARE looked_at AS {statement}")
    given = ", ".join(literal(value) for value in values)
    plan = connection.exec_driver_sql(f"{EXPLAIN} EXECUTE looked_at ({given})").scalar_one()
    connection.exec_driver_sql("DEALLOCATE looked_at")
    return plan


def literal(value: Any) -> str:
    match value:
        case list():
            return "'{" + ", ".join(map(str, value)) + "}'"
        case datetime():
            return f"'{value.isoformat()}'"
        case _:
            return f"'{value}'"


async def vacuum(world: World, *tables: str, analyze: bool = True) -> None:
    """Does what PostgreSQL would do by itself later: removes dead rows and, with `analyze`, updates
    statistics."""
    async with world.owner() as owner, owner.connect() as session:
        await session.execution_options(isolation_level="AUTOCOMMIT")
        await session.execute(text(f"VACUUM {'(ANALYZE)' if analyze else ''} {', '.join(tables)}"))

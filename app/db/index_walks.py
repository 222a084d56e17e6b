"""Statements that walk an index from one entry to the next, whatever PostgreSQL believes about a table.

PostgreSQL chooses a plan by statistics. Those of a table that has just grown a thousandfold say that it is
empty, until autovacuum has looked at it. Then any index seems as good as another one, and a claim reads all
that waits. It may also keep a plan that it made while the table was small.

So these statements leave it no choice. Each look at a table is a subquery of its own, with LIMIT or an order,
which PostgreSQL does not merge with anything around it. Its ORDER BY is the order of one index and of no
other one, and sorts are off (`BY_INDEX`): only that index can serve it. Where columns are compared with `=`,
PostgreSQL leaves them out of the order, and an index without them can serve as well. A comparison of rows,
`(a, b) > (x, y)`, and `= ANY` keep them in.
"""

from typing import Final

from app.db.sql import fetch_one
from app.kernel.transactions import SystemTx

_OFF = (
    "enable_seqscan",
    "enable_bitmapscan",
    "enable_sort",
    "enable_incremental_sort",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_material",
    "jit",
)
_SETTINGS = {**dict.fromkeys(_OFF, "off"), "plan_cache_mode": "force_generic_plan"}
BY_INDEX: Final = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _SETTINGS.items())
"""Columns of a SELECT: until the end of the transaction, statements behind it are planned by their indexes. A
sort that nothing can replace is made all the same. One plan serves all values, so it is made once for each
connection: making it takes longer than the claim."""

FIRST_ID: Final = "CAST('00000000-0000-0000-0000-000000000000' AS uuid)"
LAST_ID: Final = "CAST('ffffffff-ffff-ffff-ffff-ffffffffffff' AS uuid)"
"""Before and behind all ids."""


def with_id(column: str, value: str) -> str:
    """The end of a WHERE: the row of this primary key, found by the primary key."""
    return f"{column} = ANY (ARRAY[{value}]) ORDER BY {column} LIMIT 1"


async def plan_by_index(tx: SystemTx) -> None:
    """Before a claim: until the end of the transaction."""
    await fetch_one(tx, f"SELECT {BY_INDEX}")

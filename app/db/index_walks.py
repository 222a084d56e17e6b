"""Builds statements that walk an index entry by entry, whatever PostgreSQL's statistics say.

PostgreSQL chooses a plan by statistics. For a table that has just grown a thousandfold, these say that it is
empty, until autovacuum has run. Then any index seems as good as another, and a claim reads everything that
waits. It may also keep a plan that it made while the table was small.

So these statements leave it no choice. Each look-up is a subquery with LIMIT or an order, which PostgreSQL
does not merge with the rest. Its ORDER BY is the order of exactly one index, and sorts are turned off
(`BY_INDEX`), so only that index can serve it. PostgreSQL removes columns compared with `=` from the order, so
an index without them could serve too. A row comparison, `(a, b) > (x, y)`, and `= ANY` keep them in.
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
"""Columns of a SELECT that make later statements of the transaction use their indexes. A sort that nothing
can replace is still made. One plan serves all values, so it is made once per connection: making it takes
longer than the claim."""

FIRST_ID: Final = "CAST('00000000-0000-0000-0000-000000000000' AS uuid)"
LAST_ID: Final = "CAST('ffffffff-ffff-ffff-ffff-ffffffffffff' AS uuid)"
"""Smaller and larger than all ids."""


def with_id(column: str, value: str) -> str:
    """The end of a WHERE that finds one row by its primary key, and by no other index."""
    return f"{column} = ANY (ARRAY[{value}]) ORDER BY {column} LIMIT 1"


async def plan_by_index(tx: SystemTx) -> None:
    """Makes the rest of the transaction use its indexes. Call it before a claim."""
    await fetch_one(tx, f"SELECT {BY_INDEX}")

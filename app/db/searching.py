"""Pages of one partner's rows by id, with a limit on the rows that one page searches.

What an index can find is found by it. For anything else, a page searches a limited number of rows: it may
have few items or none, and still lead to another page. So no page costs more than any other, however many
rows a partner has and however few of them match.
"""

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, TypeVar
from uuid import UUID

from app.db import tables
from app.db.paging import Page, PageRequest, cut
from app.db.sql import columns, fetch_all_as, fetch_one
from app.kernel.transactions import PartnerTx

Kind = TypeVar("Kind")

SEARCHED: Final = 100_000
"""The most registrations that one page searches."""
SEARCHED_WIDE: Final = 20_000
"""The most rows of other lists that one page searches: they are wider, and there are fewer of them."""
FEW: Final = 5_000
"""The most rows that an index lookup may find. If there are more, the page searches as without an index."""


@dataclass(frozen=True, slots=True)
class Search:
    """A list of a table's rows. `select` reads the table under the name `alias`."""

    select: str
    table: str
    alias: str
    found_by: str = ""
    """A condition without an alias that an index serves, in the order of the ids."""
    filters: str = ""
    """Conditions with aliases that no index serves."""
    values: dict[str, Any] = field(default_factory=dict)
    newest_first: bool = True

    def among(self, bounds: str) -> str:
        """SQL for the partner's rows, ordered by id only, so that reading stops when the page is full."""
        order = "DESC" if self.newest_first else "ASC"
        condition = f"AND {self.found_by} " if self.found_by else ""
        return f"FROM {self.table} WHERE partner_id = :partner {condition}{bounds}ORDER BY id {order}"


def equal(**columns: Any) -> dict[str, Any]:
    """The columns that have a value, with their values."""
    return {name: value for name, value in columns.items() if value is not None}


async def page_of(
    tx: PartnerTx,
    kind: type[Kind],
    page: PageRequest,
    search: Search,
    *,
    searched: int | None = None,
) -> Page[Kind]:
    """A page of the list, with each row as a `kind`.

    `searched`: the most rows that it searches; SEARCHED_WIDE if None.
    """
    most = SEARCHED_WIDE if searched is None else searched
    values = {**search.values, "partner": tx.partner_id, "searched": most}
    bounds = ""
    if page.after is not None:
        bounds += f"AND id {'<' if search.newest_first else '>'} :after "
        values["after"] = page.after
    last = None
    if search.filters:
        last = await _end(tx, search, bounds, values)
    if last is not None:
        bounds += f"AND id {'>=' if search.newest_first else '<='} :last "
        values["last"] = last
    of_table = f"FROM {search.table} {search.alias}"
    assert of_table in search.select
    inner = columns(tables.metadata.tables[search.table])
    rows = f"FROM (SELECT {inner} {search.among(bounds)} LIMIT :searched) {search.alias}"
    order = "DESC" if search.newest_first else "ASC"
    select = search.select.replace(of_table, rows)
    found = await fetch_all_as(
        tx,
        kind,
        f"{select} WHERE {search.alias}.partner_id = :partner {search.filters} "
        f"ORDER BY {search.alias}.id {order} LIMIT :limit",
        **values,
        limit=page.size + 1,
    )
    return cut(found, page, attrgetter("id"), searched_to=last)


async def _end(tx: PartnerTx, search: Search, bounds: str, values: dict[str, Any]) -> UUID | None:
    """The last row that this page searches; None if fewer rows are left."""
    row = await fetch_one(
        tx,
        f"SELECT id {search.among(bounds)} OFFSET :searched - 1 LIMIT 1",
        **{**values, "partner": tx.partner_id},
    )
    return None if row is None else row["id"]

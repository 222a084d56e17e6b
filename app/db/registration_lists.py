"""Lists of registrations as callers see them: of one order, and of all orders."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app.db import searching
from app.db.paging import Page, PageRequest, cut
from app.db.registrations import BATCHES_WITH, state_of
from app.db.searching import Search, page_of
from app.db.sql import fetch_all, fetch_all_as, fetch_one, fetch_one_as
from app.domain.registration import Registration, RegistrationState
from app.kernel.transactions import PartnerTx

_STATE = state_of("r.state")
LAST_ROW: Final = 2**31 - 1
"""The largest row number that an order could have."""
_VIEW = (
    f"SELECT r.id, r.order_id, r.customer_id, r.batch_id, r.row_number, {_STATE} AS state, r.line_ref, "
    "r.group_tag, r.identity, r.serial_number, r.manufacturer, r.model, r.product_key, r.findings, "
    "r.error_code, r.error_detail, r.upstream_code, r.upstream_name, r.upstream_device_id, r.attempt, "
    "r.created_at, r.settled_at, "
    "greatest(r.updated_at, CASE WHEN r.settled_at IS NULL THEN b.updated_at END) AS updated_at "
    # Joined per row: a page needs few of a partner's many batches.
    "FROM registrations r LEFT JOIN LATERAL ("
    "SELECT state, uncertain, updated_at FROM batches WHERE id = r.batch_id LIMIT 1) b ON true "
)


async def get(tx: PartnerTx, registration_id: UUID) -> Registration | None:
    return await fetch_one_as(
        tx,
        Registration,
        _VIEW + "WHERE r.partner_id = :partner AND r.id = :id",
        partner=tx.partner_id,
        id=registration_id,
    )


async def by_ids(tx: PartnerTx, ids: Sequence[UUID]) -> list[Registration]:
    """The registrations with these ids that exist, newest first."""
    return await fetch_all_as(
        tx,
        Registration,
        _VIEW + "WHERE r.partner_id = :partner AND r.id = ANY(:ids) ORDER BY r.id DESC",
        partner=tx.partner_id,
        ids=list(ids),
    )


@dataclass(frozen=True, slots=True)
class Filter:
    state: str | None = None
    error_code: str | None = None
    serial_prefix: str | None = None
    serial_contains: str | None = None
    product_key: str | None = None
    line_ref: str | None = None
    since: datetime | None = None
    customer_id: UUID | None = None
    batch_id: UUID | None = None

    @property
    def searches(self) -> bool:
        """Whether no index serves the filter, so that many rows may be read."""
        found = self.batch_id is not None or self.product_key is not None or self.serial_prefix is not None
        return not found and self != Filter()


def _clauses(filter: Filter, *, but: str = "") -> tuple[str, dict[str, Any]]:
    """SQL for the given filters only, so that PostgreSQL can choose an index; without the filter `but`."""
    clauses: list[str] = []
    values: dict[str, Any] = {}
    for column in ("error_code", "product_key", "line_ref", "customer_id", "batch_id"):
        value = getattr(filter, column)
        if value is not None and column != but:
            clauses.append(f"r.{column} = :{column}")
            values[column] = value
    if filter.state is not None:
        clauses.append(f"({_STATE}) = :state")
        values["state"] = filter.state
    if filter.serial_prefix is not None and but != "serial_prefix":
        condition, ranges = _with_prefix(filter.serial_prefix)
        clauses.append(condition)
        values |= ranges
    if filter.serial_contains is not None:
        clauses.append("strpos(upper(r.serial_number), upper(:fragment)) > 0")
        values["fragment"] = filter.serial_contains
    if filter.since is not None:
        clauses.append("(r.updated_at >= :since OR r.settled_at IS NULL AND b.updated_at >= :since)")
        values["since"] = filter.since
    return "".join(f"AND {clause} " for clause in clauses), values


def _with_prefix(prefix: str) -> tuple[str, dict[str, str]]:
    ranges: list[str] = []
    values: dict[str, str] = {}
    for n, start in enumerate(_spellings(prefix)):
        ranges.append(f"r.serial_number ~>=~ :serial_{n} AND r.serial_number ~<~ :serial_{n}_end")
        values |= {f"serial_{n}": start, f"serial_{n}_end": start + chr(0x10FFFF)}
    return f"({' OR '.join(ranges)})", values


def _spellings(prefix: str) -> list[str]:
    """The prefix as given, in capitals and in small letters: serial numbers do not mix them. (Row-level
    security keeps functions that ignore case from using an index.)"""
    return sorted({prefix, prefix.upper(), prefix.lower()})


async def list_of_order(
    tx: PartnerTx, order_id: UUID, page: PageRequest, filter: Filter
) -> Page[Registration]:
    """A page of the order's registrations, by row number."""
    clauses, values = _clauses(filter)
    last = None
    if clauses:
        last = await _last_row_searched(tx, order_id, page)
    if filter.state == RegistrationState.INVALID:
        clauses += "AND r.batch_id IS NULL "
    elif filter.state is not None and last is None:
        clauses += f"AND {BATCHES_WITH.format(state_of('c.state'), ':state')} "
    if page.after is not None:
        clauses += "AND r.row_number > :after "
        values["after"] = int(page.after)
    if last is not None:
        clauses += "AND r.row_number <= :last "
        values["last"] = last
    rows = await fetch_all_as(
        tx,
        Registration,
        f"{_VIEW} WHERE r.partner_id = :partner AND r.order_id = :order {clauses} "
        "ORDER BY r.row_number LIMIT :limit",
        partner=tx.partner_id,
        order=order_id,
        limit=page.size + 1,
        **values,
    )
    return cut(rows, page, lambda row: row.row_number, searched_to=last)


async def _last_row_searched(tx: PartnerTx, order_id: UUID, page: PageRequest) -> int | None:
    """The last row of the order that this page searches; None if fewer rows are left."""
    last = min(int(page.after or 0) + searching.SEARCHED, LAST_ROW)
    rest = await fetch_one(
        tx,
        "SELECT 1 AS one FROM registrations WHERE partner_id = :partner AND order_id = :order "
        "AND row_number > :last ORDER BY row_number LIMIT 1",  # so that the index is always used
        partner=tx.partner_id,
        order=order_id,
        last=last,
    )
    return None if rest is None else last


async def list_page(tx: PartnerTx, page: PageRequest, filter: Filter) -> Page[Registration]:
    """A page of registrations of all orders, newest first.

    Batches, and serial numbers or product keys that few rows have, are found by an index. For anything else,
    the page searches the partner's next SEARCHED rows only.
    """
    found_by, served = "", ""
    values: dict[str, Any] = {}
    if filter.batch_id is not None:
        found_by, values, served = "batch_id = :batch_id", {"batch_id": filter.batch_id}, "batch_id"
    else:
        for name in ("product_key", "serial_prefix"):
            ids = await _few(tx, filter, name)
            if ids is not None:
                found_by, values, served = "id = ANY(:found)", {"found": ids}, name
                break
    filters, wanted = _clauses(filter, but=served)
    search = Search(_VIEW, "registrations", "r", found_by, filters, {**values, **wanted})
    return await page_of(tx, Registration, page, search, searched=searching.SEARCHED)


async def _few(tx: PartnerTx, filter: Filter, name: str) -> list[UUID] | None:
    """The ids that an index finds; None if the filter is not given, or if there are more than FEW."""
    value = getattr(filter, name)
    if value is None:
        return None
    condition, values = (
        _with_prefix(value) if name == "serial_prefix" else ("r.product_key = :key", {"key": value})
    )
    rows = await fetch_all(
        tx,
        f"SELECT r.id FROM registrations r WHERE r.partner_id = :partner AND {condition} LIMIT :most",
        partner=tx.partner_id,
        most=searching.FEW + 1,
        **values,
    )
    return None if len(rows) > searching.FEW else [row["id"] for row in rows]

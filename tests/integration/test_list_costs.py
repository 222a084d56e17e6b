"""The cost of lists: no filter or pair of filters makes PostgreSQL read all rows of a large partner.

The rows read by the plan's scans are counted, not seconds. Each filter gets a value that every row has and
one that no row has, which are the two worst cases.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import combinations, product
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import batches, customers, devices, events, orders, registration_lists, searching
from app.db.paging import Page, PageRequest, request
from app.db.registration_lists import Filter
from app.domain.actor import ActingFor
from app.domain.devices import DeviceState
from app.domain.ids import PartnerId
from app.kernel.transactions import PartnerTx
from tests.support.statements import sent_by
from tests.support.world import World

ROWS = 4_000
WINDOW = 100
"""Rows that a page may search here."""
BOUND = 2 * WINDOW
"""Rows that any one scan may read: the window, joined rows, and the row after it."""

THEN = datetime(2020, 1, 1, tzinfo=UTC)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
PARTNER, CONNECTION, CUSTOMER, ORDER, ENDPOINT = (UUID(int=number) for number in range(1, 6))
NOBODY = UUID(int=99)

ID = "CAST('00000000-0000-7000-8000-' || lpad(to_hex(k), 12, '0') AS uuid)"
SERIES = f"generate_series(1, {ROWS}) k"
FILL = [
    "INSERT INTO partners VALUES (:partner, 'Large', 'direct_bill', :then)",
    "INSERT INTO connections (id, partner_id, name, platform, entra_tenant_id, client_id, default_group_tag, "
    "client_secret, customers_due_at, created_at, updated_at) VALUES "
    "(:connection, :partner, 'Large', 'partner_center', :connection, 'x', 'Tag', '', :then, :then, :then)",
    "INSERT INTO customers (id, partner_id, connection_id, entra_tenant_id, name, domain, last_turn_at, "
    "created_at, updated_at) VALUES (:customer, :partner, :connection, :customer, 'c', 'd.example', :then, "
    ":then, :then)",
    "INSERT INTO customers (id, partner_id, connection_id, entra_tenant_id, name, domain, last_turn_at, "
    f"created_at, updated_at) SELECT {ID}, :partner, :connection, {ID}, 'c', 'd.example', :then, :then, "
    f":then FROM {SERIES}",
    "INSERT INTO consents (customer_id, partner_id, state, since, evidence) "
    "SELECT id, partner_id, 'granted', :then, 'listed' FROM customers WHERE partner_id = :partner",
    "INSERT INTO orders (id, partner_id, customer_id, connection_id, platform, reference, purchase_order, "
    "group_tag, device_count, body_digest, announced_state, created_at, updated_at) VALUES "
    "(:order, :partner, :customer, :connection, 'partner_center', 'first', 'PO', 'Tag', 1, '', 'completed', "
    ":then, :then)",
    "INSERT INTO orders (id, partner_id, customer_id, connection_id, platform, reference, purchase_order, "
    "group_tag, device_count, body_digest, announced_state, created_at, updated_at) "
    f"SELECT {ID}, :partner, :customer, :connection, 'partner_center', 'R-' || k, 'PO', 'Tag', 1, '', "
    f"'completed', :then, :then FROM {SERIES}",
    "INSERT INTO batches (id, partner_id, order_id, customer_id, connection_id, group_tag, device_count, "
    "state, due_at, correlation_id, created_at, updated_at) "
    f"SELECT {ID}, :partner, :order, :customer, :connection, 'Tag', 1, 'settled', :then, :order, :then, "
    f":then FROM {SERIES}",
    "INSERT INTO registrations (id, partner_id, order_id, customer_id, batch_id, row_number, batch_position, "
    "state, line_ref, group_tag, identity, serial_number, product_key, error_code, created_at, updated_at, "
    f"settled_at) SELECT {ID}, :partner, :order, :customer, {ID}, k, 0, 'failed', 'line', 'Tag', 'tuple', "
    f"'SAME' || k, 'KEY', 'upstream_other', :then, :then, :then FROM {SERIES}",
    "INSERT INTO devices (partner_id, id, customer_id, identity, state, state_at, registration_id, "
    "first_outcome_at, last_outcome_at, last_registration_id, serial_number, product_key) "
    f"SELECT :partner, {ID}, :customer, device_identity({ID}, 'SAME' || k, NULL, NULL, 'KEY'), "
    f"'not_registered', :then, {ID}, :then, :then, {ID}, "
    f"'SAME' || k, 'KEY' FROM {SERIES}",
    "INSERT INTO events (id, partner_id, type, occurred_at, data) "
    "VALUES (:order, :partner, 'endpoint.test', :then, "
    "jsonb_build_object('endpoint_id', CAST(:endpoint AS uuid), 'message', 'Test'))",
    "INSERT INTO webhook_endpoints (id, partner_id, url, event_types, secret, state, created_at, updated_at) "
    "VALUES (:endpoint, :partner, 'https://hooks.example', '{}', '', 'enabled', :then, :then)",
    "INSERT INTO deliveries (id, partner_id, event_id, endpoint_id, state, due_at, created_at) "
    f"SELECT {ID}, :partner, :order, :endpoint, 'succeeded', :then, :then FROM {SERIES}",
]

Asked = Mapping[str, Any]
List = Callable[[PartnerTx, PageRequest, Asked], Awaitable[Page[Any]]]
MINE = ActingFor(PartnerId(PARTNER))


async def _registrations(tx: PartnerTx, page: PageRequest, asked: Asked) -> Page[Any]:
    return await registration_lists.list_page(tx, page, Filter(**asked))


async def _of_order(tx: PartnerTx, page: PageRequest, asked: Asked) -> Page[Any]:
    return await registration_lists.list_of_order(tx, ORDER, page, Filter(**asked))


async def _devices(tx: PartnerTx, page: PageRequest, asked: Asked) -> Page[Any]:
    return await devices.list_page(tx, page, devices.Filter(**asked), by_trigrams=True)


async def _orders(tx: PartnerTx, page: PageRequest, asked: Asked) -> Page[Any]:
    return await orders.list_page(tx, page, **asked)


async def _batches(tx: PartnerTx, page: PageRequest, asked: Asked) -> Page[Any]:
    return await batches.list_page(tx, page, **asked)


async def _customers(tx: PartnerTx, page: PageRequest, asked: Asked) -> Page[Any]:
    return await customers.list_page(tx, page, **asked)


async def _deliveries(tx: PartnerTx, page: PageRequest, asked: Asked) -> Page[Any]:
    return await events.list_deliveries(tx, page, **asked)


ROW_FILTERS: dict[str, tuple[Any, ...]] = {
    "state": ("failed", "conflict"),
    "error_code": ("upstream_other", "none"),
    "serial_prefix": ("SAME", "NONE"),
    "serial_contains": ("AME", "NONE"),
    "product_key": ("KEY", "NONE"),
    "line_ref": ("line", "none"),
    "since": (THEN, NEVER),
}
LISTS: dict[str, tuple[List, dict[str, tuple[Any, ...]]]] = {
    "registrations": (_registrations, {**ROW_FILTERS, "customer_id": (CUSTOMER, NOBODY)}),
    "registrations of an order": (_of_order, ROW_FILTERS),
    "devices": (
        _devices,
        {
            "customer_id": (CUSTOMER, NOBODY),
            "state": (DeviceState.NOT_REGISTERED, DeviceState.REGISTERED, DeviceState.CONFLICT),
            "serial_number": ("SAME7", "NONE"),
            "serial_prefix": ("SAME", "NONE"),
            "serial_contains": ("AME", "NONE"),
            "product_key": ("KEY", "NONE"),
        },
    ),
    "orders": (
        _orders,
        {
            "customer_id": (CUSTOMER, NOBODY),
            "reference": ("first", "none"),
            "purchase_order": ("PO", "none"),
            "state": ("completed", "failed"),
            "since": (THEN, NEVER),
        },
    ),
    "batches": (
        _batches,
        {"order_id": (ORDER, NOBODY), "customer_id": (CUSTOMER, NOBODY), "state": ("settled", "queued")},
    ),
    "customers": (
        _customers,
        {
            "entra_tenant_id": (CUSTOMER, NOBODY),
            "domain": ("D.example", "none"),
            "consent_state": ("granted", "revoked"),
        },
    ),
    "deliveries": (_deliveries, {"endpoint_id": (ENDPOINT, NOBODY), "state": ("succeeded", "exhausted")}),
}


@pytest_asyncio.fixture
async def large(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A world with a partner that has many rows in each table, beside a small one."""
    for name in ("SEARCHED", "SEARCHED_WIDE", "FEW"):
        monkeypatch.setattr(searching, name, WINDOW)
    await world.partner()
    values = {
        "partner": PARTNER,
        "connection": CONNECTION,
        "customer": CUSTOMER,
        "order": ORDER,
        "endpoint": ENDPOINT,
        "then": THEN,
    }
    async with world.owner() as owner:
        for statement in FILL:
            given = {name: value for name, value in values.items() if f":{name}" in statement}
            async with world.runtime.system_transaction() as tx:
                await tx.session.execute(text(statement), given)
            # At once: without statistics PostgreSQL 15 checks the next table's foreign keys row against row.
            async with owner.begin() as session:
                await session.execute(text("ANALYZE"))
    yield world


def asked_for(filters: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """No filter, each filter, and each pair of filters, with each of their values."""
    for count in range(3):
        for names in combinations(filters, count):
            for values in product(*(filters[name] for name in names)):
                yield dict(zip(names, values, strict=True))


def scans(plan: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(table, rows read) of each scan."""
    if "Relation Name" in plan:
        read = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        yield plan["Relation Name"], int(read * plan["Actual Loops"])
    for part in plan.get("Plans", ()):
        yield from scans(part)


async def costs(engine: AsyncEngine, tx: PartnerTx, name: str) -> list[tuple[object, ...]]:
    """The scans of this list that read more than allowed."""
    listed, filters = LISTS[name]
    half = UUID(f"00000000-0000-7000-8000-{ROWS // 2:012x}")
    middle = ROWS // 2 if name == "registrations of an order" else half
    costly: list[tuple[object, ...]] = []
    asked_at = [(asked, None) for asked in asked_for(filters)]
    deep = [(asked, str(middle)) for asked in asked_for(filters) if len(asked) < 2]
    driver = (await tx.session.get_raw_connection()).driver_connection
    assert driver is not None
    for asked, after in [*asked_at, *deep]:
        async with sent_by(engine, tx.session) as sent:
            await listed(tx, PageRequest(20, after), asked)
        for statement, given in sent.trips:
            found = await driver.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *given)
            [plan] = found
            costly += [(name, asked, after, *scan) for scan in scans(plan["Plan"]) if scan[1] > BOUND]
    return costly


async def test_no_filter_reads_all_rows_of_a_large_partner(large: World) -> None:
    async with large.runtime.transaction(MINE) as tx:
        costly = [scan for name in LISTS for scan in await costs(large.runtime.engine, tx, name)]
    assert costly == [], (len(costly), costly[:8])


async def test_pages_of_a_search_lead_to_every_row_that_fits(
    large: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some pages are empty, and no row appears twice."""
    window = 10 * WINDOW
    monkeypatch.setattr(searching, "SEARCHED", window)
    wanted = {1, ROWS // 3, ROWS}
    async with large.runtime.system_transaction() as tx:
        statement = "UPDATE registrations SET error_code = 'hash_unreadable' WHERE row_number = ANY(:rows)"
        await tx.session.execute(text(statement), {"rows": list(wanted)})
    found, pages, token = [], 0, None
    async with large.runtime.transaction(MINE) as tx:
        while True:
            page = await registration_lists.list_page(
                tx, PageRequest(20, token), Filter(error_code="hash_unreadable")
            )
            found += [row.row_number for row in page.items]
            pages += 1
            if page.next_token is None:
                break
            token = request(20, page.next_token).after
    assert found == sorted(wanted, reverse=True)
    assert pages == ROWS // window + 1, "behind the last full one is an empty one"

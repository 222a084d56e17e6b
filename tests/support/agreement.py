"""A check that Registrar's account of an order agrees with Microsoft's and with its own records.

It compares everything, so that no test of a fault checks only one side: rows with the simulator's ledger,
counts with a real GROUP BY, events with rows, and that nothing is left half done.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any
from uuid import UUID

from app.domain.order import FINAL
from tests.support.world import Partner, World

TOLD = frozenset({"registered", "already_registered", "conflict", "failed", "unknown"})
"""States of a row that an answer, or giving up on one, has settled."""
FINAL_EVENTS = frozenset({f"order.{state}" for state in FINAL})


async def assert_agreement(
    world: World, partner: Partner, *order_ids: UUID, endings: int = 1, settlings: int = 1
) -> None:
    """For orders that have ended `endings` times. Rows may have been settled at most `settlings` times."""
    devices = (await world.ledger())["devices"]
    for order_id in order_ids:
        rows = await world.select("SELECT * FROM registrations WHERE order_id = :id", id=order_id)
        assert rows
        tenants = await world.select("SELECT id, entra_tenant_id FROM customers")
        tenant_of = {row["id"]: str(row["entra_tenant_id"]) for row in tenants}
        for row in rows:
            _assert_row(row, tenant_of[row["customer_id"]], devices)
        await _assert_counts(world, order_id, rows)
        await _assert_events(world, partner, order_id, rows, endings, settlings)
        await _assert_nothing_half_done(world, order_id)


def _assert_row(row: Mapping[str, Any], tenant: str, devices: Iterable[Mapping[str, Any]]) -> None:
    same = [device for device in devices if device["customer"] and _is(row, device)]
    ours = [device for device in same if device["customer"] == tenant]
    about = f"{row['serial_number'] or row['product_key']} is {row['state']} ({row['error_code']})"
    assert len(same) <= 1, f"{about}, but held {len(same)} times"
    match row["state"]:
        case "registered":
            assert len(ours) == 1, f"{about}, but not held"
            assert ours[0]["group_tag"] == row["group_tag"], f"{about}, under {ours[0]['group_tag']}"
        case "already_registered":
            assert len(ours) == 1, f"{about}, but not held"
        case "conflict":
            assert same, f"{about}, but nobody holds it"
            assert not ours, f"{about}, but held for this customer"
        case "unknown":
            assert row["error_code"] == "outcome_unknown", about
        case _:
            assert not ours, f"{about}, but held"


def _is(row: Mapping[str, Any], device: Mapping[str, Any]) -> bool:
    if row["identity"] == "product_key":
        return bool(row["product_key"] == device["product_key"])
    if row["serial_number"] != device["serial"]:
        return False
    return row["manufacturer"] in (None, device["manufacturer"]) and row["model"] in (None, device["model"])


async def _assert_counts(world: World, order_id: UUID, rows: Iterable[Mapping[str, Any]]) -> None:
    kept = await world.select(
        "SELECT bucket, state, n FROM registration_counts WHERE order_id = :id AND n <> 0", id=order_id
    )
    real = Counter((row["batch_id"] or order_id, row["state"]) for row in rows)
    assert {(row["bucket"], row["state"]): row["n"] for row in kept} == dict(real)


async def _assert_events(
    world: World,
    partner: Partner,
    order_id: UUID,
    rows: Iterable[Mapping[str, Any]],
    endings: int,
    settlings: int,
) -> None:
    events = await world.select(
        "SELECT type, sequence, data FROM events WHERE order_id = :id ORDER BY sequence", id=order_id
    )
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    told: dict[str, list[str]] = defaultdict(list)
    for event in events:
        if event["type"] == "registration.settled":
            for item in event["data"]["registrations"]:
                told[item["id"]].append(item["state"])
    for row in rows:
        states = told.pop(str(row["id"]), [])
        if row["state"] in TOLD:
            assert 1 <= len(states) <= settlings, f"{row['serial_number']} was told {states}"
            assert states[-1] == row["state"]
        else:
            assert len(states) < settlings, f"{row['serial_number']} was told {states}, is {row['state']}"
    assert not told, "events tell of rows that are not there"
    final = [event for event in events if event["type"] in FINAL_EVENTS]
    assert len(final) == endings, [event["type"] for event in events]
    if endings:
        view = await world.view(partner, order_id)
        assert final[-1]["type"] == f"order.{view.state}"
        assert final[-1]["data"]["counts"] == {state.value: n for state, n in view.counts.items() if n}


async def _assert_nothing_half_done(world: World, order_id: UUID) -> None:
    for batch in await world.select("SELECT * FROM batches WHERE order_id = :id", id=order_id):
        if batch["state"] in ("settled", "cancelled"):
            assert batch["owner"] is None, "a batch that is over still has an owner"
            assert batch["settled_at"] is not None
    unfinished = await world.select(
        "SELECT a.kind FROM batch_attempts a JOIN batches b ON b.id = a.batch_id "
        "WHERE b.order_id = :id AND b.state = 'settled' AND a.finished_at IS NULL",
        id=order_id,
    )
    assert not unfinished


async def assert_same_orders(world: World, one: UUID, other: UUID) -> None:
    """For two orders of the same devices, come in two ways: the same except ids, times and `line_ref`."""
    ours, theirs = await _content(world, one), await _content(world, other)
    for name in ours:
        differ = [pair for pair in zip_longest(ours[name], theirs[name]) if pair[0] != pair[1]]
        assert not differ, f"{name} differ: {differ}"


async def _content(world: World, order_id: UUID) -> dict[str, list[Any]]:
    orders = await world.select(
        "SELECT platform, reference, purchase_order, group_tag, device_count, last_sequence, announced_state "
        "FROM orders WHERE id = :id",
        id=order_id,
    )
    batches = await world.select(
        "SELECT group_tag, device_count, state, uncertain FROM batches WHERE order_id = :id ORDER BY id",
        id=order_id,
    )
    rows = await world.select(
        "SELECT r.row_number, r.batch_position, r.state, r.settled_at IS NULL AS open, "
        "(SELECT count(*) FROM batches b WHERE b.order_id = r.order_id AND b.id < r.batch_id) AS batch, "
        "r.group_tag, r.identity, r.serial_number, r.manufacturer, r.model, r.product_key, r.findings, "
        "r.error_code, r.error_detail, r.attempt, h.data FROM registrations r "
        "LEFT JOIN device_hashes h ON h.registration_id = r.id WHERE r.order_id = :id ORDER BY r.row_number",
        id=order_id,
    )
    events = await world.select(
        "SELECT type, sequence, data FROM events WHERE order_id = :id ORDER BY sequence", id=order_id
    )
    return {
        "orders": orders,
        "batches": batches,
        # A file's findings name the column and the value as well, and errors come first.
        "rows": [{**row, "findings": sorted(_said(f) for f in row["findings"] or ())} for row in rows],
        "events": [(event["type"], event["sequence"], _told(event["data"])) for event in events],
    }


def _said(finding: Mapping[str, Any]) -> tuple[str, str, str]:
    return finding["code"], finding["field"], finding["detail"]


def _told(data: Mapping[str, Any]) -> dict[str, Any]:
    waiting = [(reason["code"], reason["devices"]) for reason in data["waiting_for"]]
    return {**data, "order_id": None, "customer_id": None, "waiting_for": waiting}

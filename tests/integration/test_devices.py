"""Devices: their state after every kind of outcome, finding them, and keeping partners apart."""

import asyncio
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.db import registrations, searching, serial_search
from app.db.registrations import Outcome
from app.db.tables.devices import TRIGRAMS
from app.domain import product_key
from app.domain.device import Device
from app.domain.devices import BELIEVED, DEFINITE, DeviceState, SerialNumberSearch
from app.domain.registration import CORRECTIONS, RegistrationState
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.integration.test_api_orders import all_pages, get, tuple_of
from tests.support.portals import portal_partner
from tests.support.world import Partner, World

ROUNDS = 6
_R = RegistrationState


async def devices_of(world: World, partner: Any, filters: str = "", size: int = 50) -> list[dict[str, Any]]:
    return await all_pages(world, partner, f"/v1/devices?{filters}", size)


async def states(world: World, partner: Any, filters: str = "") -> dict[str, str]:
    found = await devices_of(world, partner, filters)
    return {row["serial_number"] or row["product_key"]: row["state"] for row in found}


def held(serial: str, tenant_id: UUID) -> dict[str, str]:
    """A device that this customer already has, for the simulator."""
    return {
        "customer": str(tenant_id),
        "serial": serial,
        "manufacturer": TUPLE["manufacturer"],
        "model": TUPLE["model"],
    }


async def test_each_outcome_of_an_order_says_what_is_believed_of_its_device(world: World) -> None:
    partner = await world.partner()
    had, theirs = held("SYN0002", partner.tenant_id), held("SYN0003", partner.other_tenant_id)
    await world.control("POST", "devices", [had, theirs])
    await world.arm({"operation": "create", "kind": "device_error", "serials": ["SYN0004"], "code": "802"})
    order = (await world.post_order(partner, [*map(tuple_of, range(1, 5)), {"serial_number": "X"}])).json()
    assert await devices_of(world, partner) == [], "nothing is known before an outcome"

    await world.work()

    assert await states(world, partner) == {
        "SYN0001": "registered",
        "SYN0002": "registered",
        "SYN0003": "conflict",
        "SYN0004": "not_registered",
    }
    rows = {row["serial_number"]: row for row in await world.rows(partner, order["id"])}
    for device in await devices_of(world, partner):
        row = rows[device["serial_number"]]
        assert device["customer_id"] == str(partner.customer_id)
        assert device["last_registration"] == {
            "id": row["id"],
            "order_id": order["id"],
            "group_tag": "Standard",
            "state": row["state"],
            "error_code": row["error_code"],
            "remedy": row["remedy"],
        }
        times = {device["state_at"], device["first_outcome_at"], device["last_outcome_at"]}
        assert times == {row["settled_at"]}
        detail = await get(world, partner, f"/v1/devices/{device['id']}")
        assert detail == {**device, "registrations": [row]}


async def test_a_cancelled_device_is_none(world: World) -> None:
    partner = await world.partner()
    order = (await world.post_order(partner, [TUPLE])).json()
    await world.client.post(f"/v1/orders/{order['id']}:cancel", headers=partner.headers)
    await world.work()
    assert await devices_of(world, partner) == []


async def test_one_device_has_the_registrations_of_all_of_its_orders(world: World) -> None:
    partner = await world.partner()
    for reference in ("first", "second"):
        await world.post_order(partner, [tuple_of(1), tuple_of(2)], reference=reference)
        await world.work()
    other = [{**tuple_of(1), "model": "Another"}]
    await world.post_order(partner, other)
    await world.work()
    found = await devices_of(world, partner, "serial_number=SYN0001")
    assert sorted(device["model"] for device in found) == ["Another", TUPLE["model"]]
    [device] = [device for device in found if device["model"] == TUPLE["model"]]
    assert device["first_outcome_at"] < device["last_outcome_at"]
    rows = (await get(world, partner, f"/v1/devices/{device['id']}"))["registrations"]
    assert [row["state"] for row in rows] == ["already_registered", "registered"]
    assert device["last_registration"]["id"] == rows[0]["id"]


async def test_a_failure_changes_nothing_of_a_device_whose_place_is_known(world: World) -> None:
    partner = await world.partner()
    await world.control("POST", "devices", [held("SYN0002", partner.other_tenant_id)])
    await world.post_order(partner, [tuple_of(1), tuple_of(2), tuple_of(3)])
    await world.arm({"operation": "create", "kind": "device_error", "serials": ["SYN0003"], "code": "802"})
    await world.work()
    before = await states(world, partner)
    assert before == {"SYN0001": "registered", "SYN0002": "conflict", "SYN0003": "not_registered"}
    await world.arm(
        {"operation": "append", "kind": "device_error", "serials": ["SYN0001", "SYN0002"], "code": "802"}
    )
    await world.post_order(partner, [tuple_of(1), tuple_of(2), tuple_of(3)])
    await world.work()
    assert await states(world, partner) == before | {"SYN0003": "registered"}
    for serial in ("SYN0001", "SYN0002"):
        [device] = await devices_of(world, partner, f"serial_number={serial}")
        assert device["last_registration"]["state"] == "failed"
        assert device["last_registration"]["remedy"]
        assert device["state_at"] < device["last_outcome_at"]


async def test_a_device_that_is_tried_again_keeps_its_state_until_the_new_outcome(world: World) -> None:
    partner = await world.partner()
    await world.control("POST", "devices", [held("SYN0001", partner.other_tenant_id)])
    order = (await world.post_order(partner, [tuple_of(1)])).json()
    await world.work()
    retry = f"/v1/orders/{order['id']}:retry-failed"
    assert (await world.client.post(retry, headers=partner.headers)).status_code == 200
    [device] = await devices_of(world, partner)
    assert (device["state"], device["last_registration"]["state"]) == ("conflict", "queued")
    await world.work()
    [again] = await devices_of(world, partner)
    assert again["id"] == device["id"]
    assert again["state_at"] > device["state_at"]


async def test_a_correction_takes_back_what_the_mistake_said_and_no_more(world: World) -> None:
    """A device that another order registered stays registered; a device that none registered does not."""
    partner = await portal_partner(world)
    for devices in ([tuple_of(1)], [tuple_of(1), tuple_of(2)]):
        order = await partner.order(devices)
        (file,) = await partner.files(order)
        await partner.ok("POST", f"/batches/{file['batch_id']}:mark-uploaded")
        assert (await partner.record(file["batch_id"], outcome="registered")).status_code == 200
    assert await states(world, partner) == {"SYN0001": "registered", "SYN0002": "registered"}
    assert (await partner.record(file["batch_id"], outcome="failed", correct=True)).status_code == 200
    assert await states(world, partner) == {"SYN0001": "registered", "SYN0002": "not_registered"}
    assert (await partner.record(file["batch_id"], outcome="conflict", correct=True)).status_code == 200
    assert await states(world, partner) == {"SYN0001": "conflict", "SYN0002": "conflict"}
    assert (await partner.record(file["batch_id"], outcome="failed", correct=True)).status_code == 200
    assert await states(world, partner) == {"SYN0001": "registered", "SYN0002": "not_registered"}


async def settled(world: World, partner: Partner, states: list[RegistrationState], serial: str) -> None:
    """Stores one order after another of the same device, each with this outcome, as a worker would."""
    for state in states:
        order = await world.order(partner, [_device(serial)])
        await settle(world, partner, order.view.record.id, state)
        world.clock.advance(seconds=1)


def _device(serial: str) -> Device:
    return Device(serial_number=serial, manufacturer="Contoso", model="Book")


async def settle(world: World, partner: Partner, order_id: UUID, state: RegistrationState) -> None:
    [batch] = await world.batches(order_id)
    rows = await world.select("SELECT id FROM registrations WHERE order_id = :id", id=order_id)
    await world.select("UPDATE batches SET state = 'submitted' WHERE id = :id RETURNING id", id=batch["id"])
    async with world.runtime.transaction(partner.caller) as tx:
        outcomes = [Outcome(row["id"], state) for row in rows]
        written = await registrations.settle(tx, batch["id"], outcomes, world.clock.now())
    assert len(written) == len(rows)
    await world.select("UPDATE batches SET state = 'settled' WHERE id = :id RETURNING id", id=batch["id"])


def believed(outcomes: list[RegistrationState]) -> DeviceState:
    """The device's state by the domain's rule: the last definite answer, or else unknown before failed."""
    said = [BELIEVED[outcome] for outcome in outcomes]
    definite = [state for state in said if state in DEFINITE]
    if definite:
        return definite[-1]
    return DeviceState.UNKNOWN if DeviceState.UNKNOWN in said else said[-1]


async def test_every_two_outcomes_leave_what_the_table_says(world: World) -> None:
    partner = await world.partner()
    expected = {}
    for n, outcomes in enumerate(product(BELIEVED, repeat=2)):
        await settled(world, partner, list(outcomes), f"PAIR{n:04d}")
        expected[f"PAIR{n:04d}"] = believed(list(outcomes)).value
    assert await states(world, partner) == expected
    assert len(expected) == 25


def test_every_state_that_a_correction_may_take_back_says_something_of_the_device() -> None:
    assert {state for move in CORRECTIONS for state in move} <= BELIEVED.keys()


async def test_two_orders_that_settle_the_same_devices_at_once_leave_one_row_each_with_the_newest_truth(
    world: World,
) -> None:
    """In opposite orders, so that locks taken row by row would deadlock."""
    partner = await world.partner()
    async with world.another() as other:
        for n in range(ROUNDS):
            devices = [_device(f"RACE{n}-{k:03d}") for k in range(60)]
            orders = [await world.order(partner, these) for these in (devices, devices[::-1])]
            ids = [order.view.record.id for order in orders]
            rows, batches = [], []
            for order_id in ids:
                [batch] = await world.batches(order_id)
                batches.append(batch["id"])
                in_order = "SELECT id FROM registrations WHERE order_id = :id ORDER BY row_number"
                rows.append([row["id"] for row in await world.select(in_order, id=order_id)])
            await world.select(
                "UPDATE batches SET state = 'submitted' WHERE id = ANY(:ids) RETURNING id", ids=batches
            )
            now = world.clock.now()

            async def write(at: World, k: int, state: RegistrationState, later: float) -> None:
                async with at.runtime.transaction(partner.caller) as tx:
                    await registrations.settle(
                        tx,
                        batches[k],  # noqa: B023 - awaited before the next round
                        [Outcome(id, state) for id in rows[k]],  # noqa: B023
                        now + timedelta(seconds=later),  # noqa: B023
                    )

            async with asyncio.timeout(45):
                await asyncio.gather(
                    write(world, 0, _R.CONFLICT, 0 if n % 2 else 1),
                    write(other, 1, _R.REGISTERED, 1 if n % 2 else 0),
                )
            await world.select(
                "UPDATE batches SET state = 'settled' WHERE id = ANY(:ids) RETURNING id", ids=batches
            )
            found = await devices_of(world, partner, f"serial_prefix=RACE{n}-", 60)
            assert len(found) == 60
            assert {device["state"] for device in found} == {"registered" if n % 2 else "conflict"}
            newest = {str(id) for id in rows[1 if n % 2 else 0]}
            assert {device["last_registration"]["id"] for device in found} == newest


# --- what identifies a device -----------------------------------------------------------------------

NAMED_ALIKE = [
    ({"serial_number": "S"}, {"serial_number": "S"}),
    ({"product_key": "9999000000017"}, {"product_key": "9999000000017", "serial_number": "S"}),
    ({"product_key": "9999000000017", "model": "A"}, {"product_key": "9999000000017", "model": "B"}),
]
NAMED_OTHERWISE = [
    ({"serial_number": "S"}, {"serial_number": "s"}),
    ({"serial_number": "S"}, {"serial_number": "S", "model": "A"}),
    ({"serial_number": "S", "model": "A"}, {"serial_number": "S", "manufacturer": "A"}),
    ({"product_key": "9999000000017"}, {"product_key": "9999000000024"}),
    ({"product_key": "AB-1", "serial_number": "S"}, {"product_key": "AB-1", "serial_number": "T"}),
    ({"product_key": "1111111111111", "serial_number": "S"}, {"product_key": "1111111111111"}),
    ({}, {}),
]


async def identity(world: World, **names: str) -> UUID:
    [row] = await world.select(
        "SELECT device_identity(:id, :serial, :maker, :model, :key) AS identity",
        id=uuid4(),
        serial=names.get("serial_number"),
        maker=names.get("manufacturer"),
        model=names.get("model"),
        key=names.get("product_key"),
    )
    return UUID(str(row["identity"]))


async def test_what_names_a_device_tells_which_one_it_is(world: World) -> None:
    for one, other in NAMED_ALIKE:
        assert await identity(world, **one) == await identity(world, **other), (one, other)
    for one, other in NAMED_OTHERWISE:
        assert await identity(world, **one) != await identity(world, **other), (one, other)


@pytest.mark.parametrize(
    "key",
    ["9999000000017", "1111111111111", "1234567890123", "9876543210987", "3210987654321", "AB-1", "12345"],
)
async def test_a_pkid_alone_names_a_device_where_the_domain_says_it_is_a_usual_one(
    world: World, key: str
) -> None:
    alone = await identity(world, product_key=key) == await identity(
        world, product_key=key, serial_number="S"
    )
    assert alone == product_key.is_usual(key)


# --- finding them -----------------------------------------------------------------------------------


async def some_devices(world: World) -> Partner:
    partner = await world.partner()
    names = ["XA-4711-B", "PF4711", "47%11", "a4_711", "OTHER"]
    keyed = {"product_key": "9999000000017"}
    await world.control("POST", "devices", [held("OTHER", partner.other_tenant_id)])
    await world.post_order(partner, [*({**TUPLE, "serial_number": name} for name in names), keyed])
    rival = await world.partner()
    await world.post_order(rival, [{**TUPLE, "serial_number": "RIVAL-4711"}, keyed])
    await world.work()
    return partner


async def serials(world: World, partner: Partner, filters: str) -> list[str]:
    return sorted(await states(world, partner, filters))


@pytest.mark.parametrize("few", [5_000, 0], ids=["by an index", "looking through"])
async def test_devices_are_found_by_each_filter_and_by_two_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(searching, "FEW", few)
    partner = await some_devices(world)
    for filters, found in {
        "serial_number=PF4711": ["PF4711"],
        "serial_number=PF47": [],
        "serial_prefix=PF47": ["PF4711"],
        "serial_prefix=47%25": ["47%11"],
        "product_key=9999000000017": ["9999000000017"],
        "product_key=9999": [],
        "state=conflict": ["OTHER"],
        "state=unknown": [],
        f"state=registered&customer_id={partner.customer_id}&serial_prefix=X": ["XA-4711-B"],
        f"customer_id={partner.other_customer_id}": [],
        "state=conflict&serial_prefix=PF": [],
    }.items():
        assert await serials(world, partner, filters) == found, filters
    assert len(await serials(world, partner, f"customer_id={partner.customer_id}")) == 6


async def without_trigrams(world: World) -> None:
    await run_as_owner(world, f"DROP INDEX IF EXISTS {TRIGRAMS}")


async def run_as_owner(world: World, statement: str) -> None:
    async with world.owner() as owner, owner.begin() as session:
        await session.execute(text(statement))


@pytest.mark.parametrize("few", [5_000, 0], ids=["by the index", "looking through"])
async def test_where_the_database_has_trigrams_any_part_of_a_serial_number_finds_its_devices(
    world: World, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(searching, "FEW", few)
    partner = await some_devices(world)
    url = str(world.runtime.settings.database_url)
    assert await serial_search.enable(url) is SerialNumberSearch.FRAGMENT
    limits = await get(world, partner, "/v1/limits")
    assert limits["registrar"]["serial_number_search"] == "fragment"
    for fragment, found in {
        "4711": ["PF4711", "XA-4711-B"],
        "a-4": ["XA-4711-B"],
        "pf47": ["PF4711"],
        "7%2511": ["47%11"],
        "4_7": ["a4_711"],
        "nothing": [],
    }.items():
        assert await serials(world, partner, f"serial_contains={fragment}") == found, fragment
    assert await serials(world, partner, "serial_contains=4711&state=conflict") == []
    answer = await world.client.get("/v1/devices?serial_contains=ab", headers=partner.headers)
    problem_of(answer, 422, "invalid_parameter")


async def test_where_it_has_none_a_fragment_is_refused_with_the_way_that_works(world: World) -> None:
    partner = await some_devices(world)
    await without_trigrams(world)
    try:
        limits = await get(world, partner, "/v1/limits")
        assert limits["registrar"]["serial_number_search"] == "prefix"
        answer = await world.client.get("/v1/devices?serial_contains=4711", headers=partner.headers)
        wrong = problem_of(answer, 422, "invalid_parameter")
        assert "serial_prefix" in wrong["errors"][0]["detail"]
        assert await serials(world, partner, "serial_prefix=PF47") == ["PF4711"]
    finally:
        await serial_search.enable(str(world.runtime.settings.database_url))


async def test_an_index_that_was_broken_off_is_made_again(world: World) -> None:
    url = str(world.runtime.settings.database_url)
    await serial_search.enable(url)
    oid = f"CAST('{TRIGRAMS}' AS regclass)"
    [before] = await world.select(f"SELECT indexrelid FROM pg_index WHERE indexrelid = {oid}")
    await without_trigrams(world)
    found = await asyncio.gather(*(serial_search.enable(url) for _ in range(3)))
    assert SerialNumberSearch.FRAGMENT in found
    [after] = await world.select(f"SELECT indexrelid FROM pg_index WHERE indexrelid = {oid} AND indisvalid")
    assert after != before


async def test_pages_show_every_device_once_newest_first(world: World) -> None:
    partner = await world.partner()
    for start in (1, 8):
        await world.post_order(partner, [tuple_of(n) for n in range(start, start + 7)])
        await world.work()
    found = [device["serial_number"] for device in await devices_of(world, partner, "state=registered&", 7)]
    assert sorted(found) == [f"SYN{n:04d}" for n in range(1, 15)]
    assert set(found[:7]) == {f"SYN{n:04d}" for n in range(8, 15)}


async def test_nobody_sees_another_partners_device(world: World) -> None:
    partner, rival = await world.partner(), await world.partner()
    await world.post_order(partner, [TUPLE])
    await world.work()
    [device] = await devices_of(world, partner)
    assert await devices_of(world, rival) == []
    answer = await world.client.get(f"/v1/devices/{device['id']}", headers=rival.headers)
    problem_of(answer, 404, "not_found")
    async with world.runtime.transaction(rival.caller) as tx:
        found = await tx.session.execute(text("SELECT id FROM find_devices('%', 10) AS found(id)"))
        assert found.scalars().all() == []
        own = await tx.session.execute(text("SELECT keep_devices(ARRAY(SELECT id FROM registrations))"))
        assert own.rowcount == 1
    async with world.runtime.engine.begin() as session:
        nobody = await session.execute(text("SELECT id FROM find_devices('%', 10) AS found(id)"))
        assert nobody.scalars().all() == []


async def test_devices_go_with_their_customer_even_if_nobody_took_them_away_before(world: World) -> None:
    partner = await world.partner()
    await world.post_order(partner, [TUPLE])
    await world.work()
    async with world.runtime.transaction(partner.caller) as tx:
        for table in ("registrations", "events", "orders", "consents", "customers"):
            assert await count(tx.session, "devices") == 1
            await tx.session.execute(text(f"DELETE FROM {table}"))
        assert await count(tx.session, "devices") == 0


async def count(session: Any, table: str) -> int:
    return int((await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())

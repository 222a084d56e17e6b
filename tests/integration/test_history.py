"""Findings about devices that are ordered again, from our own records."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.db import bulk
from app.db import history as queries
from app.db.bulk import NewRegistrations
from app.db.ids import new_row_ids
from app.domain.identity import CheckedDevice, Device, IdentityKind, Rules, check
from app.domain.order import Order
from app.domain.same_device import DeviceNames, is_same
from app.kernel.transactions import PartnerTx
from app.local.synthetic import devices as synthetic
from app.services.devices import earlier_registrations
from app.services.orders.orders import cancel
from tests.support.drawing import examples
from tests.support.import_scene import HEADER, preview, sheet, tuple_rows
from tests.support.world import Partner, World, tuples
from tests.unit.test_same_device import NAMES

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RULES = Rules(frozenset(IdentityKind))


def checked(devices: Sequence[Device]) -> list[CheckedDevice]:
    return [check(device, RULES, NOW) for device in devices]


async def said(
    world: World, partner: Partner, devices: Sequence[Device], customer_id: UUID | None = None
) -> list[list[str]]:
    async with world.runtime.transaction(partner) as tx:
        found = await earlier_registrations.compare(
            tx, customer_id or partner.customer_id, [device.names for device in checked(devices)]
        )
    return [[finding.code for finding in findings] for findings in found]


async def test_new_devices_are_not_spoken_of(world: World) -> None:
    partner = await world.partner()
    assert await said(world, partner, tuples(3)) == [[], [], []]


async def test_a_device_that_the_customer_has_is_told_of_and_harmless(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(2))
    await world.work()
    assert await said(world, partner, tuples(3)) == [
        ["already_registered_here"],
        ["already_registered_here"],
        [],
    ]


async def test_a_device_of_another_customer_is_told_of(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(1))
    await world.work()
    assert await said(world, partner, tuples(1), partner.other_customer_id) == [
        ["registered_for_other_customer"]
    ]


async def test_another_partners_devices_are_not_known(world: World) -> None:
    partner, stranger = await world.partner(), await world.partner()
    await world.order(partner, tuples(1))
    await world.work()
    assert await said(world, stranger, tuples(1)) == [[]]


async def test_a_device_in_an_open_order_is_told_of_until_that_is_cancelled(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(1))
    assert await said(world, partner, tuples(1)) == [["duplicate_open_elsewhere"]]
    assert await said(world, partner, tuples(1), partner.other_customer_id) == [["duplicate_open_elsewhere"]]
    await cancel(world.runtime, partner, order.view.record.id)
    assert await said(world, partner, tuples(1)) == [[]]


async def test_a_device_is_the_same_by_exact_values_only(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(1))
    await world.work()
    capitals = Device(serial_number="syn00001", manufacturer="Contoso", model="Contoso Book 14")
    maker = Device(serial_number="SYN00001", manufacturer="Fabrikam", model="Contoso Book 14")
    assert await said(world, partner, [capitals, maker]) == [[], []]


async def test_a_device_is_known_by_its_pkid_and_by_the_serial_inside_its_hash(world: World) -> None:
    partner = await world.partner()
    [hashed] = synthetic(1, seed=6, kind=IdentityKind.HARDWARE_HASH)
    by_hash = Device(hardware_hash=hashed.hardware_hash)
    by_key = Device(product_key="9999000000017")
    await world.order(partner, [by_hash, by_key])
    await world.work()
    assert await said(world, partner, [by_hash, by_key, Device(product_key="9999000000024")]) == [
        ["already_registered_here"],
        ["already_registered_here"],
        [],
    ]
    as_tuple = Device(
        serial_number=hashed.serial_number, manufacturer=hashed.manufacturer, model=hashed.model
    )
    assert await said(world, partner, [as_tuple]) == [["already_registered_here"]]


class _Undone(Exception):
    """Rolls back a transaction whose changes are not wanted."""


@dataclass(frozen=True)
class Earlier:
    """Open orders with batches, for rows of any kind."""

    partner: Partner
    orders: Sequence[tuple[Order, UUID]]

    async def store(self, tx: PartnerTx, devices: Sequence[DeviceNames]) -> None:
        """Stores each device in an order of its own, by which it is identified."""
        for (order, batch_id), names in zip(self.orders, devices, strict=False):
            serial, maker, model, key = ([value] for value in names)
            row = NewRegistrations(
                id=new_row_ids(1),
                batch_id=[batch_id],
                row_number=[2],
                batch_position=[1],
                line_ref=[None],
                group_tag=["Standard"],
                identity=["tuple"],
                serial_number=serial,
                manufacturer=maker,
                model=model,
                product_key=key,
                findings=[None],
                error_code=[None],
                error_detail=[None],
            )
            await bulk.add_registrations(tx, order, order.created_at, row)


@pytest_asyncio.fixture
async def earlier(world: World) -> Earlier:
    partner = await world.partner()
    made = [(await world.order(partner, tuples(1, f"OWN{n}"))).view.record for n in range(8)]
    return Earlier(partner, [(order, (await world.batches(order.id))[0]["id"]) for order in made])


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stored=st.lists(NAMES, max_size=8), asked=st.lists(NAMES, min_size=1, max_size=8))
async def test_the_database_tells_one_device_as_the_rule_does(
    world: World, earlier: Earlier, stored: list[DeviceNames], asked: list[DeviceNames]
) -> None:
    found: dict[int, set[str]] = {place: set() for place in range(len(asked))}
    with suppress(_Undone):
        async with world.runtime.transaction(earlier.partner) as tx:
            await earlier.store(tx, stored)
            for twin in await queries.twins(tx, list(enumerate(asked)), but=None):
                found[twin.n].add(twin.reference)
            raise _Undone
    told = [order.reference for order, _ in earlier.orders]
    assert found == {
        place: {told[n] for n, names in enumerate(stored) if is_same(names, device)}
        for place, device in enumerate(asked)
    }


async def test_a_model_unlike_all_earlier_devices_of_such_serial_numbers_is_told_of(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(5))
    await world.work()
    odd = Device(serial_number="SYN00099", manufacturer="Contoso", model="Contoso Book 15")
    usual = Device(serial_number="SYN00098", manufacturer="Contoso", model="Contoso Book 14")
    longer = Device(serial_number="SYN000990", manufacturer="Contoso", model="Contoso Book 15")
    assert await said(world, partner, [odd, usual, longer]) == [["model_unlike_earlier"], [], []]


async def test_nothing_is_said_of_models_while_there_are_few_or_they_differ(world: World) -> None:
    partner = await world.partner()
    odd = Device(serial_number="SYN00099", manufacturer="Contoso", model="Other")
    await world.order(partner, tuples(4))
    await world.work()
    assert await said(world, partner, [odd]) == [[]]
    mixed = [
        Device(serial_number=f"SYN1000{n}", manufacturer="Contoso", model=f"Book {n % 2}") for n in range(6)
    ]
    await world.order(partner, mixed)
    await world.work()
    assert await said(world, partner, [odd]) == [[]]


async def test_an_import_says_the_same(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(5))
    await world.work()
    rows = [*tuple_rows(1), ["SYN00099", "Contoso", "Contoso Book 15"], ["SYN00098", *tuple_rows(1)[0][1:]]]
    here = await preview(world, partner, sheet(HEADER, rows))
    assert here["counts"] == {"total": 3, "valid": 1, "warning": 2, "invalid": 0}
    assert {p["code"]: p["first_rows"] for p in here["preview"]["problems"]} == {
        "already_registered_here": [1],
        "model_unlike_earlier": [2],
    }
    there = await preview(world, partner, sheet(HEADER, rows), customer_id=str(partner.other_customer_id))
    assert {p["code"]: p["first_rows"] for p in there["preview"]["problems"]} == {
        "registered_for_other_customer": [1],
        "model_unlike_earlier": [2],
    }
    assert there["counts"] == {"total": 3, "valid": 1, "warning": 2, "invalid": 0}


async def test_each_look_uses_an_index(world: World) -> None:
    """With many registrations, the questions are answered without reading them all."""
    partner = await world.partner()
    await world.order(partner, tuples(5000))
    parameters = {
        "partner": partner.id,
        "but": None,
        "places": list(range(50)),
        "serials": [f"SYN{n:05d}" for n in range(50)],
        "makers": ["Contoso"] * 50,
        "models": ["Contoso Book 14"] * 50,
        "keys": ["9999000000017"] * 50,
        "usual": [True] * 50,
    }
    serials = {"partner": partner.id, "but": None, "values": parameters["serials"]}
    keys = {"partner": partner.id, "but": None, "values": parameters["keys"]}
    patterns = {"partner": partner.id, "patterns": ["SYN0/8"], "starts": ["SYN9"], "lengths": [8]}
    async with world.owner() as owner, owner.begin() as session:
        await session.execute(text("ANALYZE registrations"))
    async with world.runtime.transaction(partner) as tx:
        plans = [
            "\n".join((await tx.session.execute(text(f"EXPLAIN {statement}"), given)).scalars())
            for statement, given in (
                (queries._TWINS, parameters),
                (queries._MODELS, patterns),
                (queries._KNOWN_SERIALS, serials),
                (queries._KNOWN_KEYS, keys),
            )
        ]
    assert "ix_registrations_serial_number" in plans[0]
    assert "ix_registrations_partner_id_product_key" in plans[0]
    assert "ix_registrations_serial_number" in plans[1]
    assert "ix_registrations_serial_number" in plans[2]
    assert "ix_registrations_partner_id_product_key" in plans[3]
    assert "Seq Scan on registrations" not in "".join(plans)


async def test_an_order_by_json_says_the_same_and_not_about_itself(world: World) -> None:
    """More rows than are checked in one chunk, so that the first are stored before the last are checked."""
    partner = await world.partner()
    await world.order(partner, tuples(2))
    await world.work()
    fields = ("serial_number", "manufacturer", "model")
    again = [{name: getattr(device, name) for name in fields} for device in tuples(1500)]
    again.append({**again[0], "line_ref": "twin"})
    response = await world.post_order(partner, again, customer_id=str(partner.other_customer_id))
    problems = response.json()["preview"]["problems"]
    assert [(p["row"], p["valid"], [f["code"] for f in p["findings"]]) for p in problems] == [
        (1, True, ["registered_for_other_customer"]),
        (2, True, ["registered_for_other_customer"]),
        (1501, False, ["duplicate_in_order"]),
    ]

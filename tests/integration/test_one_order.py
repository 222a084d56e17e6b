"""One order's way: accepted, divided into batches, sent, settled device by device, and reported."""

from typing import Any
from uuid import UUID

import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db import group_tags
from app.domain.order import OrderState
from app.domain.registration import RegistrationState
from app.local.synthetic import devices
from tests.support.agreement import assert_same_orders
from tests.support.drawing import examples
from tests.support.import_scene import committed, sheet, upload, work_imports
from tests.support.world import Partner, World, tuples


async def test_every_device_of_an_order_is_registered_once_for_its_customer_under_its_tag(
    world: World,
) -> None:
    partner = await world.partner()
    order = await world.order(partner, [*tuples(3), *tuples(2, "TAG", group_tag="Kiosk")])

    await world.work()

    view = await world.view(partner, order.view.record.id)
    assert view.state is OrderState.COMPLETED
    assert view.counts[RegistrationState.REGISTERED] == 5
    held = await world.devices_at_microsoft(partner.tenant_id)
    assert sorted((d["serial"], d["group_tag"]) for d in held) == [
        ("SYN00001", "Standard"),
        ("SYN00002", "Standard"),
        ("SYN00003", "Standard"),
        ("TAG00001", "Kiosk"),
        ("TAG00002", "Kiosk"),
    ]


async def test_all_kinds_of_identity_are_registered(world: World) -> None:
    partner = await world.partner()
    response = await world.client.post(
        "/v1/orders",
        headers=partner.headers,
        json={
            "customer_id": str(partner.customer_id),
            "reference": "mixed",
            "devices": [device.fields() for device in devices(30)],
        },
    )
    assert response.status_code == 201, response.text

    await world.work()

    rows = await world.rows(partner, response.json()["id"])
    assert {row["state"] for row in rows} == {"registered"}
    assert {row["identity"] for row in rows} == {"tuple", "product_key", "hardware_hash"}
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 30


HEADER = ("Device Serial Number", "Windows Product ID", "Manufacturer name", "Device model", "Group Tag")
FIELDS = ("serial_number", "product_key", "manufacturer", "model", "group_tag")
TAGS = st.sampled_from(["", "", "Kiosk", "KIOSK", "Gro\u00dfkunden", "GROSSKUNDEN", "sales", "x" * 129])
# No PKID beside a tuple: such a row may reveal that two earlier rows are one device, and an import learns
# that when they already have their places.
NAMES = st.one_of(
    st.tuples(
        st.sampled_from(["SYN00001", "SYN00002", "SYN00003", "SYN00004", "SYN00005", "Default string"]),
        st.just(""),
        st.sampled_from(["Contoso", "Contoso", "Fabrikam", ""]),
        st.sampled_from(["Book", "Book", "Desk"]),
    ),
    st.tuples(
        st.just(""),
        st.sampled_from(["9999000000017", "9999000000024", "ABC1", "0000000000000"]),
        st.just(""),
        st.just(""),
    ),
)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(NAMES, TAGS), max_size=14),
    st.sampled_from([None, "Sales", "kiosk"]),
    st.booleans(),
)
async def test_the_same_rows_are_the_same_order_by_json_and_as_a_file(
    world: World, two: tuple[Partner, Partner], drawn: list[tuple[Any, str]], tag: str | None, held: bool
) -> None:
    """Earlier examples are part of the comparison: their orders are still open."""
    world.references += 1
    reference = f"O-{world.references}"
    own = (f"OWN{world.references:05d}", "", "Contoso", "Book")
    rows = [[*names, tag_given] for names, tag_given in [(own, ""), *drawn]]
    by_json, as_file = two
    given: dict[str, Any] = {} if tag is None else {"group_tag": tag}
    customers = [p.other_customer_id if held else p.customer_id for p in two]
    async with world.served(max_batch_devices=3) as served:
        devices = [{name: value for name, value in zip(FIELDS, row, strict=True) if value} for row in rows]
        answer = await served.post_order(
            by_json, devices, customer_id=str(customers[0]), reference=reference, purchase_order="PO", **given
        )
        assert answer.status_code == 201, answer.text
        given |= {"customer_id": str(customers[1]), "purchase_order": "PO"}
        import_id = await upload(served, as_file, sheet(HEADER, rows), reference=reference, **given)
        await work_imports(served)
        final = await committed(served, as_file, import_id)
    assert final["state"] == "committed", final
    [made] = final["orders"]
    await assert_same_orders(world, UUID(answer.json()["id"]), UUID(made["order_id"]))


@pytest_asyncio.fixture
async def two(world: World) -> tuple[Partner, Partner]:
    """Two partners whose customers have the tag `Sales` at Microsoft."""
    partners = await world.partner(), await world.partner()
    for partner in partners:
        for customer_id in (partner.customer_id, partner.other_customer_id):
            async with world.runtime.transaction(partner) as tx:
                now = world.runtime.now()
                await group_tags.lock(tx, customer_id, "Sales", now)
                await group_tags.set_known(tx, customer_id, "Sales", known=True, now=now)
    return partners

"""One order's way: accepted, cut, sent, followed to each device's own outcome, told."""

from app.domain.order import OrderState
from app.domain.registration import RegistrationState
from app.local.synthetic import devices
from tests.support.world import World, tuples


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

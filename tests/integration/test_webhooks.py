"""Webhooks of every event: signed so that the public library verifies them, and without private data."""

from collections.abc import AsyncIterator
from itertools import groupby
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
import standardwebhooks
from sqlalchemy import text

from app.domain.event import EventType
from app.domain.subscription import SUBSCRIBABLE, hears, stored_types
from app.domain.upstream import ConnectionTrouble, Said
from app.local.synthetic import devices
from app.services.connections import access, customer_readings
from tests.support.import_scene import committed, preview, tuple_sheet
from tests.support.published import require_published
from tests.support.receiver import Message, Receiver, open_receiver, subscribe
from tests.support.world import Partner, World, tuples


@pytest_asyncio.fixture
async def receiver(world: World) -> AsyncIterator[Receiver]:
    async with open_receiver(world) as found:
        yield found


async def read_consents(world: World, partner: Partner) -> None:
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)


async def fail(world: World, *serials: str) -> None:
    await world.arm(
        {"operation": "create", "kind": "device_error", "serials": list(serials), "code": "812"},
        {"operation": "append", "kind": "device_error", "serials": list(serials), "code": "812"},
    )


async def live_through_every_event(world: World, partner: Partner, endpoint_id: Any) -> None:
    held = await world.order(partner, tuples(2, "HLD"), customer_id=partner.other_customer_id)
    cancelled = await world.client.post(f"/v1/orders/{held.view.record.id}:cancel", headers=partner.headers)
    assert cancelled.status_code == 200, cancelled.text
    await world.order(partner, tuples(1, "WAIT"), customer_id=partner.other_customer_id)
    await world.set_consent(partner.other_tenant_id, given=True)
    await read_consents(world, partner)
    await world.set_consent(partner.other_tenant_id, given=False)
    await read_consents(world, partner)
    made_up = list(devices(3))
    response = await world.client.post(
        "/v1/orders",
        headers=partner.headers,
        json={
            "customer_id": str(partner.customer_id),
            "reference": "PO 4711/1",
            "purchase_order": "4711",
            "devices": [device.fields() for device in made_up],
        },
    )
    assert response.status_code == 201, response.text
    await world.work()
    trouble = ConnectionTrouble("access_denied", Said(403, "900421", "Agreement not signed"))
    now = world.clock.now()
    await access.note_trouble(world.runtime, partner, partner.connection_id, trouble, began=now)
    await read_consents(world, partner)
    await fail(world, "BAD00001")
    await world.order(partner, [*tuples(1, "BAD"), *tuples(1, "GOOD")])
    await world.work()
    await fail(world, "UGLY00001")
    await world.order(partner, tuples(1, "UGLY"))
    await world.work()
    await committed(world, partner, (await preview(world, partner, tuple_sheet(2, "FILE")))["id"])
    await preview(world, partner, b"%PDF-1.7 nothing")
    tested = await world.client.post(f"/v1/webhook-endpoints/{endpoint_id}:test", headers=partner.headers)
    assert tested.status_code == 202, tested.text
    await world.deliver()


async def test_every_event_arrives_verifiable_in_its_documented_shape_and_without_identities(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    endpoint = await subscribe(world, partner, receiver.url())

    await live_through_every_event(world, partner, endpoint.id)

    assert {message.type for message in receiver.messages} == {type.value for type in EventType}
    for message in receiver.messages:
        message.verify(endpoint.secret)
        require_published(message.json)
        assert message.headers["content-type"] == "application/json"
        assert len(message.body) < 20_000
    assert len({message.id for message in receiver.messages}) == len(receiver.messages)
    forbidden = ["HLD0", "WAIT0", "BAD0", "GOOD0", "UGLY0", "FILE0", "Contoso", endpoint.secret, partner.key]
    forbidden += [
        str(value)[:60]
        for device in devices(3)
        for name, value in device.fields().items()
        if name in ("serial_number", "product_key", "hardware_hash", "manufacturer") and value
    ]
    told = b"\n".join(message.body for message in receiver.messages).decode()
    assert [word for word in forbidden if word in told] == []


async def test_order_events_carry_the_callers_own_numbers_the_state_and_the_counts(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    await subscribe(world, partner, receiver.url())
    await fail(world, "BAD00001")
    order = await world.order(
        partner, [*tuples(1, "BAD"), *tuples(2, "GOOD")], reference="R/7", purchase_order="PO 9"
    )
    await world.work()
    await world.deliver()

    accepted, settled, completed = (
        next(m for m in receiver.messages if m.type == kind)
        for kind in ("order.accepted", "registration.settled", "order.completed_with_errors")
    )
    assert accepted.data["counts"] == {"queued": 3}
    assert completed.data == {
        "order_id": str(order.view.record.id),
        "reference": "R/7",
        "purchase_order": "PO 9",
        "customer_id": str(partner.customer_id),
        "state": "completed_with_errors",
        "counts": {"failed": 1, "registered": 2},
        "waiting_for": [],
        "sequence": completed.data["sequence"],
    }
    rows = settled.data["registrations"]
    assert [(row["row"], row["line_ref"], row["state"]) for row in rows] == [
        (1, "line 1", "failed"),
        (2, "line 1", "registered"),
        (3, "line 2", "registered"),
    ]
    assert [row["error_code"] for row in rows] == ["device_not_found", None, None]


async def test_an_orders_events_are_numbered_without_a_gap_in_the_order_they_happened(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    endpoint = await subscribe(world, partner, receiver.url())
    await live_through_every_event(world, partner, endpoint.id)

    def order_of(message: Message) -> str:
        return str(message.data["order_id"])

    of_orders = sorted((m for m in receiver.messages if "order_id" in m.data), key=order_of)
    assert of_orders
    for _, group in groupby(of_orders, order_of):
        told = sorted(group, key=lambda m: int(m.data["sequence"]))
        assert [m.data["sequence"] for m in told] == list(range(1, len(told) + 1))
        assert told[0].type == "order.accepted"
        times = [m.json["timestamp"] for m in told]
        assert times == sorted(times)


async def test_a_thousand_devices_settle_in_pages_of_a_hundred_and_each_device_is_told_once(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    await subscribe(world, partner, receiver.url(), ["registration.settled"])
    await world.order(partner, tuples(1000))
    await world.work()
    await world.deliver()

    assert {m.type for m in receiver.messages} == {"registration.settled"}
    assert max(len(m.data["registrations"]) for m in receiver.messages) == 100
    assert max(len(m.body) for m in receiver.messages) < 20_000
    rows = [row["row"] for m in receiver.messages for row in m.data["registrations"]]
    assert sorted(rows) == list(range(1, 1001))


async def test_long_line_references_make_smaller_pages_not_larger_bodies(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    await subscribe(world, partner, receiver.url(), ["registration.settled"])
    longest = "\N{SNOWMAN}" * 250
    response = await world.client.post(
        "/v1/orders",
        headers=partner.headers,
        json={
            "customer_id": str(partner.customer_id),
            "reference": "long",
            "devices": [
                {
                    "serial_number": f"LNG{n:05}",
                    "manufacturer": "Contoso",
                    "model": "Book",
                    "line_ref": f"{n} {longest}",
                }
                for n in range(60)
            ],
        },
    )
    assert response.status_code == 201, response.text
    await world.work()
    await world.deliver()

    assert max(len(m.body) for m in receiver.messages) < 20_000
    told = sorted(row["row"] for m in receiver.messages for row in m.data["registrations"])
    assert told == list(range(1, 61))


async def test_an_endpoint_gets_the_events_it_asked_for_and_no_others(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    await subscribe(world, partner, receiver.url("/ends"), ["order.completed", "order.failed"])
    everything = await subscribe(world, partner, receiver.url("/all"))
    await world.order(partner, tuples(1))
    await world.work()
    await world.deliver()

    assert [m.type for m in receiver.of_path("/ends")] == ["order.completed"]
    assert {m.type for m in receiver.of_path("/all")} == {
        "order.accepted",
        "registration.settled",
        "order.completed",
    }
    shown = await world.client.get(f"/v1/webhook-endpoints/{everything.id}", headers=partner.headers)
    assert shown.json()["event_types"] == [], "as it was asked for"


async def test_an_endpoint_for_every_type_hears_of_types_that_come_later(
    world: World, receiver: Receiver
) -> None:
    """Endpoints as they were stored before today's newest types existed."""
    partner = await world.partner()
    everything = await subscribe(world, partner, receiver.url("/all"))
    chosen = await subscribe(world, partner, receiver.url("/chosen"), ["order.accepted", "order.failed"])
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text(
                "UPDATE webhook_endpoints SET event_types = array_remove(event_types, 'order.completed') "
                "WHERE id = ANY(:ids)"
            ),
            {"ids": [everything.id, chosen.id]},
        )
    await world.order(partner, tuples(1))
    await world.work()
    await world.deliver()
    assert "order.completed" in {m.type for m in receiver.of_path("/all")}
    assert {m.type for m in receiver.of_path("/chosen")} == {"order.accepted"}


async def test_an_endpoint_is_changed_to_every_type_and_back(world: World, receiver: Receiver) -> None:
    partner = await world.partner()
    endpoint = await subscribe(world, partner, receiver.url(), ["order.failed"])
    for wanted, heard in (([], 3), (["order.completed"], 1)):
        response = await world.client.patch(
            f"/v1/webhook-endpoints/{endpoint.id}", headers=partner.headers, json={"event_types": wanted}
        )
        assert (response.status_code, response.json()["event_types"]) == (200, wanted)
        receiver.messages.clear()
        await world.order(partner, tuples(1, f"N{heard}"))
        await world.work()
        await world.deliver()
        assert len(receiver.messages) == heard


def test_what_the_release_before_reads_names_every_type_of_today() -> None:
    """It does not know the mark for all types."""
    assert set(stored_types([])) == {"*"} | {type.value for type in SUBSCRIBABLE}
    assert stored_types([EventType.ORDER_FAILED]) == ["order.failed"]
    assert not hears(stored_types([]), EventType.ENDPOINT_TEST)


async def test_partners_hear_of_their_own_orders_only(world: World, receiver: Receiver) -> None:
    mine, theirs = await world.partner(), await world.partner()
    await subscribe(world, theirs, receiver.url("/theirs"))
    own = await subscribe(world, mine, receiver.url("/mine"))
    await world.order(mine, tuples(1))
    await world.work()
    await world.deliver()

    assert receiver.of_path("/theirs") == []
    assert len(receiver.of_path("/mine")) == 3
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", ":test"),
        ("GET", "/deliveries"),
    ):
        response = await world.client.request(
            method,
            f"/v1/webhook-endpoints/{own.id}{path}",
            headers=theirs.headers,
            json={"state": "disabled"} if method == "PATCH" else None,
        )
        assert response.status_code == 404, (method, path, response.text)
    delivery = (await deliveries_of(world, mine))[0]
    for method, suffix in (("GET", ""), ("POST", ":redeliver")):
        response = await world.client.request(
            method, f"/v1/webhook-deliveries/{delivery['id']}{suffix}", headers=theirs.headers
        )
        assert response.status_code == 404
    assert await deliveries_of(world, theirs) == []


async def deliveries_of(world: World, partner: Partner) -> list[dict[str, Any]]:
    response = await world.client.get("/v1/webhook-deliveries?page_size=1000", headers=partner.headers)
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def test_a_forged_body_or_another_endpoints_secret_does_not_verify(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    first = await subscribe(world, partner, receiver.url("/first"))
    second = await subscribe(world, partner, receiver.url("/second"))
    await world.order(partner, tuples(1))
    await world.deliver()

    message = receiver.of_path("/first")[0]
    message.verify(first.secret)
    with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
        message.verify(second.secret)
    forged = Message(message.path, message.headers, message.body.replace(b"queued", b"failed"), message.at)
    with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
        forged.verify(first.secret)


async def test_the_signing_secret_is_shown_once_and_lies_sealed(world: World, receiver: Receiver) -> None:
    partner = await world.partner()
    endpoint = await subscribe(world, partner, receiver.url())
    for path in ("/v1/webhook-endpoints", f"/v1/webhook-endpoints/{endpoint.id}"):
        response = await world.client.get(path, headers=partner.headers)
        assert "whsec_" not in response.text
    async with world.runtime.system_transaction() as tx:
        (stored,) = (await tx.session.execute(text("SELECT secret FROM webhook_endpoints"))).scalars()
    assert endpoint.secret.encode() not in bytes(stored)
    assert endpoint.secret.removeprefix("whsec_").encode() not in bytes(stored)


async def test_a_test_event_goes_to_its_endpoint_only(world: World, receiver: Receiver) -> None:
    partner = await world.partner()
    tested = await subscribe(world, partner, receiver.url("/tested"), ["order.failed"])
    await subscribe(world, partner, receiver.url("/other"))
    response = await world.client.post(f"/v1/webhook-endpoints/{tested.id}:test", headers=partner.headers)
    assert response.json()["state"] == "pending"
    await world.deliver()

    assert [m.type for m in receiver.messages] == ["endpoint.test"]
    receiver.messages[0].verify(tested.secret)
    assert receiver.messages[0].path == "/tested"
    followed = await world.client.get(
        f"/v1/webhook-deliveries/{response.json()['id']}", headers=partner.headers
    )
    assert followed.json()["state"] == "succeeded"
    missing = await world.client.post(f"/v1/webhook-endpoints/{uuid4()}:test", headers=partner.headers)
    assert missing.status_code == 404

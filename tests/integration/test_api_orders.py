"""Orders over HTTP: dry runs, lists, filters, pages, cancelling and retrying."""

from collections import Counter
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from app.domain.identity import IdentityKind
from app.local.synthetic import devices as synthetic
from app.services.operations import sweep
from app.services.orders.acceptance import CHUNK
from app.services.registering import batches
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.support.agreement import assert_agreement
from tests.support.world import Partner, World, tuples


async def get(world: World, partner: Partner, path: str) -> Any:
    response = await world.client.get(path, headers=partner.headers)
    assert response.status_code == 200, (path, response.text)
    return response.json()


async def all_pages(world: World, partner: Partner, path: str, size: int) -> list[dict[str, Any]]:
    """Every item, page by page. Every page except the last must be full."""
    items: list[dict[str, Any]] = []
    token = ""
    for _ in range(100):
        page = await get(world, partner, f"{path}{'&' if '?' in path else '?'}page_size={size}{token}")
        items += page["items"]
        if page["next_page_token"] is None:
            return items
        assert len(page["items"]) == size
        token = f"&page_token={page['next_page_token']}"
    raise AssertionError("pages without end")


def tuple_of(number: int, **fields: Any) -> dict[str, Any]:
    return {**TUPLE, "serial_number": f"SYN{number:04d}", **fields}


# --- dry runs -----------------------------------------------------------------------------------


def mixed(random: Random) -> list[dict[str, Any]]:
    """Devices of all kinds, some invalid, some repeated, with tags in various spellings."""
    pool: list[dict[str, Any]] = [dict(d.fields()) for d in synthetic(12, seed=random.randrange(1, 900))]
    pool += [tuple_of(number) for number in range(6)]
    pool += [
        {},
        {"serial_number": "SYN1"},
        {"product_key": "00330-80000-00000-AA123"},
        {"product_key": "0000000000000", **tuple_of(77)},
        {"hardware_hash": "T0AA"},
        {"hardware_hash": "§"},
        {**tuple_of(78), "serial_number": " SYN0078 "},
        {**tuple_of(79), "serial_number": "To be filled by O.E.M."},
        {**tuple_of(80), "model": "a\x00b"},
    ]
    chosen = []
    for number in range(random.randint(1, 40)):
        device = dict(random.choice(pool))
        if random.random() < 0.5:
            device["group_tag"] = random.choice(["Kiosk", "KIOSK", "Sales", " Sales", "standard", "x" * 129])
        if random.random() < 0.5:
            device["line_ref"] = f"line {number}"
        chosen.append(device)
    return chosen


@pytest.mark.parametrize("seed", range(12))
async def test_a_dry_run_stores_nothing_and_tells_exactly_what_the_order_then_does(
    world: World, seed: int
) -> None:
    random = Random(seed)
    partner = await world.partner(consented=seed % 2 == 0)
    if seed % 3 == 0:  # the customer already has a tag, in one spelling
        first = await world.post_order(partner, [tuple_of(900, group_tag="Kiosk")])
        assert first.status_code == 201
        await world.work()
    devices = mixed(random)
    fields: dict[str, Any] = {
        "reference": "mixed",
        "on_invalid": random.choice(["accept_valid"] * 3 + ["reject"]),
    }
    if random.random() < 0.5:
        fields["group_tag"] = "Sales"
    before = await world.dump()

    dry = await world.post_order(partner, devices, **fields, validate_only=True)
    assert await world.dump() == before
    real = await world.post_order(partner, devices, **fields)

    if dry.status_code == 422:
        told, refused = problem_of(dry, 422, "order_rejected"), problem_of(real, 422, "order_rejected")
        assert (told["detail"], told["errors"]) == (refused["detail"], refused["errors"])
        assert await world.dump() == before
        return
    assert (dry.status_code, real.status_code) == (200, 201), (dry.text, real.text)
    preview, order = dry.json(), real.json()
    assert (preview.pop("result"), order["result"]) == ("validated", "accepted")
    assert preview == order["preview"]
    assert preview["counts"] == order["counts"]
    rows = await world.rows(partner, order["id"])
    assert len(rows) == len(devices) == preview["counts"]["total"]
    states = Counter(row["state"] for row in rows)
    assert {state: n for state, n in preview["counts"].items() if n and state != "total"} == states
    listed = await all_pages(world, partner, f"/v1/batches?order_id={order['id']}", 50)
    assert Counter((b["group_tag"], b["counts"]["total"]) for b in listed) == Counter(
        (b["group_tag"], b["devices"]) for b in preview["batches"]
    )
    with_findings = [row for row in rows if row["findings"]]
    assert preview["problems_total"] == len(with_findings)
    assert [
        {
            "row": row["row"],
            "line_ref": row["line_ref"],
            "valid": row["state"] != "invalid",
            "findings": row["findings"],
        }
        for row in with_findings
    ] == preview["problems"]


@pytest.mark.parametrize("word", ["reject", "reject_order"])
async def test_more_problems_than_are_shown_are_counted(world: World, word: str) -> None:
    """`reject_order` is the former value."""
    partner = await world.partner(consented=False)
    devices = [{"line_ref": str(number)} for number in range(150)]
    dry = (await world.post_order(partner, devices, validate_only=True)).json()
    assert (len(dry["problems"]), dry["problems_total"], dry["counts"]["invalid"]) == (100, 150, 150)
    refused = problem_of(await world.post_order(partner, devices, on_invalid=word), 422, "order_rejected")
    assert len(refused["errors"]) == 100
    assert refused["detail"].startswith("150 of 150 rows")


async def test_two_rows_that_a_third_one_far_below_shows_to_be_one_device_become_one(world: World) -> None:
    """By then the second row has been stored as valid: everything is undone and planned again, once."""
    partner = await world.partner()
    named = {"serial_number": "TWIN", "manufacturer": "Contoso", "model": "Book"}
    between = [device.fields() for device in synthetic(CHUNK, seed=3)]
    devices = [{"product_key": "9999000000017"}, named, *between, {"product_key": "9999000000017", **named}]
    key = {"Idempotency-Key": "twins"}

    dry = (await world.post_order(partner, devices, validate_only=True)).json()
    order = (await world.post_order(partner, devices, headers=key, reference="TWINS")).json()
    repeated = await world.post_order(partner, devices, headers=key, reference="TWINS")

    assert {**order["preview"], "result": "validated"} == dry
    assert [problem["row"] for problem in dry["problems"] if not problem["valid"]] == [2, len(devices)]
    assert repeated.headers["idempotency-replayed"] == "true"
    told = await world.select("SELECT type FROM events WHERE order_id IS NOT NULL")
    assert [event["type"] for event in told] == ["order.accepted"]
    await world.work()
    await assert_agreement(world, partner, UUID(order["id"]))


async def test_a_refused_order_names_the_same_rows_as_its_dry_run(world: World) -> None:
    partner = await world.partner()
    named = {"serial_number": "TWIN", "manufacturer": "Contoso", "model": "Book"}
    between = [device.fields() for device in synthetic(CHUNK, seed=3)]
    devices = [{"product_key": "9999000000017"}, named, *between, {"product_key": "9999000000017", **named}]

    answers = [
        await world.post_order(partner, devices, on_invalid="reject", validate_only=dry)
        for dry in (True, False)
    ]

    dry, real = (problem_of(answer, 422, "order_rejected") for answer in answers)
    assert [error["row"] for error in real["errors"]] == [2, len(devices)]
    assert (dry["detail"], dry["errors"]) == (real["detail"], real["errors"])
    assert [await world.count(table) for table in ("orders", "batches", "registrations")] == [0, 0, 0]


async def test_an_order_of_bad_rows_only_fails_at_once(world: World) -> None:
    partner = await world.partner()
    order = (await world.post_order(partner, [{}, {}])).json()
    assert (order["state"], order["counts"]["invalid"]) == ("failed", 2)
    response = await world.client.get(f"/v1/orders/{order['id']}", headers=partner.headers)
    assert "retry-after" not in response.headers
    assert await world.count("batches") == 0


# --- lists ----------------------------------------------------------------------------------------


async def test_orders_are_listed_newest_first_and_filtered(world: World) -> None:
    partner = await world.partner()
    made = []
    for number in range(7):
        fields: dict[str, Any] = {"reference": f"A-{number}", "purchase_order": f"PO {number % 2}"}
        if number == 3:
            fields["customer_id"] = str(partner.other_customer_id)
        made.append((await world.post_order(partner, [tuple_of(number)], **fields)).json())
        world.clock.advance(seconds=10)
    references = [order["reference"] for order in reversed(made)]

    async def listed(query: str) -> list[str]:
        return [order["reference"] for order in await all_pages(world, partner, f"/v1/orders{query}", 2)]

    assert await listed("") == references
    assert await listed("?reference=A-4") == ["A-4"]
    assert await listed("?reference=a-4") == []
    assert await listed("?purchase_order=PO%201") == ["A-5", "A-3", "A-1"]
    assert await listed(f"?customer_id={partner.other_customer_id}") == ["A-3"]
    assert await listed(f"?since={made[5]['created_at']}") == ["A-6", "A-5"]
    assert await listed("?since=2999-01-01T00:00:00Z") == []
    items = (await get(world, partner, "/v1/orders?page_size=1000"))["items"]
    for item in items:
        assert item == await get(world, partner, f"/v1/orders/{item['id']}")
        assert item["counts"]["total"] == 1


async def test_pages_neither_skip_nor_repeat_while_orders_arrive(world: World) -> None:
    partner = await world.partner(consented=False)
    old = [(await world.post_order(partner, [tuple_of(n)])).json()["id"] for n in range(9)]
    seen: list[str] = []
    token = ""
    while True:
        page = await get(world, partner, f"/v1/orders?page_size=2{token}")
        seen += [order["id"] for order in page["items"]]
        await world.post_order(partner, [tuple_of(100 + len(seen))])
        if page["next_page_token"] is None:
            break
        token = f"&page_token={page['next_page_token']}"
    assert seen == old[::-1]


async def test_registrations_are_filtered(world: World) -> None:
    partner = await world.partner()
    serials = ["AB%1", "AB_1", "ABx1", "ab%2", "AB\\1", "ÄB1"]
    devices = [{**TUPLE, "serial_number": s, "line_ref": f"L{n % 2}"} for n, s in enumerate(serials)]
    order = (await world.post_order(partner, [*devices, {"line_ref": "bad"}])).json()
    other = (await world.post_order(partner, [tuple_of(1, line_ref="L1")])).json()

    async def found(path: str) -> list[str | None]:
        return [row["serial_number"] for row in await all_pages(world, partner, path, 2)]

    of_order = f"/v1/orders/{order['id']}/registrations"
    assert await found(of_order) == [*serials, None]
    for path, oldest_first in ((of_order, True), ("/v1/registrations", False)):
        both = ["AB%1", "ab%2"] if oldest_first else ["ab%2", "AB%1"]
        assert await found(f"{path}?serial_prefix=AB%25") == both
        assert await found(f"{path}?serial_prefix=ab_") == ["AB_1"]
        assert await found(f"{path}?serial_prefix=AB%5C") == ["AB\\1"]
        assert await found(f"{path}?serial_prefix=%C3%A4b") == ["ÄB1"]
        assert await found(f"{path}?serial_prefix=B") == []
        assert await found(f"{path}?error_code=missing_identity") == [None]
        assert set(await found(f"{path}?state=invalid")) == {"ÄB1", None}
        assert await found(f"{path}?line_ref=bad") == [None]
        assert await found(f"{path}?line_ref=ba") == []
    assert len(await found(f"{of_order}?line_ref=L1")) == 3
    assert len(await found("/v1/registrations?line_ref=L1")) == 4
    assert len(await found(f"/v1/registrations?customer_id={partner.customer_id}")) == 8
    assert await found(f"/v1/registrations?customer_id={partner.other_customer_id}") == []
    (batch,) = (await get(world, partner, f"/v1/batches?order_id={other['id']}"))["items"]
    assert await found(f"/v1/registrations?batch_id={batch['id']}") == ["SYN0001"]

    world.clock.advance(minutes=1)
    since = (world.clock.now() - timedelta(seconds=30)).isoformat().replace("+", "%2B")
    assert await found(f"/v1/registrations?since={since}") == []
    await world.work()
    changed = await found(f"/v1/registrations?since={since}")
    assert sorted(s for s in changed if s) == sorted([*serials[:-1], "SYN0001"])
    (row,) = (await get(world, partner, f"{of_order}?serial_prefix=AB_1"))["items"]
    assert await get(world, partner, f"/v1/registrations/{row['id']}") == row


async def assert_counts_are_the_rows(world: World, partner: Partner, order_id: str) -> None:
    order = await get(world, partner, f"/v1/orders/{order_id}")
    rows = Counter(row["state"] for row in await world.rows(partner, UUID(order_id)))
    counts = {state: n for state, n in order["counts"].items() if n}
    assert counts.pop("total") == rows.total()
    assert counts == rows
    for batch in (await get(world, partner, f"/v1/batches?order_id={order_id}"))["items"]:
        of_batch = await all_pages(world, partner, f"/v1/registrations?batch_id={batch['id']}", 1000)
        states = Counter(row["state"] for row in of_batch)
        assert {state: n for state, n in batch["counts"].items() if n} == {"total": len(of_batch), **states}


async def test_counts_are_the_rows_at_every_step_and_a_moving_order_says_when_to_ask_again(
    world: World,
) -> None:
    partner = await world.partner()
    await world.arm(
        {"operation": "create", "kind": "device_error", "serials": ["SYN0002"], "code": "808", "count": None},
        {"operation": "create", "kind": "throttle", "count": 1},
        {"operation": "status", "kind": "status", "status": 503, "count": 1},
    )
    devices = [tuple_of(n, group_tag="Kiosk" if n % 2 else "Sales") for n in range(6)]
    order_id = (await world.post_order(partner, [*devices, {}])).json()["id"]
    steps = 0
    while True:
        response = await world.client.get(f"/v1/orders/{order_id}", headers=partner.headers)
        await assert_counts_are_the_rows(world, partner, order_id)
        if response.json()["state"] != "in_progress":
            break
        assert int(response.headers["retry-after"]) > 0
        steps += 1
        assert steps < 50
        if await batches.advance_next(world.runtime) is None:
            world.clock.advance(seconds=30)
    assert steps > 4
    assert "retry-after" not in response.headers
    assert response.json()["state"] == "completed_with_errors"
    assert response.json()["counts"]["conflict"] == 1


async def test_a_batch_shows_every_call_with_the_ids_that_microsoft_saw(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "throttle", "count": 1})
    order = (await world.post_order(partner, [tuple_of(1)])).json()
    await world.work()
    (listed,) = (await get(world, partner, "/v1/batches?state=settled"))["items"]
    assert (await get(world, partner, "/v1/batches?state=queued"))["items"] == []
    batch = await get(world, partner, f"/v1/batches/{listed['id']}")
    attempts = batch.pop("attempts")
    assert batch == listed
    assert (batch["order_id"], batch["counts"]["registered"]) == (order["id"], 1)
    assert batch["tracking_id"]
    shown = [(a["request_id"], a["correlation_id"]) for a in attempts if a["request_id"]]
    calls = await world.calls("create") + await world.calls("status")
    seen = {(call["request_id"], call["correlation_id"]) for call in calls}
    assert len(await world.calls("create")) == 2
    assert set(shown) >= {
        (call["request_id"], call["correlation_id"]) for call in await world.calls("create")
    }
    assert set(shown) <= seen
    starts = [a["started_at"] for a in attempts]
    assert starts == sorted(starts, reverse=True)
    assert all(a["finished_at"] and a["outcome"] for a in attempts)


# --- cancel ---------------------------------------------------------------------------------------


async def post(world: World, partner: Partner, order_id: str, verb: str) -> Any:
    return await world.client.post(f"/v1/orders/{order_id}:{verb}", headers=partner.headers)


@pytest.mark.parametrize("consented", [True, False], ids=["queued", "held"])
async def test_an_order_cancelled_before_sending_never_reaches_microsoft(
    world: World, consented: bool
) -> None:
    partner = await world.partner(consented=consented)
    order_id = (await world.post_order(partner, [tuple_of(1), tuple_of(2), {}])).json()["id"]
    for _ in range(2):  # the second time changes nothing
        response = await post(world, partner, order_id, "cancel")
        assert response.status_code == 200, response.text
        assert response.json()["state"] == "cancelled"
        assert (response.json()["counts"]["cancelled"], response.json()["counts"]["invalid"]) == (2, 1)
    await world.work()
    await assert_counts_are_the_rows(world, partner, order_id)
    assert await world.calls("create") == []
    assert {row["settled_at"] is None for row in await world.rows(partner, order_id)} == {False}
    problem_of(await post(world, partner, order_id, "retry-failed"), 409, "invalid_state")


async def test_what_is_on_its_way_goes_on_when_the_rest_is_cancelled(world: World) -> None:
    partner = await world.partner()
    await world.switch(processing_min_ms=60_000, processing_max_ms=60_000)
    devices = [tuple_of(n, group_tag="Kiosk" if n < 3 else "Sales") for n in range(5)]
    order_id = (await world.post_order(partner, devices)).json()["id"]
    assert await batches.advance_next(world.runtime) is not None
    assert len(await world.calls("create")) == 1

    response = await post(world, partner, order_id, "cancel")

    assert response.status_code == 200, response.text
    assert response.json()["state"] == "in_progress"
    sent = response.json()["counts"]["processing"]
    assert sent in (2, 3)
    assert response.json()["counts"]["cancelled"] == 5 - sent
    problem = problem_of(await post(world, partner, order_id, "cancel"), 409, "invalid_state")
    assert "sent whole" in problem["detail"]
    await world.control("POST", "jobs:finish")
    await world.work()
    order = await get(world, partner, f"/v1/orders/{order_id}")
    assert (order["counts"]["registered"], order["counts"]["cancelled"]) == (sent, 5 - sent)
    await assert_counts_are_the_rows(world, partner, order_id)
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == sent


async def test_an_order_that_is_over_can_not_be_cancelled(world: World) -> None:
    partner = await world.partner()
    order_id = (await world.post_order(partner, [tuple_of(1)])).json()["id"]
    await world.work()
    problem = problem_of(await post(world, partner, order_id, "cancel"), 409, "invalid_state")
    assert "is over" in problem["detail"]
    assert (await get(world, partner, f"/v1/orders/{order_id}"))["state"] == "completed"


# --- trying again ------------------------------------------------------------------------------------


async def test_a_conflict_is_registered_once_the_other_organisation_lets_go(world: World) -> None:
    partner = await world.partner()
    rival = await world.partner()
    device = tuple_of(1)
    theirs = {
        "serial": "SYN0001",
        "manufacturer": TUPLE["manufacturer"],
        "model": TUPLE["model"],
    }
    await world.control("POST", "devices", [{**theirs, "customer": str(rival.tenant_id)}])
    order_id = (await world.post_order(partner, [device, tuple_of(2)])).json()["id"]
    await world.work()
    order = await get(world, partner, f"/v1/orders/{order_id}")
    assert (order["state"], order["counts"]["conflict"]) == ("completed_with_errors", 1)
    (conflict, fine) = await world.rows(partner, order_id)
    assert conflict["error_code"] == "assigned_to_other_tenant"
    assert (conflict["upstream"]["code"], conflict["attempt"]) == ("808", 1)

    await world.control("POST", "devices", [theirs])  # the rival has deregistered it
    response = await post(world, partner, order_id, "retry-failed")
    assert response.status_code == 200, response.text
    assert (response.json()["retried"], response.json()["without_hash"]) == (1, 0)
    assert (response.json()["state"], response.json()["counts"]["queued"]) == ("in_progress", 1)
    problem_of(await post(world, partner, order_id, "retry-failed"), 409, "invalid_state")
    await world.work()

    assert (await get(world, partner, f"/v1/orders/{order_id}"))["state"] == "completed"
    (again, untouched) = await world.rows(partner, order_id)
    assert (again["state"], again["error_code"], again["attempt"]) == ("registered", None, 2)
    assert again["upstream"]["code"] is None
    assert untouched == fine
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 2
    await assert_counts_are_the_rows(world, partner, order_id)


async def test_rows_whose_hash_is_gone_are_counted_and_need_a_new_order(world: World) -> None:
    partner = await world.partner()
    whole = next(synthetic(1, seed=5, kind=IdentityKind.HARDWARE_HASH))
    serials = [whole.serial_number, "SYN0001"]
    await world.arm({"operation": "create", "kind": "device_error", "serials": serials, "code": "802"})
    order_id = (await world.post_order(partner, [whole.fields(), tuple_of(1)])).json()["id"]
    await world.work()
    assert (await get(world, partner, f"/v1/orders/{order_id}"))["counts"]["failed"] == 2
    assert await world.count("device_hashes") == 1
    world.clock.advance(days=31)
    await sweep.tidy(world.runtime)
    assert await world.count("device_hashes") == 0

    response = await post(world, partner, order_id, "retry-failed")

    assert (response.json()["retried"], response.json()["without_hash"]) == (1, 1)
    await world.work()
    states = [row["state"] for row in await world.rows(partner, order_id)]
    assert states == ["failed", "registered"]
    problem = problem_of(await post(world, partner, order_id, "retry-failed"), 409, "invalid_state")
    assert "new order" in problem["detail"]
    assert problem["remedy"].startswith("The detail says why, and what to do")


async def test_nothing_is_tried_again_in_an_order_without_failures(world: World) -> None:
    partner = await world.partner()
    order_id = (await world.post_order(partner, [tuple_of(1)])).json()["id"]
    for _ in range(2):
        problem_of(await post(world, partner, order_id, "retry-failed"), 409, "invalid_state")
        await world.work()
    assert len(await world.calls("create")) == 1
    for verb in ("cancel", "retry-failed"):
        problem_of(await post(world, partner, str(UUID(int=1)), verb), 404, "not_found")


async def test_orders_are_found_by_their_state(world: World) -> None:
    partner = await world.partner()
    done = await world.order(partner, tuples(2))
    await world.work()
    held = await world.order(partner, tuples(2, "HELD"), customer_id=partner.other_customer_id)
    moving = await world.order(partner, tuples(2, "MOVE"))

    found = {}
    for state in ("completed", "held", "in_progress", "failed"):
        response = await world.client.get(f"/v1/orders?state={state}", headers=partner.headers)
        items = response.json()["items"]
        assert {item["state"] for item in items} <= {state}
        found[state] = [item["id"] for item in items]

    assert found == {
        "completed": [str(done.view.record.id)],
        "held": [str(held.view.record.id)],
        "in_progress": [str(moving.view.record.id)],
        "failed": [],
    }


async def test_a_misspelt_filter_is_refused_instead_of_answering_with_everything(world: World) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(1))

    response = await world.client.get("/v1/orders?sate=failed", headers=partner.headers)

    assert response.status_code == 422
    assert response.json()["code"] == "invalid_parameter"
    assert [error["pointer"] for error in response.json()["errors"]] == ["sate"]

"""Faults and weather of the simulator: what a rule matches, when it acts, and what the ledger says of it."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from simulator.samples import hardware_hash
from simulator.wire import ConnectionDropped
from tests.unit.simulator_scene import Scene, fresh_scene, new_id, tuple_of


@pytest.fixture
async def scene() -> Scene:
    return await fresh_scene()


async def test_rules_act_one_a_call_in_the_order_armed(scene: Scene) -> None:
    await scene.arm(
        {"operation": "create", "kind": "status", "status": 503, "headers": {"Retry-After": "2"}},
        {"operation": "create", "kind": "throttle", "retry_after": 57},
        {"operation": "create", "kind": "expired_token"},
    )
    answers = [await scene.create([tuple_of("S1")]) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 429, 401, 202]
    assert (answers[0].content, answers[0].headers["retry-after"]) == (b"", "2")
    assert answers[1].json() == {
        "statusCode": 429,
        "message": "Rate limit is exceeded. Try again in 57 seconds.",
    }
    assert (await scene.control("GET", "totals"))["jobs"] == 1


async def test_a_rule_matches_its_operation_and_customer_after_those_it_skips(scene: Scene) -> None:
    other = scene.customers[1]
    await scene.arm({"operation": "list_batches", "kind": "status", "customer": other.upper(), "skip": 1})
    assert (await scene.get(f"{scene.base}/deviceBatches")).status_code == 200
    path = f"/v1/customers/{other}/deviceBatches"
    assert [(await scene.get(path)).status_code for _ in range(3)] == [200, 500, 200]
    (armed,) = await scene.control("GET", "faults")
    assert (armed["left"], armed["hits"]) == (0, 1)


async def test_an_endless_rule_acts_until_cleared(scene: Scene) -> None:
    await scene.arm({"kind": "status", "status": 500, "body": {"code": "x"}, "count": None})
    assert [(await scene.get("/v1/customers")).json() for _ in range(3)] == [{"code": "x"}] * 3
    await scene.control("DELETE", "faults")
    assert (await scene.get("/v1/customers")).status_code == 200


async def test_an_error_after_processing_hides_an_accepted_upload(scene: Scene) -> None:
    request = new_id()
    await scene.arm({"operation": "create", "kind": "status", "status": 504, "phase": "after"})
    assert (await scene.create([tuple_of("S1")], MS_RequestId=request)).status_code == 504
    assert await scene.errors(await scene.create([tuple_of("S1")], MS_RequestId=request)) == [""]
    calls = await scene.calls("create")
    assert [(c["status"], c["processed"], c["replayed"]) for c in calls] == [
        (504, True, False),
        (202, True, True),
    ]


@pytest.mark.parametrize(("phase", "jobs"), [("before", 0), ("after", 1)])
async def test_a_dropped_call_had_its_effect_or_not(scene: Scene, phase: str, jobs: int) -> None:
    await scene.arm({"operation": "create", "kind": "drop", "phase": phase})
    with pytest.raises(httpx.RemoteProtocolError) as dropped:
        await scene.create([tuple_of("S1")])
    assert isinstance(dropped.value, ConnectionDropped)
    assert (await scene.control("GET", "totals"))["jobs"] == jobs
    assert [call["outcome"] for call in await scene.calls("create")] == [f"dropped_{phase}"]


@pytest.mark.parametrize(("phase", "jobs"), [("before", 0), ("after", 1)])
async def test_a_held_call_waits_until_released(scene: Scene, phase: str, jobs: int) -> None:
    await scene.arm({"operation": "create", "kind": "hold", "phase": phase})
    call = asyncio.create_task(scene.create([tuple_of("S1")]))
    (held,) = await scene.held()
    assert (held["operation"], held["customer"], held["phase"]) == ("create", scene.customer, phase)
    assert (await scene.control("GET", "totals"))["jobs"] == jobs
    assert not call.done()
    assert await scene.control("POST", "release", {"id": held["id"]}) == {"released": 1}
    assert (await call).status_code == 202
    assert await scene.control("GET", "held") == []


async def test_a_held_call_may_be_dropped_on_release_and_goes_on_after_its_delay(scene: Scene) -> None:
    await scene.arm(
        {"operation": "create", "kind": "hold", "delay_ms": 1, "phase": "after", "then": "drop"},
        {"operation": "append", "kind": "slow", "delay_ms": 1},
    )
    with pytest.raises(httpx.TransportError):
        await scene.create([tuple_of("S1")])
    assert (await scene.append([tuple_of("S2")])).status_code == 202


async def test_results_are_shaped_by_rules(scene: Scene) -> None:
    await scene.arm(
        {"operation": "create", "kind": "no_location"},
        {"operation": "append", "kind": "never_finish"},
    )
    assert "location" not in (await scene.create([tuple_of("S1")])).headers
    stuck = await scene.append([tuple_of("S2")])
    await scene.control("POST", "clock", {"advance_s": 3000})
    assert (await scene.get("/v1" + stuck.headers["location"])).json()["status"] == "processing"
    assert await scene.control("POST", "jobs:finish") == {"finished": 1}
    assert await scene.errors(stuck) == [""]


async def test_statuses_are_shuffled_when_told(scene: Scene) -> None:
    serials = [f"S{n}" for n in range(50)]
    await scene.arm({"operation": "create", "kind": "shuffle"})
    shuffled = await scene.outcome(await scene.create([tuple_of(s) for s in serials]))
    found = [device["serialNumber"] for device in shuffled["devicesStatus"]]
    assert found != serials
    assert sorted(found) == sorted(serials)


async def test_errors_are_given_to_chosen_devices(scene: Scene) -> None:
    await scene.arm(
        {
            "operation": "create",
            "kind": "device_error",
            "serials": ["S1"],
            "positions": [3],
            "code": "StorageError",
        },
        {"operation": "create", "kind": "device_error", "product_keys": ["77"], "code": "808"},
    )
    devices = [
        {"hardwareHash": hardware_hash("S1")},
        tuple_of("S2"),
        {"productKey": "77"},
        tuple_of("S4"),
    ]
    assert await scene.errors(await scene.create(devices)) == ["StorageError", "", "808", "StorageError"]
    assert await scene.errors(await scene.append(devices)) == ["", "806", "", ""]


async def test_a_device_may_be_registered_although_reported_failed(scene: Scene) -> None:
    rule = {"operation": "create", "kind": "device_error", "every": 2, "register_anyway": True}
    await scene.arm(rule)
    assert await scene.errors(await scene.create([tuple_of("S1"), tuple_of("S2")])) == ["", "StorageError"]
    assert await scene.errors(await scene.append([tuple_of("S2")])) == ["806"]


async def test_too_many_requests_are_throttled_per_partner(scene: Scene) -> None:
    await scene.switch(throttle_requests=2, throttle_window_s=60)
    answers = [await scene.get("/v1/customers") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 0 < int(answers[2].headers["retry-after"]) <= 60
    await scene.control("POST", "clock", {"advance_s": 61})
    assert (await scene.get("/v1/customers")).status_code == 200


async def test_weather_repeats_itself_with_its_seed(scene: Scene) -> None:
    await scene.switch(server_error_rate=0.3, server_error_after_share=0.5)

    async def week() -> list[int]:
        await scene.control("PUT", "chance", {"seed": 7})
        return [(await scene.get("/v1/customers")).status_code for _ in range(40)]

    first = await week()
    assert first == await week()
    assert {200, 500, 502, 503, 504} >= set(first)
    assert len(set(first)) > 2


async def test_a_refused_rule_is_explained(scene: Scene) -> None:
    refused = await scene.client.post("/control/faults", json=[{"kind": "explode"}])
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (400, [0, "kind"])

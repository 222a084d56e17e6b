"""A platform outside the product, in one file, works from order to outcome without changes elsewhere.

The platform is Depot (`tests/contract/platforms/depot.py`). It is found by the public setting, called over
HTTP on loopback, and compared with its own ledger: each device is registered exactly once, whatever goes
wrong.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.kernel.settings import Settings
from app.runtime import NoInstallation
from tests.contract.depot_desk import Desk, Fault, open_desk
from tests.contract.platforms import depot
from tests.support.import_scene import committed, tuple_sheet, upload, work_imports
from tests.support.receiver import open_receiver, subscribe
from tests.support.worker import PATIENCE, worker_process
from tests.support.world import Partner, World

PACKAGES = "tests.contract.platforms"


@dataclass
class Scene:
    world: World
    desk: Desk
    partner: Partner

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        call = self.world.client.request
        return await call(method, f"/v1{path}", headers=self.partner.headers, json=body)

    async def made(self, path: str, body: Any) -> Any:
        response = await self.call("POST", path, body)
        assert response.is_success, response.text
        return response.json()

    async def consent(self, state: str = "granted") -> None:
        path = f"/customers/{self.partner.customer_id}/consent:record"
        await self.made(path, {"state": state, "note": "signed on paper"})

    async def order(self, count: int, prefix: str = "SYN") -> UUID:
        response = await self.world.post_order(self.partner, devices(count, prefix))
        assert response.status_code == 201, response.text
        return UUID(response.json()["id"])

    async def states(self, order_id: UUID) -> dict[str, str]:
        rows = await self.world.rows(self.partner, order_id)
        return {row["serial_number"]: row["state"] for row in rows}


def devices(count: int, prefix: str = "SYN") -> list[dict[str, str]]:
    return [
        {"serial_number": f"{prefix}{n:05d}", "manufacturer": "Contoso", "model": "Book"}
        for n in range(1, count + 1)
    ]


@pytest.fixture
async def scene(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """A partner with a connection to Depot, created by the API, and one customer."""
    async with open_desk() as desk:
        monkeypatch.setenv("REGISTRAR_PLATFORM_DEPOT_URL", desk.url)
        packages = Settings(more_platforms=PACKAGES).more_platforms
        async with world.served(more_platforms=packages, upstream_timeout_s=2.0) as served:
            scene = Scene(served, desk, await served.partner(consented=False))
            login = (await served.control("POST", "seed", {"customers": 1}))["partner"]
            connection = await scene.made(
                "/connections",
                {
                    "name": "desk",
                    "platform": "depot",
                    "entra_tenant_id": login["tenant_id"],
                    "client_id": login["client_id"],
                    "client_secret": login["client_secret"],
                    "default_group_tag": "Standard",
                },
            )
            tenant = UUID(int=0xDE907)
            body = {"connection_id": connection["id"], "entra_tenant_id": str(tenant), "name": "Contoso"}
            customer = await scene.made("/customers", body)
            scene.partner = replace(
                scene.partner,
                connection_id=UUID(connection["id"]),
                customer_id=UUID(customer["id"]),
                tenant_id=tenant,
            )
            yield scene


def assert_once(desk: Desk, count: int) -> None:
    assert set(desk.registered.values()) == {1}
    assert len(desk.registered) == count


# --- from end to end ------------------------------------------------------------------------------


async def test_the_platform_is_in_the_table_with_its_own_limits(scene: Scene) -> None:
    items = (await scene.call("GET", "/platforms")).json()["items"]
    (found,) = [item for item in items if item["name"] == "depot"]
    assert (found["max_devices"], found["identities"], found["automated"]) == (7, ["tuple"], True)
    assert (found["group_tags"], found["portal"]) == ("none", False)


async def test_an_order_goes_to_the_platform_once_consent_is_recorded_and_each_device_has_its_outcome(
    scene: Scene,
) -> None:
    world, desk = scene.world, scene.desk
    desk.errors = {"SYN00002": "E_SERIAL", "SYN00003": "E_THEIRS", "SYN00004": "E_OURS", "SYN00005": "E_NEW"}
    order_id = await scene.order(10)
    await world.work()
    assert set((await scene.states(order_id)).values()) == {"held"}
    assert desk.calls == []

    await scene.consent()
    await world.work()

    assert [len(serials.split()) for _, serials in desk.calls] == [7, 3]
    assert desk.audiences == {depot.RESOURCE}
    assert_once(desk, 6)
    rows = {row["serial_number"]: row for row in await world.rows(scene.partner, order_id)}
    outcomes = {serial: (row["state"], row["error_code"]) for serial, row in rows.items()}
    assert outcomes == {
        **{f"SYN{n:05d}": ("registered", None) for n in (1, 6, 7, 8, 9, 10)},
        "SYN00002": ("failed", "device_not_found"),
        "SYN00003": ("conflict", "assigned_to_other_tenant"),
        "SYN00004": ("already_registered", "already_registered"),
        "SYN00005": ("failed", "upstream_other"),
    }
    assert {row["upstream"]["device_id"] for row in rows.values()} == set(desk.enrolments)
    assert await world.count("group_tags") == 0, "no ledger of tags is kept for a platform without one"
    kinds = await world.select("SELECT DISTINCT kind FROM batch_attempts")
    assert [row["kind"] for row in kinds] == ["register"]


async def test_outcomes_are_recorded_when_they_come_and_webhooks_tell_them(scene: Scene) -> None:
    world = scene.world
    await scene.consent()
    async with open_receiver(world) as receiver:
        await subscribe(world, scene.partner, receiver.url(), ["registration.settled", "order.completed"])
        order_id = await scene.order(4)
        await world.work()
        await world.deliver()
    settled = [m.data for m in receiver.messages if m.type == "registration.settled"]
    assert [len(data["registrations"]) for data in settled] == [2, 2], "those that were done first came first"
    assert {row["state"] for data in settled for row in data["registrations"]} == {"registered"}
    assert [m.data["order_id"] for m in receiver.messages if m.type == "order.completed"] == [str(order_id)]
    assert_once(scene.desk, 4)


async def test_a_file_takes_the_same_way(scene: Scene) -> None:
    world = scene.world
    await scene.consent()
    import_id = await upload(world, scene.partner, tuple_sheet(9), reference="PO-1")
    await work_imports(world)
    found = await committed(world, scene.partner, import_id)
    await world.work()
    (order_id,) = [UUID(order["order_id"]) for order in found["orders"]]
    assert set((await scene.states(order_id)).values()) == {"registered"}
    assert [len(serials.split()) for _, serials in scene.desk.calls] == [7, 2]
    assert_once(scene.desk, 9)


@pytest.mark.parametrize("as_file", [False, True])
async def test_a_platform_without_group_tags_refuses_no_spelling_of_one(scene: Scene, as_file: bool) -> None:
    world = scene.world
    await scene.consent()
    tags = ["Sales", "SALES", "sales"]
    rows = [{**row, "group_tag": tag} for row, tag in zip(devices(3), tags, strict=True)]
    if as_file:
        header, *lines = tuple_sheet(3).decode().splitlines()
        lines = [f"{line},{tag}" for line, tag in zip(lines, tags, strict=True)]
        data = "\r\n".join([f"{header},Group Tag", *lines]).encode()
        import_id = await upload(world, scene.partner, data, reference="PO-2")
        await work_imports(world)
        found = await committed(world, scene.partner, import_id)
        order_id = UUID(found["orders"][0]["order_id"])
    else:
        response = await world.post_order(scene.partner, rows)
        order_id = UUID(response.json()["id"])
    await world.work()
    found_rows = await world.rows(scene.partner, order_id)
    assert [(row["group_tag"], row["state"]) for row in found_rows] == [(tag, "registered") for tag in tags]
    assert_once(scene.desk, 3)


async def test_a_device_that_the_platform_does_not_take_is_refused_before_it_is_sent(scene: Scene) -> None:
    response = await scene.world.post_order(scene.partner, [{"product_key": "9876500000001"}])
    row = (await scene.world.rows(scene.partner, UUID(response.json()["id"])))[0]
    assert (row["state"], row["error_code"]) == ("invalid", "identity_not_accepted")


@pytest.mark.parametrize(
    "path",
    [
        "/customers/{customer}/consent:recheck",
        "/customers/{customer}/consent:request",
        "/connections/{connection}:check",
    ],
)
async def test_what_the_platform_cannot_tell_is_said(scene: Scene, path: str) -> None:
    ids = {"customer": scene.partner.customer_id, "connection": scene.partner.connection_id}
    response = await scene.call("POST", path.format(**ids))
    assert (response.status_code, response.json()["code"]) == (422, "platform_cannot_tell")


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(after=True),
        Fault(after=False),
        Fault(after=True, status=500),
        Fault(after=False, status=500),
        Fault(after=False, status=429, headers="Retry-After: 30\r\n"),
    ],
    ids=["timeout after", "timeout before", "500 after", "500 before", "429"],
)
async def test_a_fault_on_the_way_registers_nothing_twice(
    scene: Scene, fault: Fault, remembers: bool
) -> None:
    scene.desk.remembers = remembers
    scene.desk.faults.append(fault)
    await scene.consent()
    order_id = await scene.order(7)
    await scene.world.work()

    assert_once(scene.desk, 7)
    first, second = scene.desk.calls
    assert first[1] == second[1]
    assert fault.status is not None or first[0] == second[0], "no answer has spent the id"
    # Without a list, it is unknown whether an earlier call or another partner has registered them.
    had_them = fault.after and (fault.status is not None or not remembers)
    state = "already_registered" if had_them else "registered"
    assert set((await scene.states(order_id)).values()) == {state}


async def test_a_device_that_got_no_number_is_sent_once_more_and_the_others_are_not(scene: Scene) -> None:
    scene.desk.unnumbered = {"SYN00002"}
    await scene.consent()
    order_id = await scene.order(3)
    await scene.world.work()
    assert [serials for _, serials in scene.desk.calls] == ["SYN00001 SYN00002 SYN00003", "SYN00002"]
    assert_once(scene.desk, 3)
    assert await scene.states(order_id) == {
        "SYN00001": "registered",
        "SYN00002": "already_registered",
        "SYN00003": "registered",
    }


async def test_a_busy_device_is_tried_again_by_itself(scene: Scene) -> None:
    scene.desk.errors = {"SYN00002": "E_BUSY"}
    await scene.consent()
    order_id = await scene.order(3)
    await scene.world.work()
    assert (await scene.states(order_id))["SYN00002"] == "failed"
    assert [serials for _, serials in scene.desk.calls[1:]] == ["SYN00002"] * 2
    assert_once(scene.desk, 2)


async def test_what_is_tried_again_is_cut_at_the_platforms_limit_too(scene: Scene) -> None:
    scene.desk.errors = {f"SYN{n:05d}": "E_SERIAL" for n in range(1, 11)}
    await scene.consent()
    order_id = await scene.order(10)
    await scene.world.work()
    assert set((await scene.states(order_id)).values()) == {"failed"}
    scene.desk.errors.clear()
    await scene.made(f"/orders/{order_id}:retry-failed", {})
    await scene.world.work()
    assert [len(serials.split()) for _, serials in scene.desk.calls] == [7, 3, 7, 3]
    assert set((await scene.states(order_id)).values()) == {"registered"}
    assert_once(scene.desk, 10)


async def test_an_outcome_that_never_becomes_known_ends_for_a_person(scene: Scene) -> None:
    scene.desk.faults.extend(Fault(after=False, status=500) for _ in range(100))
    await scene.consent()
    order_id = await scene.order(2)
    await scene.world.work()
    assert set((await scene.states(order_id)).values()) == {"unknown"}
    looked = await scene.world.select("SELECT count(*) AS n FROM batch_attempts WHERE kind = 'look_up'")
    assert looked[0]["n"] == 0
    scene.desk.faults.clear()
    await scene.made(f"/orders/{order_id}:retry-failed", {})
    await scene.world.work()
    assert_once(scene.desk, 2)


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("after", [True, False])
async def test_a_worker_killed_in_the_middle_of_a_call_loses_and_doubles_nothing(
    scene: Scene, tmp_path: Path, after: bool, remembers: bool
) -> None:
    world, desk = scene.world, scene.desk
    desk.remembers = remembers
    desk.faults.append(Fault(after=after))
    await scene.consent()
    order_id = await scene.order(7)
    own = {"more_platforms": PACKAGES, "platform_depot_url": desk.url}
    async with worker_process(world, tmp_path / "worker.log", **own) as process:
        async with asyncio.timeout(PATIENCE):
            await desk.held.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    # Its claim expires, and another worker takes over.
    await world.work()
    assert_once(desk, 7)
    assert {call_id for call_id, _ in desk.calls} == {desk.calls[0][0]}
    expected = "registered" if remembers or not after else "already_registered"
    assert set((await scene.states(order_id)).values()) == {expected}


# --- its own settings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("REGISTRAR_PLATFORM_DEPOT_URI", "Extra inputs are not permitted"),
        ("REGISTRAR_PLATFORM_DEPOTT_URL", "there is no such platform"),
    ],
)
async def test_a_setting_that_no_platform_has_is_refused_at_the_start(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setenv(name, "https://depot.example")
    with pytest.raises(NoInstallation) as refused:
        async with world.another(more_platforms=(PACKAGES,)):
            pass
    assert str(refused.value).startswith(f"{name}: ")
    assert words in str(refused.value)


async def test_a_package_that_is_not_there_is_refused_at_the_start(world: World) -> None:
    with pytest.raises(NoInstallation) as refused:
        async with world.another(more_platforms=("tests.contract.nowhere",)):
            pass
    assert "REGISTRAR_MORE_PLATFORMS: 'tests.contract.nowhere'" in str(refused.value)

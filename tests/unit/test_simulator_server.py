"""The simulator behind its real server: what a client's socket sees when a connection is cut."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import uvicorn

from simulator.main import build
from simulator.samples import hardware_hash
from tests.unit.simulator_scene import Scene, new_id, open_scene, tuple_of


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """uvicorn with httptools and uvloop in a thread of its own."""
    config = uvicorn.Config(
        build(), port=0, loop="uvloop", http="httptools", ws="none", log_level="error", lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 45
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
async def scene(address: str) -> AsyncIterator[Scene]:
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=10) as client:
        await client.post("/control/reset", json={"seed": 1})
        yield await open_scene(client)


@pytest.mark.parametrize("mode", ["reset", "close", "truncate"])
@pytest.mark.parametrize(("phase", "jobs"), [("before", 0), ("after", 1)])
async def test_a_dropped_call_ends_in_a_transport_error(
    scene: Scene, mode: str, phase: str, jobs: int
) -> None:
    await scene.arm({"operation": "create", "kind": "drop", "phase": phase, "mode": mode})
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await scene.create([tuple_of("S1")])
    assert (await scene.control("GET", "totals"))["jobs"] == jobs
    assert [call["outcome"] for call in await scene.calls("create")] == [f"dropped_{phase}"]
    assert (await scene.get("/v1/customers")).status_code == 200


async def test_a_reset_reaches_the_client_as_one(scene: Scene, address: str) -> None:
    await scene.arm({"operation": "customers", "kind": "drop", "mode": "reset"})
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/customers HTTP/1.1\r\nHost: simulator\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_a_lost_answer_is_found_again_by_its_request_id(scene: Scene) -> None:
    request = new_id()
    await scene.arm({"operation": "create", "kind": "drop", "phase": "after"})
    with pytest.raises(httpx.TransportError):
        await scene.create([tuple_of("S1")], MS_RequestId=request)
    assert await scene.errors(await scene.create([tuple_of("S1")], MS_RequestId=request)) == [""]
    ledger = await scene.control("GET", "ledger")
    assert [device["submissions"] for device in ledger["devices"]] == [1]


@pytest.mark.parametrize("phase", ["before", "after"])
async def test_a_held_call_has_its_effect_although_the_client_went_away(scene: Scene, phase: str) -> None:
    await scene.arm({"operation": "create", "kind": "hold", "phase": phase})
    call = asyncio.create_task(scene.create([tuple_of("S1")]))
    await scene.held()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await scene.control("POST", "release")
    deadline = time.monotonic() + 45
    while time.monotonic() < deadline:
        (seen,) = await scene.calls("create")
        if seen["outcome"] != "open":
            break
        await asyncio.sleep(0.01)
    assert (seen["outcome"], seen["processed"]) == ("client_gone", True)
    assert (await scene.control("GET", "totals"))["devices_held"] == 1


async def test_a_full_batch_of_hashes_passes(scene: Scene) -> None:
    devices = [{"hardwareHash": hardware_hash(f"S{number}")} for number in range(1000)]
    assert await scene.errors(await scene.create(devices)) == [""] * 1000

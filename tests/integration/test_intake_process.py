"""Large bodies are processed in a separate process, whose answers equal the front's exactly."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from app.api.http.intake_relay import HANDED_OVER
from app.api.http.intake_server import IntakeServer, prepare
from app.kernel import metrics
from app.local.stack import free_port
from app.main import build
from app.runtime import Runtime
from app.serve import IntakeProcess, _Shared
from app.services.orders import acceptance
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.integration.test_processes import PATIENCE, until_ready
from tests.support.serving import serving
from tests.support.worker import registrar_process
from tests.support.world import Partner, World

JSON = {"Content-Type": "application/json"}
CHUNK = 65_536


@asynccontextmanager
async def intake_beside(world: World) -> AsyncIterator[IntakeServer]:
    """An intake server in this process; otherwise everything is as in production."""
    settings = world.runtime.settings
    app = build(settings)
    prepare(app)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def open_runtime() -> Runtime:
        return await Runtime.open(settings, process="intake")

    server = IntakeServer(app, theirs, open_runtime)
    serving = asyncio.create_task(server.serve())
    world.app.state.intake = Beside(0, ours, _Shared())
    try:
        yield server
    finally:
        del world.app.state.intake
        ours.close()
        await asyncio.wait_for(serving, PATIENCE)
        theirs.close()


class Beside(IntakeProcess):
    @property
    def is_there(self) -> bool:
        return True


@pytest_asyncio.fixture
async def intake(world: World) -> AsyncIterator[IntakeServer]:
    async with intake_beside(world) as server:
        yield server


def content_of(partner: Partner, size: int = 2 * HANDED_OVER, **fields: Any) -> bytes:
    order = {"customer_id": str(partner.customer_id), "reference": "L", "devices": [TUPLE]}
    return json.dumps(order | fields).encode().ljust(size)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


async def send(world: World, partner: Partner, content: Any, **headers: str) -> httpx.Response:
    return await world.client.post(
        "/v1/orders", headers={**partner.headers, **JSON, **headers}, content=content
    )


async def until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if found():
                return
            await asyncio.sleep(0.01)


def told(response: httpx.Response) -> tuple[int, dict[str, str], Any]:
    changing = ("date", "ratelimit", "content-length")
    headers = {name: value for name, value in response.headers.items() if name not in changing}
    return response.status_code, headers, response.json()


REFUSED: dict[str, dict[str, Any]] = {
    "validated": {"validate_only": True},
    "field unknown": {"colour": "red"},
    "fields wrong": {"devices": [{"model": 1, "line_ref": 2}] * 200},
    "customer unknown": {"customer_id": "00000000-0000-4000-8000-000000000001"},
    "row invalid": {"devices": [{"serial_number": "S"}], "on_invalid": "reject"},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_the_answer_is_the_one_of_a_front_alone(world: World, name: str) -> None:
    partner = await world.partner()
    content = content_of(partner, **REFUSED[name])
    given = {"X-Correlation-Id": "order-system-1", "Accept-Encoding": "identity"}
    here = await send(world, partner, content, **given)
    async with intake_beside(world) as intake:
        there = await send(world, partner, content, **given)
        in_pieces = await send(world, partner, pieces(content), **given)
        assert intake.taken == 2
    assert told(there) == told(in_pieces) == told(here)
    assert await world.count("orders") == 0


async def test_small_bodies_and_other_calls_stay_with_the_front(world: World, intake: IntakeServer) -> None:
    partner = await world.partner()
    for content in (content_of(partner, 10), pieces(content_of(partner, 60_000, reference="M"))):
        assert (await send(world, partner, content)).status_code == 201
    assert (await world.client.get("/v1/orders", headers=partner.headers)).status_code == 200
    assert intake.taken == 0


async def test_an_order_is_stored_once_and_its_key_remembers_the_answer(
    world: World, intake: IntakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    partner = await world.partner()
    given = {"Idempotency-Key": "k", "X-Correlation-Id": "order-system-1"}
    first = await send(world, partner, content_of(partner), **given)
    assert (first.status_code, first.headers["location"]) == (201, f"/v1/orders/{first.json()['id']}")
    again = await send(world, partner, content_of(partner), **given)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert again.json() == first.json()
    problem_of(await send(world, partner, content_of(partner)), 409, "reference_taken")
    other = content_of(partner, reference="other")
    problem_of(await send(world, partner, other, **given), 422, "idempotency_key_reused")
    assert (intake.taken, await world.count("orders")) == (4, 1)
    (order,) = await world.select("SELECT created_by FROM orders")
    assert order["created_by"] == partner.caller.key_id


async def test_what_is_too_complex_is_refused_while_it_arrives(world: World, intake: IntakeServer) -> None:
    partner, sent = await world.partner(), 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"devices":['
        while sent < 40_000_000:
            sent += CHUNK
            yield b"{}," * (CHUNK // 3)

    response = await send(world, partner, endless())
    problem_of(response, 422, "body_too_complex")
    assert response.headers["connection"] == "close"
    assert sent < 20_000_000
    assert intake.taken == 1


async def test_more_than_the_limit_is_refused_and_given_up(world: World, intake: IntakeServer) -> None:
    partner = await world.partner()
    path, content = f"/v1/orders/{partner.customer_id}:retry-failed", b'{"a":"'.ljust(600_000, b"x")
    response = await world.client.post(path, headers={**partner.headers, **JSON}, content=pieces(content))
    problem_of(response, 413, "body_too_large")
    assert intake.taken == 1
    for body in (content[:500_000], pieces(content[:500_000])):
        response = await world.client.post(path, headers={**partner.headers, **JSON}, content=body)
        problem_of(response, 400, "not_json")
    assert intake.taken == 3


async def test_an_unexpected_exception_is_a_problem_and_the_next_call_is_answered(
    world: World, intake: IntakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    partner = await world.partner()
    with monkeypatch.context() as broken:
        broken.setattr(acceptance, "accept", None)
        problem_of(await send(world, partner, content_of(partner)), 500, "internal")
    assert "unexpected_error" in caplog.text
    assert (await send(world, partner, content_of(partner))).status_code == 201


async def test_a_key_without_the_scope_hands_nothing_over(world: World, intake: IntakeServer) -> None:
    partner = await world.partner()
    response = await world.client.post(
        "/v1/orders", headers={**JSON, "Authorization": "Bearer wrong"}, content=content_of(partner)
    )
    problem_of(response, 401, "unauthenticated")
    assert intake.taken == 0


async def test_many_calls_go_over_at_the_same_time(world: World, intake: IntakeServer) -> None:
    partner, other = await world.partner(), await world.partner()
    answers = await asyncio.gather(
        *(
            send(world, whose, content_of(whose, reference=f"R{n}"))
            for n in range(6)
            for whose in (partner, other)
        )
    )
    assert [answer.status_code for answer in answers] == [201] * 12
    assert (intake.taken, await world.count("orders")) == (12, 12)


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing_behind(
    world: World, intake: IntakeServer
) -> None:
    partner = await world.partner()
    content = content_of(partner, 1_000_000)
    head = f"POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {partner.key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    async with serving(world) as (host, port):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(head.encode() + content[:300_000])
        await writer.drain()
        await until(lambda: intake.taken == 1)
        assert intake.working == 1
        writer.close()
        await until(lambda: intake.working == 0)
    assert await world.count("orders") == 0
    assert (await send(world, partner, content)).status_code == 201


async def test_a_call_that_is_not_taken_has_done_nothing_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.http.intake_relay.PATIENCE", 0.05)
    partner = await world.partner()
    ours, theirs = socket.socketpair()  # nobody reads from it
    ours.setblocking(False)
    with ours, theirs:
        world.app.state.intake = Beside(0, ours, _Shared())
        try:
            response = await send(world, partner, content_of(partner))
        finally:
            del world.app.state.intake
    found = problem_of(response, 503, "large_bodies_waiting")
    assert "Nothing has been done." in found["detail"]
    assert response.headers["retry-after"] == "5"
    assert await world.count("orders") == 0


async def test_the_front_does_the_work_itself_where_nothing_can_start_the_process_again(world: World) -> None:
    partner = await world.partner()
    ours, theirs = socket.socketpair()
    keeper = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    with ours, theirs:
        world.app.state.intake = gone = IntakeProcess(keeper.pid, ours, _Shared())
        try:
            await until(lambda: not gone.is_there)
            assert (await send(world, partner, content_of(partner))).status_code == 201
        finally:
            del world.app.state.intake


def test_what_another_process_counts_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> float:
        (line,) = [
            line
            for line in metrics.page()[0].decode().splitlines()
            if line.startswith('registrar_devices_accepted_total{validity="invalid"}')
        ]
        return float(line.rpartition(" ")[2])

    metrics.devices_accepted(valid=0, invalid=1)
    before = shown()
    with monkeypatch.context() as intake:
        intake.setattr(metrics, "_counted_here", [])
        metrics.devices_accepted(valid=0, invalid=3)
        counted = json.loads(json.dumps(metrics.take_counted()))
        assert metrics.take_counted() == []
    assert shown() == before
    metrics.add_counted(counted)
    assert shown() == before + 3


# --- real processes -------------------------------------------------------------------------------


def children_of(process: int) -> Iterator[int]:
    for number in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield int(number)


async def intake_of(front: int) -> int:
    async with asyncio.timeout(PATIENCE):
        while True:
            for keeper in children_of(front):
                for intake in children_of(keeper):
                    return intake
            await asyncio.sleep(0.02)


async def until_shown(client: httpx.AsyncClient, *lines: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            page = (await client.get("/metrics")).text
            if all(line in page for line in lines):
                return
            await asyncio.sleep(0.02)


async def test_a_killed_intake_process_loses_nothing_and_the_front_stays_ready(
    world: World, tmp_path: Path
) -> None:
    """A real SIGKILL while an order is being stored, and SIGTERM to the front while the next one is."""
    partner, port = await world.partner(), free_port()
    given = {**partner.headers, **JSON}
    content = content_of(partner, devices=[{**TUPLE, "serial_number": f"S{n}"} for n in range(2_000)])
    hold = text("SELECT 1 FROM customers WHERE id = :id FOR UPDATE")
    settings: dict[str, object] = {"api_port": port, "log_format": "json", "log_level": "INFO"}
    settings["shutdown_pause_s"] = 0
    log = tmp_path / "api.log"
    async with (
        registrar_process(world, log, "api", **settings) as front,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE) as client,
    ):
        await until_ready(str(client.base_url))
        killed = await intake_of(front.pid)
        async with world.runtime.system_transaction() as tx:
            await tx.session.execute(hold, {"id": partner.customer_id})
            sending = asyncio.create_task(client.post("/v1/orders", headers=given, content=content))
            await world.until_locked_out(within=PATIENCE)
            os.kill(killed, signal.SIGKILL)
            response = await sending
            problem_of(response, 503, "intake_interrupted")
            assert response.headers["retry-after"] == "5"
            assert (await client.get("/readyz")).status_code == 200
        again = await client.post("/v1/orders", headers=given, content=content)
        assert (again.status_code, again.json()["counts"]["total"]) == (201, 2_000), again.text
        assert await world.count("orders") == 1
        restarted = await intake_of(front.pid)
        assert restarted != killed
        await until_shown(
            client,
            "registrar_intake_restarts_total 1.0",
            'registrar_devices_accepted_total{validity="valid"} 2000.0',
            "registrar_intake_process_resident_memory_bytes",
        )
        async with world.runtime.system_transaction() as tx:
            await tx.session.execute(hold, {"id": partner.customer_id})
            last = content_of(partner, reference="last")
            sending = asyncio.create_task(client.post("/v1/orders", headers=given, content=last))
            await world.until_locked_out(within=PATIENCE)
            front.send_signal(signal.SIGTERM)
            os.kill(restarted, signal.SIGTERM)  # as a supervisor does that signals the whole group
        assert (await sending).status_code == 201
        assert await asyncio.wait_for(front.wait(), PATIENCE) == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(restarted, 0)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    events = [line["event"] for line in lines]
    (taken, _) = [line for line in lines if line["event"] == "order_accepted"]
    assert (taken["process"], taken["correlation_id"]) == ("intake", again.headers["x-correlation-id"])
    assert events.count("intake_process_ended") == 1
    assert events.count("intake_interrupted") == 1

"""The processes as a supervisor sees them: log lines, shutdown, and health."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.local.stack import free_port
from tests.support.worker import api_process, registrar_process, worker_process
from tests.support.world import World
from workers.alive import touch

PATIENCE = 60.0
"""Seconds that a process has to start, stop or answer; on an idle machine two are enough."""


async def until_ready(url: str, path: str = "/readyz") -> httpx.Response:
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(base_url=url, trust_env=False) as client:
        while True:
            try:
                response = await client.get(path)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if response.status_code == 200:
                return response
            await asyncio.sleep(0.05)


async def until_not_ready(client: httpx.AsyncClient) -> httpx.Response:
    async with asyncio.timeout(PATIENCE):
        while True:
            response = await client.get("/readyz")
            if response.status_code != 200:
                return response
            await asyncio.sleep(0.01)


async def until_there(path: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await asyncio.to_thread(path.exists):
                return
            await asyncio.sleep(0.05)


def lines(log: Path) -> list[dict[str, Any]]:
    """The log's lines; each must be JSON, including the first."""
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("command", ["registrar api", "uvicorn"])
async def test_every_line_of_an_api_process_is_json_like_the_rest(
    world: World, tmp_path: Path, command: str
) -> None:
    log, port = tmp_path / "api.log", free_port()
    settings: dict[str, object] = {"log_level": "INFO", "log_format": "json", "api_port": port}
    settings["shutdown_pause_s"] = 0.1  # its line comes from a signal
    process = (
        api_process(world, log, port, **settings)
        if command == "uvicorn"
        else registrar_process(world, log, "api", **settings)
    )
    async with process as running:
        await until_ready(f"http://127.0.0.1:{port}")
        running.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.wait(), PATIENCE)
    found = lines(log)
    for line in found:
        assert {"event", "level", "logger", "timestamp", "process"} <= line.keys()
        assert line["process"] == "api"
    unbounded = [line["event"] for line in found if line["level"] == "warning"]
    assert unbounded == (["connections_unbounded"] if command == "uvicorn" else [])
    said = [line["message"] for line in found if line["event"] == "server"]
    assert any("Uvicorn running on" in words for words in said), "its start"
    assert any("Finished server process" in words for words in said), "its stop"
    # One line per request: ours, with the correlation id.
    requests = [line for line in found if "/readyz" in json.dumps(line)]
    assert requests
    assert {line["event"] for line in requests} == {"request"}


async def test_a_port_that_is_taken_is_told_as_json(world: World, tmp_path: Path) -> None:
    log, port = tmp_path / "api.log", free_port()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with server, api_process(world, log, port, log_format="json") as running:
        assert await asyncio.wait_for(running.wait(), PATIENCE) != 0
    (wrong,) = [line for line in lines(log) if line["level"] == "error"]
    assert "address already in use" in wrong["message"].lower()


async def test_an_api_that_is_told_to_stop_is_not_ready_for_a_while_and_answers_still(
    world: World, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with api_process(world, tmp_path / "api.log", port, shutdown_pause_s=2) as running:
        assert (await until_ready(url)).json()["stopping"] is False
        running.send_signal(signal.SIGTERM)
        told = time.monotonic()
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            ready = await until_not_ready(client)
            assert (ready.json()["stopping"], ready.json()["database"]) == (True, True)
            assert (await client.get("/healthz")).status_code == 200
        # New connections are accepted during the pause.
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert (await client.get("/readyz")).status_code == 503
        await asyncio.wait_for(running.wait(), PATIENCE)
        assert time.monotonic() - told >= 2


async def test_a_second_signal_ends_the_pause(world: World, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with api_process(world, tmp_path / "api.log", port, shutdown_pause_s=600) as running:
        await until_ready(url)
        running.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            await until_not_ready(client)
        running.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.wait(), PATIENCE)


async def test_without_a_pause_it_stops_at_once(world: World, tmp_path: Path) -> None:
    port = free_port()
    async with api_process(world, tmp_path / "api.log", port) as running:
        await until_ready(f"http://127.0.0.1:{port}")
        running.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.wait(), PATIENCE)
    assert "stopping" not in (tmp_path / "api.log").read_text()


# --- workers --------------------------------------------------------------------------------------------


async def probe(world: World, tmp_path: Path, alive: Path) -> tuple[int, str]:
    log = tmp_path / "probe.log"
    # Neither the database nor Redis is used.
    away = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1"}
    settings = {"worker_alive_file": alive, "heartbeat_s": 1, **away}
    async with registrar_process(world, log, "worker", "--probe", **settings) as running:
        code = await asyncio.wait_for(running.wait(), PATIENCE)
    return code, log.read_text()


async def test_a_worker_can_be_asked_whether_it_is_alive(world: World, tmp_path: Path) -> None:
    alive = tmp_path / "worker.alive"
    code, words = await probe(world, tmp_path, alive)
    assert code == 1
    assert "No worker is alive here." in words
    async with worker_process(world, tmp_path / "worker.log", worker_alive_file=alive, heartbeat_s=1) as run:
        await until_there(alive)
        assert await probe(world, tmp_path, alive) == (0, "The worker is alive.\n")
        run.send_signal(signal.SIGTERM)
        await asyncio.wait_for(run.wait(), PATIENCE)
    assert not alive.exists(), "a worker that has stopped is not alive"


async def test_a_worker_that_shows_no_life_any_more_is_told(world: World, tmp_path: Path) -> None:
    alive = tmp_path / "worker.alive"
    touch(alive)
    assert (await probe(world, tmp_path, alive))[0] == 0
    long_ago = time.time() - 10
    os.utime(alive, (long_ago, long_ago))
    code, words = await probe(world, tmp_path, alive)
    assert code == 1
    assert "The worker has had no heartbeat for 1" in words


async def test_a_worker_without_databases_is_alive(world: World, tmp_path: Path) -> None:
    """Restarting it would not help."""
    alive = tmp_path / "worker.alive"
    settings = {"redis_url": "redis://127.0.0.1:1", "worker_alive_file": alive, "heartbeat_s": 1}
    async with worker_process(world, tmp_path / "worker.log", **settings):
        await until_there(alive)
        assert (await probe(world, tmp_path, alive))[0] == 0


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        touch(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()

"""`registrar api` and `registrar worker` on databases that they start themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.local.stack import ROOT, free_port
from tests.e2e.test_local_stack import alive, family, until
from tests.support.servers import copy_cluster

pytestmark = pytest.mark.timeout(180)


@contextmanager
def running(settings: dict[str, str], log: Path, command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", command],
            cwd=ROOT,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def settings(cluster: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine whose database is up to date."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRAR_")}
    found = {
        **inherited,
        "REGISTRAR_DATA_DIR": str(copy_cluster(cluster, tmp_path / "data")),
        "REGISTRAR_DURABLE": "false",
        "REGISTRAR_API_PORT": str(free_port()),
    }
    made = subprocess.run(
        [sys.executable, "-m", "app.cli", "migrate"], cwd=ROOT, env=found, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return found


def is_ready(settings: dict[str, str], path: str = "/readyz") -> bool:
    url = f"http://127.0.0.1:{settings['REGISTRAR_API_PORT']}{path}"
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_an_api_and_a_worker_share_the_databases_of_the_machine(
    settings: dict[str, str], tmp_path: Path
) -> None:
    with running(settings, tmp_path / "api.log", "api") as api:
        until(lambda: is_ready(settings), "an API on databases that it started")
        with running(settings, tmp_path / "worker.log", "worker") as worker:
            until(lambda: is_ready(settings, "/readyz?all"), "a worker on the same databases")
            below = family(worker.pid)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0, "the worker's own exit code"
            assert alive(below) == set()
        assert is_ready(settings), "they end with the command that started them"
        below = family(api.pid)
        api.send_signal(signal.SIGINT)
        assert api.wait(30) == 0, "the API's own exit code"
        assert alive(below) == set()


def test_nothing_outlives_a_command_that_is_killed(settings: dict[str, str], tmp_path: Path) -> None:
    with running(settings, tmp_path / "worker.log", "worker") as worker:
        until(lambda: "worker_started" in (tmp_path / "worker.log").read_text(), "a running worker")
        below = family(worker.pid)
        assert len(below) > 2, "the worker, PostgreSQL and Valkey"
        worker.kill()
        until(lambda: not alive(below), "the end of all of them")

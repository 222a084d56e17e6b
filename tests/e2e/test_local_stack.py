"""`make up` as a person meets it: real processes, real signals, and nothing that stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.domain.api_key import PATTERN
from app.local.processes import Kept, StackFailed
from app.local.stack import ROOT, Stack, free_port
from tests.support.servers import copy_cluster

pytestmark = pytest.mark.timeout(180)

PATIENCE = 60.0


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds:g} s"
        time.sleep(0.05)


def family(pid: int) -> set[int]:
    """The processes below this one."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listed.splitlines())}
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    """Those that still run: neither gone nor dead and waiting to be collected."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    states = {int(pid): state for pid, state in map(str.split, listed.splitlines())}
    return {pid for pid in pids if not states.get(pid, "Z").startswith("Z")}


class Terminal:
    """`registrar up` in a session of its own, with what it prints."""

    def __init__(self, data_dir: Path, *arguments: str, **settings: str) -> None:
        self.output = data_dir.with_name("output")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRAR_")}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "up", "--data-dir", str(data_dir), *arguments],
                cwd=ROOT,
                env=inherited | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_until_running(self) -> str:
        until(lambda: "Ctrl-C stops it" in self.text or self.process.poll() is not None, "a running service")
        assert self.process.poll() is None, self.text
        return self.text

    def end(self, number: int, seconds: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """None of them outlives its test."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.process.kill()
        terminal.process.wait(10)


def ready(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.api_url}/readyz?all", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_every_part_runs_in_a_session_of_its_own(stack: Stack) -> None:
    assert list(stack.processes) == ["valkey", "postgres", "simulator", "api", "worker-1", "worker-2"]
    pids = [part.pid for part in stack.processes.values()]
    assert None not in pids
    assert {os.getsid(pid or 0) for pid in pids} == set(pids)
    assert ready(stack)


@pytest.mark.parametrize("name", ["worker-1", "api", "simulator", "valkey", "postgres"])
def test_a_part_that_is_killed_is_started_again(stack: Stack, name: str) -> None:
    part: Kept = stack.processes[name]
    before, starts = part.pid, part.starts
    stack.kill(name)
    until(lambda: part.starts > starts and part.pid not in (None, before), f"another {name}")
    until(lambda: ready(stack), "readiness")
    (said,) = [line for line in stack.log.read_text().splitlines() if f" {name} " in line]
    assert "it is started again in 0.2 s" in said
    assert str(part.log) in said


def test_the_command_line_speaks_to_the_stack(stack: Stack) -> None:
    stack.registrar("partner", "create", "Contoso", "--role", "direct_bill")
    said = stack.registrar(
        "api-key", "create", "--partner", "Contoso", "--name", "test", "--scope", "operator", "--json"
    ).stdout
    key = re.search(PATTERN, said)
    assert key is not None
    me = httpx.get(
        f"{stack.api_url}/v1/me", headers={"Authorization": f"Bearer {key[0]}"}, trust_env=False
    ).json()
    assert "Contoso" in str(me)


def test_big_files_wait_in_the_data_directory_and_not_in_memory(stack: Stack) -> None:
    assert stack.environment["REGISTRAR_SPOOL_DIR"] == str(stack.data_dir / "spool")


def test_a_second_stack_on_the_same_data_is_refused(stack: Stack) -> None:
    with pytest.raises(StackFailed, match=f"already runs with the data directory .*{os.getpid()}"):
        Stack.start(stack.data_dir, sandbox=True)
    assert ready(stack)


def test_a_start_that_fails_says_why_and_leaves_nothing(stack: Stack, tmp_path: Path, cluster: Path) -> None:
    def others() -> set[int]:
        parts = {part.pid or 0 for part in stack.processes.values()}
        return family(os.getpid()) - parts - {pid for part in parts for pid in family(part)}

    data_dir = copy_cluster(cluster, tmp_path / "data")
    port, before = free_port(), others()
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", port))
        occupant.listen()
        with pytest.raises(StackFailed, match=r"(?s)^api ended with status \d+\..*taken by another"):
            Stack.start(data_dir, sandbox=False, port=port, durable=False)
    assert alive(others() - before) == set()


def test_a_person_gets_from_nothing_to_a_registered_device_and_back_to_nothing(
    tmp_path: Path, terminals: list[Terminal]
) -> None:
    port = free_port()
    arguments = ("--sandbox", "--port", str(port))
    terminal = Terminal(tmp_path / "data", *arguments)
    terminals.append(terminal)
    said = terminal.wait_until_running()
    key = re.search(r"^export REGISTRAR_API_KEY=(rgstr_\w+)$", said, re.MULTILINE)
    assert key is not None
    assert f"http://127.0.0.1:{port}/docs" in said
    assert f"\nexport REGISTRAR_API_URL=http://127.0.0.1:{port}\n" in said
    exports = "\n".join(re.findall(r"^export .*$", said, re.MULTILINE))
    listed = subprocess.run(
        ["sh", "-eu", "-c", f'{exports}\n"$0" -m app.cli customers --json', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(listed.stdout) == []
    assert max(len(line) for line in said.splitlines() if not line.startswith("CONN")) < 200

    lines = said[said.index("API=http") :]
    pasted = subprocess.run(
        ["sh", "-eu", "-c", lines], capture_output=True, text=True, timeout=60, check=True
    )
    assert pasted.stderr == ""
    order_id = re.search(r'"id":"([^"]+)"', pasted.stdout)
    assert order_id is not None, pasted.stdout
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}/v1",
        headers={"Authorization": f"Bearer {key[1]}"},
        trust_env=False,
        timeout=30,
    )
    with client:
        until(
            lambda: client.get(f"/orders/{order_id[1]}").json()["state"] == "completed", "a completed order"
        )

        children = family(terminal.process.pid)
        assert len(children) > 4
        assert terminal.end(signal.SIGINT, seconds=15) == 0
        assert alive(children) == set()
        assert terminal.text.rstrip().endswith("Stopped.")

        # The next day: the simulator has forgotten everything, the connection works all the same.
        again = Terminal(tmp_path / "data", *arguments)
        terminals.append(again)
        said = again.wait_until_running()
        assert key[1] not in said
        assert "api-key create" in said
        (connection,) = client.get("/connections").json()["items"]
        assert client.post(f"/connections/{connection['id']}:check").json()["ok"] is True

    children = family(again.process.pid)
    assert len(children) > 4
    again.end(signal.SIGKILL)
    until(lambda: not alive(children), "the end of every process of a killed supervisor")


def test_a_stop_in_the_middle_of_the_start_leaves_nothing(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path / "data", "--port", str(free_port()))
    terminals.append(terminal)
    log = tmp_path / "data/logs/api.log"
    until(log.exists, "the start of the API")
    children = family(terminal.process.pid)
    assert terminal.end(signal.SIGTERM) == 0
    assert alive(children) == set()
    assert "Registrar is running" not in terminal.text


def refused(tmp_path: Path, *arguments: str, **settings: str) -> str:
    terminal = Terminal(tmp_path / "data", *arguments, **settings)
    assert terminal.process.wait(30) == 1
    return terminal.text


def test_a_taken_port_is_told_in_words(tmp_path: Path) -> None:
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        port = occupant.getsockname()[1]
        said = refused(tmp_path, "--port", str(port))
    assert said.splitlines()[0] == f"Port {port} is taken by another program. Choose another port:"
    assert f"REGISTRAR_API_PORT={port + 1} make up" in said
    assert not (tmp_path / "data").exists()


def test_a_second_start_says_that_the_port_is_registrars_own(stack: Stack, tmp_path: Path) -> None:
    port = stack.api_url.rpartition(":")[2]
    here = Terminal(stack.data_dir, "--port", port)
    assert here.process.wait(PATIENCE) == 1
    holder = f"with the data directory {stack.data_dir} (process {os.getpid()})"
    assert f"Registrar already runs {holder}" in here.text
    elsewhere = refused(tmp_path, "--port", port)
    assert f"Port {port} is taken by another Registrar, with another data directory." in elsewhere
    served = subprocess.run(
        [sys.executable, "-m", "app.cli", "api"],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert served.returncode == 1
    assert f"Port {port} of 127.0.0.1 is taken by another Registrar." in served.stderr


def test_wrong_settings_are_told_by_name_and_without_their_value(tmp_path: Path) -> None:
    said = refused(tmp_path, REGISTRAR_LEASE_S="10")
    assert "REGISTRAR_LEASE_S" in said
    assert "Traceback" not in said
    said = refused(tmp_path, REGISTRAR_LEASE="10")
    assert said.strip() == "REGISTRAR_LEASE: there is no such setting; did you mean REGISTRAR_LEASE_S?"
    assert "hush" not in refused(tmp_path, REGISTRAR_API_PORT="hush", REGISTRAR_SECRET_KEYS="hush")


def test_a_sandbox_and_a_real_installation_never_share_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/sandbox.json").touch()
    assert "must not reach Microsoft" in refused(tmp_path)
    (tmp_path / "data/sandbox.json").unlink()
    (tmp_path / "data/postgres").mkdir()
    assert "must not reach the simulator" in refused(tmp_path, "--sandbox")

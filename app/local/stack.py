"""All of Registrar on one machine: databases, migrations, API, workers and, in a sandbox, the simulator.

`registrar up`, the demonstration and the tests run a `Stack`. Its parts are the commands that an operator
would run. Each has a session and a log of its own and is kept running until the stack is closed. Nothing
outlives the process that started it.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from app.kernel.child_processes import die_with_parent
from app.kernel.settings import Settings, load
from app.local.child import end_of
from app.local.embedded import Postgres, Server, Valkey
from app.local.processes import Kept, KeptProgram, KeptServer, Program, Say, StackFailed

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
LOCK = "stack.lock"
"""A file in the data directory that a running stack locks. Its process id is in it."""
READY_SECONDS = 60.0  # a first start on a slow disk; usually two or three
MIGRATION_SECONDS = 600.0
API_PATIENCE = 22.0  # `registrar api` gives calls 20 s to finish
WORKER_PATIENCE = 7.0  # beside the step: a worker's lanes begin no step after 2 s
SIMULATOR_PATIENCE = 3.0
UNUSUAL_PORTS = range(20000, 32000)  # below those the system gives to outgoing connections


def free_port() -> int:
    """A port on which nothing listens. It stays free for restarts: the system assigns none of this range."""
    for port in random.SystemRandom().sample(UNUSUAL_PORTS, 200):
        if is_free(port):
            return port
    raise StackFailed(f"There is no free port from {UNUSUAL_PORTS.start} to {UNUSUAL_PORTS.stop - 1}.")


def is_free(port: int) -> bool:
    """Whether a server can listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, for quick restarts
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def stack_in(data_dir: Path) -> str | None:
    """The process id of the stack that runs on this data directory. None if none does."""
    try:
        lock = os.open(data_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(lock, 20, 0).decode().strip()
    else:
        return None
    finally:
        os.close(lock)


def already_runs(data_dir: Path, process: str) -> str:
    return (
        f"Registrar already runs with the data directory {data_dir} (process {process}).\n"
        "Stop that one first, or choose another directory with REGISTRAR_DATA_DIR (--data-dir)."
    )


class Stack:
    """The whole service, running. A context manager; `close()` stops all of it."""

    api_url: str
    simulator_url: str | None
    environment: dict[str, str]
    """A whole environment in which `registrar` commands call this stack."""
    settings: Settings
    processes: dict[str, Kept]
    """By name, in starting order: postgres, valkey, simulator, api, worker-1, worker-2, ..."""

    def __init__(self, data_dir: Path, *, log: Path | None, say: Say | None, hurry: threading.Event) -> None:
        self.data_dir = data_dir.absolute()
        self.logs = self.data_dir / "logs"
        self.log = log or self.logs / "stack.log"
        self.processes = {}
        self._say, self._hurry = say, hurry
        self._lock: int | None = None

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        sandbox: bool,
        workers: int = 1,
        port: int | None = None,
        simulator_port: int | None = None,
        durable: bool = True,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        say: Say | None = None,
        on_simulator: Callable[[Stack], None] | None = None,
        hurry: threading.Event | None = None,
    ) -> Self:
        """Starts everything. Returns when every part runs and the API is ready.

        `environment` overrides this process's. REGISTRAR_DATABASE_URL or REGISTRAR_REDIS_URL in it takes
        the place of an embedded server. Without a port it takes a free one. Deaths and restarts are written
        to `log` (else logs/stack.log in the data directory) and to `say`. `on_simulator` is called whenever
        the simulator has started with an empty memory: before the API starts and, in another thread, after
        each restart. Setting `hurry` ends the wait in `close()`. Raises StackFailed, EmbeddedUnavailable
        or SettingsRefused; nothing runs then.
        """
        stack = cls(data_dir, log=log, say=say, hurry=hurry or threading.Event())
        try:
            stack._reserve()
            stack._configure(sandbox, port, simulator_port, dict(environment or {}))
            stack._start_databases(durable)
            stack._migrate()
            if stack.simulator_url is not None:
                stack._start_simulator(stack.simulator_url, on_simulator)
            stack._start_service(workers)
        except BaseException:
            stack.close()
            raise
        return stack

    @property
    def database_url(self) -> str:
        assert self.settings.database_url is not None
        return self.settings.database_url

    @property
    def redis_url(self) -> str:
        assert self.settings.redis_url is not None
        return self.settings.redis_url

    @property
    def workers(self) -> list[Kept]:
        return [part for name, part in self.processes.items() if name.startswith("worker-")]

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Sends a signal to a part. Raises ProcessLookupError while it does not run."""
        self.processes[name].kill(number)

    def registrar(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs `registrar ARGUMENTS` on this stack and captures its output as text.

        Options are those of subprocess.run. Raises CalledProcessError for an exit code other than 0, unless
        `check=False` is given.
        """
        options = {"capture_output": True, "text": True, "check": True, "timeout": 120, **options}
        command = [sys.executable, "-m", "app.cli", *arguments]
        result: subprocess.CompletedProcess[str] = subprocess.run(
            command, cwd=ROOT, env=self.environment, **options
        )
        return result

    def close(self) -> None:
        """Stops the API, the workers (after their step), the simulator and the databases, in this order."""
        workers = [part.name for part in self.workers]
        for name in ("api", *workers, "simulator", "valkey", "postgres"):
            if name not in self.processes:
                continue
            if name in workers[:1]:
                for part in self.workers:
                    part.dismiss()  # so that all finish their steps at the same time
            self.processes[name].stop(self._hurry)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- Starting, in order ---------------------------------------------------------------------------

    def _reserve(self) -> None:
        """Locks the data directory: two stacks on one would stop each other's databases."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        lock = os.open(self.data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode().strip()
            os.close(lock)
            raise StackFailed(already_runs(self.data_dir, holder)) from None
        os.pwrite(lock, f"{os.getpid():<20}".encode(), 0)
        self._lock = lock

    def _configure(
        self, sandbox: bool, port: int | None, simulator_port: int | None, given: dict[str, str]
    ) -> None:
        port = port or free_port()
        self.api_url = f"http://{HOST}:{port}"
        self.simulator_url = f"http://{HOST}:{simulator_port or free_port()}" if sandbox else None
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self.simulator_url is not None:
            self.environment |= {
                "REGISTRAR_PARTNER_CENTER_URL": self.simulator_url,
                "REGISTRAR_LOGIN_URL": self.simulator_url,
                "REGISTRAR_WEBHOOK_ALLOW_HTTP": "true",
                "REGISTRAR_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            }
        self.environment |= given
        self.environment |= {
            "REGISTRAR_DATA_DIR": str(self.data_dir),
            "REGISTRAR_API_HOST": HOST,
            "REGISTRAR_API_PORT": str(port),
        }
        # The programs get URLs, so their settings do not show that the database is embedded.
        self.environment.setdefault("REGISTRAR_SPOOL_DIR", str(self.data_dir / "spool"))
        self.settings = load(self.environment)

    def _start_databases(self, durable: bool) -> None:
        servers: list[tuple[str, str | None, type[Server]]] = [
            ("REGISTRAR_REDIS_URL", self.settings.redis_url, Valkey),
            ("REGISTRAR_DATABASE_URL", self.settings.database_url, Postgres),
        ]
        for key, url, kind in servers:
            if not url:
                kept = KeptServer(kind(self.data_dir, durable=durable), self._tell)
                self.processes[kept.name] = kept
                kept.begin()
                self.environment[key] = kept.server.url
        self.settings = load(self.environment)

    def _migrate(self) -> None:
        log = self.logs / "migrate.log"
        with log.open("wb") as output:
            done = subprocess.run(
                self._command("migrate"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self.environment,
                start_new_session=True,
                preexec_fn=die_with_parent(),
                timeout=MIGRATION_SECONDS,
                check=False,
            )
        if done.returncode != 0:
            raise StackFailed(f"The database could not be migrated.{end_of(log)}")

    def _start_simulator(self, url: str, on_simulator: Callable[[Stack], None] | None) -> None:
        arguments = (
            *(sys.executable, "-m", "uvicorn", "simulator.main:app", "--host", HOST),
            *("--port", url.rpartition(":")[2], "--no-access-log", "--timeout-graceful-shutdown", "1"),
        )
        ours = {key: value for key, value in self.environment.items() if not key.startswith("REGISTRAR_")}

        def set_the_scene() -> None:
            try:
                self._wait_until_ok("simulator", f"{url}/control/clock")
                if on_simulator is not None:
                    on_simulator(self)
            except (StackFailed, httpx.HTTPError, OSError) as error:
                self._tell(f"the simulator has restarted and could not be set up again: {error}")

        self._run("simulator", arguments, SIMULATOR_PATIENCE, environment=ours, after_restart=set_the_scene)
        self._wait_until_ok("simulator", f"{url}/control/clock")
        if on_simulator is not None:
            on_simulator(self)

    def _start_service(self, workers: int) -> None:
        self._run("api", self._command("api"), API_PATIENCE + self.settings.shutdown_pause)
        for number in range(1, workers + 1):
            name, patience = f"worker-{number}", WORKER_PATIENCE + self.settings.step_timeout_s
            alive = {"REGISTRAR_WORKER_ALIVE_FILE": str(self.data_dir / f"{name}.alive")}
            self._run(name, self._command("worker"), patience, environment=self.environment | alive)
        self._wait_until_ok("api", f"{self.api_url}/readyz?all")
        for part in self.processes.values():
            if isinstance(part, KeptProgram):
                part.keep()

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "app.cli", *arguments)

    def _run(
        self,
        name: str,
        arguments: tuple[str, ...],
        patience: float,
        *,
        environment: Mapping[str, str] | None = None,
        after_restart: Callable[[], None] | None = None,
    ) -> None:
        program = Program(
            name, arguments, environment or self.environment, ROOT, self.logs / f"{name}.log", patience
        )
        self.processes[name] = kept = KeptProgram(program, self._tell, after_restart=after_restart)
        kept.begin()

    def _wait_until_ok(self, name: str, url: str) -> None:
        part = self.processes[name]
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(trust_env=False, timeout=5) as client:
            while True:
                try:
                    answer = client.get(url)
                    if answer.status_code == 200:
                        return
                    reason = f"answers {answer.status_code}: {answer.text[:500]}"
                except httpx.TransportError as error:
                    reason = str(error) or type(error).__name__
                for other in self.processes.values():
                    other.check()
                if time.monotonic() > deadline:
                    raise StackFailed(
                        f"{name} is not ready after {READY_SECONDS:g} s ({reason}).{end_of(part.log)}"
                    )
                time.sleep(0.05)

    def _tell(self, line: str) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n")
        if self._say is not None:
            self._say(line)

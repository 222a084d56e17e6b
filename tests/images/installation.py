"""An installation as compose.yaml describes it: starts its services in order, inspects and stops them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.images.compose import Service
from tests.images.podman import Podman
from tests.images.servers import Postgres, Redis, Server

STAND_INS: Mapping[str, type[Postgres] | type[Redis]] = {"postgres": Postgres, "valkey": Redis}
PATIENCE = 90.0


@dataclass(frozen=True)
class Stopped:
    """How a container ended after `podman stop`."""

    exit_status: int
    seconds: float
    grace_s: int


@dataclass
class Installation:
    """Services of compose.yaml, by name, and the containers and servers that run for them."""

    services: Mapping[str, Service]
    env_file: Path
    place: Path
    podman: Podman
    servers: dict[str, Postgres | Redis] = field(default_factory=dict)
    containers: dict[str, Service] = field(default_factory=dict)

    def up(self) -> None:
        """Start every service whose conditions hold, until all have been started."""
        waiting = dict(self.services)
        while waiting:
            ready = [s for s in waiting.values() if not waiting.keys() & s.waits_for.keys()]
            assert ready, f"{', '.join(waiting)} wait for each other"
            for service in ready:
                for name, condition in service.waits_for.items():
                    self._await(name, condition)
                self._start(service)
                del waiting[service.name]

    def command(self, service: str, *arguments: str) -> str:
        """`docker compose run --rm SERVICE ARGUMENTS`."""
        called = self.services[service]
        return self.podman.run(
            f"{service}-run",
            called.image,
            called.options(self.env_file),
            arguments,
            "--rm",
            "--no-healthcheck",
        )

    def await_health(self, name: str) -> None:
        """Return once the healthcheck of a container succeeds."""
        wait_until(f"{name} is healthy", lambda: self._is_healthy(name))

    def stop(self, name: str) -> Stopped:
        """Send SIGTERM; and SIGKILL, when the service's grace is over."""
        grace = self.containers[name].grace_s
        begun = time.monotonic()
        self.podman("stop", "--time", str(grace), name)
        seconds = time.monotonic() - begun
        return Stopped(int(self.podman.inspect(name)["State"]["ExitCode"]), seconds, grace)

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{self.podman.log_of(name)}" for name in self.containers)

    def down(self) -> None:
        for name in reversed(self.containers):
            self.podman("rm", "--force", "--time", "0", "--volumes", name)
        self.podman("volume", "prune", "--force")
        for server in self.servers.values():
            server.stop()

    def _start(self, service: Service) -> None:
        stand_in = STAND_INS.get(service.name)
        if stand_in is not None:
            self.servers[service.name] = stand_in(service, self.place / service.name)
            return
        for number in range(1, service.replicas + 1):
            name = service.name if service.replicas == 1 else f"{service.name}-{number}"
            self.containers[name] = service
            options = service.options(self.env_file)
            self.podman.run(name, service.image, options, service.command, "--detach")

    def _await(self, name: str, condition: str) -> None:
        match condition:
            case "service_healthy":
                wait_until(f"{name} is healthy", lambda: self._is_healthy(name))
            case "service_completed_successfully":
                status = int(self.podman("wait", name))
                assert status == 0, f"{name} ended with {status}:\n{self.podman.log_of(name)}"
            case _:
                raise AssertionError(f"{name}: {condition} is not known here")

    def _is_healthy(self, name: str) -> bool:
        server: Server | None = self.servers.get(name)
        if server is not None:
            return server.is_healthy()
        running = self.podman.inspect(name)["State"]["Running"]
        assert running, f"{name} has ended:\n{self.podman.log_of(name)}"
        return self.podman.is_healthy(name)


@contextmanager
def running(installation: Installation) -> Iterator[Installation]:
    """Starts the installation, and removes all of it at the end. A failure to start shows every log."""
    try:
        try:
            installation.up()
        except Exception as error:
            error.add_note(installation.logs())
            raise
        yield installation
    finally:
        installation.down()


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not so after {PATIENCE:g} s: {what}"
        time.sleep(0.2)

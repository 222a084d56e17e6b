"""Debian's PostgreSQL and Redis in place of the images that compose.yaml pulls.

They get from compose.yaml what Compose would give to those images: the configuration `database.sh`, the
command, the environment and the healthcheck, word for word.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.images.compose import DEPLOY, Service


class Server:
    """A server process of this machine that stands in for one service."""

    def __init__(self, service: Service, place: Path) -> None:
        self._check = service.health_command
        self._environment = {**os.environ, **service.keys.get("environment", {})}
        self.place = place
        place.mkdir(mode=0o711)

    def is_healthy(self) -> bool:
        """Whether the service's own healthcheck succeeds, run beside the server."""
        assert self._check is not None
        return subprocess.run(self._check, env=self._environment, capture_output=True).returncode == 0

    def _run(self, *command: str, user: str = "root", cwd: str = "/", file: Path | None = None) -> None:
        subprocess.run(
            ["runuser", "-u", user, "--", *command],
            env=self._environment,
            cwd=cwd,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=100,
        )


class Postgres(Server):
    """A new cluster at PostgreSQL's own port, with the login and the database that database.sh makes."""

    def __init__(self, service: Service, place: Path) -> None:
        super().__init__(service, place)
        newest = max(Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name))
        self._environment["PATH"] = f"{newest / 'bin'}:{self._environment['PATH']}"
        self._environment["PGHOST"] = str(place)
        os.environ["PATH"] = self._environment["PATH"]  # for the healthcheck's own program
        self._cluster = place / "cluster"
        subprocess.run(["chown", "postgres", place], check=True)
        self._run(
            *(
                "initdb",
                "--pgdata",
                str(self._cluster),
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
            ),
            *("--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"),
            user="postgres",
        )
        settings = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={place} -c fsync=off"
        self._control("--wait", "--log", str(place / "log"), "--options", settings, "start")
        # As the image's entry point runs a file that is not executable: in its own shell, ended by errors.
        self._run(
            "bash", "-c", 'set -Eeo pipefail; . "$1"', "bash", str(DEPLOY / "database.sh"), user="postgres"
        )

    def stop(self) -> None:
        self._control("--mode=immediate", "--wait", "stop")

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "--pgdata", str(self._cluster), *arguments, user="postgres")


class Redis(Server):
    """Redis, under Valkey's names: it takes the same command line."""

    def __init__(self, service: Service, place: Path) -> None:
        super().__init__(service, place)
        for name in ("server", "cli"):
            found = subprocess.run(
                ["sh", "-c", f"command -v redis-{name}"], capture_output=True, text=True, check=True
            )
            (place / f"valkey-{name}").symlink_to(found.stdout.strip())
        self._environment["PATH"] = f"{place}:{self._environment['PATH']}"
        with (place / "log").open("wb") as log:
            self._process = subprocess.Popen(
                service.command, cwd=place, env=self._environment, stdout=log, stderr=log
            )

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=30)

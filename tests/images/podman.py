"""podman, with the store that build.sh has filled."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOSTS = ("postgres", "valkey", "simulator")
"""The names by which services of compose.yaml find each other: here they are all one address."""
LIMITS = ("--ulimit", "nofile=10000:10000", "--ulimit", "nproc=1024:1024")
"""podman's own defaults are above what a machine without CAP_SYS_RESOURCE may set."""


class PodmanFailed(Exception):
    """podman, or what it ran, ended with another status than 0."""


@dataclass(frozen=True)
class Podman:
    """Runs containers in the network name space of this process."""

    work: Path
    cgroup: str

    def __call__(self, *arguments: str) -> str:
        """Run one podman command and return its output."""
        done = self._done(*arguments)
        if done.returncode != 0:
            raise PodmanFailed(
                f"podman {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def _done(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *("podman", "--root", str(self.work / "store"), "--runroot", str(self.work / "run")),
                *("--runtime", "runc", "--cgroup-manager", "cgroupfs", *arguments),
            ],
            env={**os.environ, "DISABLE_HC_SYSTEMD": "true"},  # healthchecks run when they are asked for
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,  # more than the longest grace
            check=False,
        )

    def run(self, name: str, image: str, options: Sequence[str], command: Sequence[str], *how: str) -> str:
        """`podman run`; `how` is --detach, or --rm for a command that is waited for."""
        places = [option for host in HOSTS for option in ("--add-host", f"{host}:127.0.0.1")]
        cgroup = ("--cgroup-parent", f"/{self.cgroup}")
        return self(
            *(
                "run",
                *how,
                "--replace",
                "--pull",
                "never",
                "--name",
                name,
                "--network",
                "host",
                *places,
                *LIMITS,
                *cgroup,
            ),
            *(*options, f"localhost/{image}", *command),
        )

    def inspect(self, name: str) -> Mapping[str, Any]:
        (found,) = json.loads(self("inspect", "--type", "container", name))
        return dict(found)

    def is_healthy(self, name: str) -> bool:
        """Whether the container's healthcheck, asked now, succeeds."""
        return self._done("healthcheck", "run", name).returncode == 0

    def log_of(self, name: str) -> str:
        done = self._done("logs", "--tail", "40", name)
        return done.stdout + done.stderr

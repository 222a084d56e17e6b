"""Checks of every container, whichever installation it belongs to."""

from __future__ import annotations

from pathlib import Path

from tests.images.installation import Installation
from tests.images.podman import Podman

USER = "10001"
WRITE = """
import pathlib, sys
for place in sys.argv[1:]:
    try:
        pathlib.Path(place, "written").write_text("x")
    except OSError as error:
        print(place, error.strerror, sep=": ")
"""
PLACES = ("/", "/etc", "/home", "/opt/registrar", "/srv/registrar", "/usr/local/bin", "/var/lib")


def assert_is_a_user_without_powers(podman: Podman, name: str) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in podman("exec", name, "cat", "/proc/1/status").splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == status["Gid"].split() == [USER] * 4, name
    assert {key: int(status[key], 16) for key in ("CapPrm", "CapEff", "CapBnd")} == {
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
    }
    assert status["NoNewPrivs"].strip() == "1"


def assert_root_is_read_only(podman: Podman, name: str) -> None:
    """The kernel says so of the mount, and to root too, whom permissions would not stop."""
    mounts = [line.split() for line in podman("exec", name, "cat", "/proc/1/mounts").splitlines()]
    (options,) = [mount[3].split(",") for mount in mounts if mount[1] == "/"]
    assert "ro" in options, name
    written = podman("exec", "--user", "0", name, "python", "-c", WRITE, *PLACES)
    assert written.splitlines() == [f"{place}: Read-only file system" for place in PLACES]
    assert podman("exec", name, "python", "-c", WRITE, "/tmp") == ""  # noqa: S108


def assert_stops_within_its_grace(installation: Installation, name: str) -> None:
    stopped = installation.stop(name)
    assert stopped.exit_status == 0, f"{name} ended with {stopped}:\n{installation.podman.log_of(name)}"
    assert stopped.seconds < stopped.grace_s, name


def files_of(podman: Podman, name: str) -> set[Path]:
    """Every file below the directory of the image's own code, relative to it."""
    found = podman("exec", name, "find", ".", "-type", "f").splitlines()
    return {Path(line) for line in found}

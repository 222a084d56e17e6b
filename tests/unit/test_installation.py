"""Commands that may create an installation. Those that only read leave a directory as it is."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from app.kernel.secrets import NO_KEY, Place, SecretError, Secrets
from app.kernel.settings import Settings, load
from app.local.databases import require_installation
from app.runtime import NoInstallation, Purpose
from tests.architecture.source import ROOT
from tests.support.servers import Servers, copy_cluster

LOOKING = {
    "registrar partner list": ("-m", "app.cli", "partner", "list"),
    "registrar partner create": ("-m", "app.cli", "partner", "create", "P", "--role", "oem"),
    "registrar api-key list": ("-m", "app.cli", "api-key", "list", "--partner", "P"),
    "registrar api-key create": (
        "-m",
        "app.cli",
        "api-key",
        "create",
        "--partner",
        "P",
        "--name",
        "n",
        "--scope",
        "operator",
    ),
    "registrar api-key revoke": ("-m", "app.cli", "api-key", "revoke", "0a1b2c3d", "--partner", "P"),
    "registrar databases": ("-m", "app.cli", "databases"),
    "registrar api": ("-m", "app.cli", "api"),
    "registrar worker": ("-m", "app.cli", "worker"),
}
SERVERS = {
    "uvicorn": (("-m", "uvicorn", "--factory", "app.main:build", "--port", "1"), 3),  # uvicorn's own code
    "the API": (("-m", "app.serve"), 1),
    "the worker": (("-m", "workers.main"), 1),
}
"""The programs behind the commands, with the code they end with. They start no databases."""
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", list(LOOKING))
def test_in_an_empty_directory_nothing_is_made(name: str, tmp_path: Path) -> None:
    done = run(tmp_path, *LOOKING[name])
    assert done.returncode == 1
    assert "There is no installation" in done.stderr
    assert "registrar " in done.stderr  # what makes one
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(SERVERS))
def test_a_server_by_itself_asks_for_the_addresses_of_its_databases(name: str, tmp_path: Path) -> None:
    arguments, code = SERVERS[name]
    done = run(tmp_path, *arguments)
    assert done.returncode == code
    assert "Set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL." in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_command_on_a_database_elsewhere_makes_no_key_and_no_valkey(
    tmp_path: Path, servers: Servers, database_url: str
) -> None:
    done = run(tmp_path, "-m", "app.cli", "partner", "list", REGISTRAR_DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_installation_that_was_made_is_found_and_grows_no_further(cluster: Path, tmp_path: Path) -> None:
    """The cluster is there and empty: the command says what is missing, and makes neither key nor Valkey."""
    data = copy_cluster(cluster, tmp_path / "data")
    done = run(tmp_path, "-m", "app.cli", "partner", "list")
    assert "The database has no tables yet." in done.stderr
    assert not (data / "secret.key").exists()
    assert not (data / "valkey").exists()


def refusal(settings: Settings, purpose: Purpose) -> str:
    with pytest.raises(NoInstallation) as caught:
        require_installation(settings, purpose)
    return str(caught.value)


def test_what_serves_needs_database_key_and_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("REGISTRAR_"):
            monkeypatch.delenv(name)
    given = {"REGISTRAR_DATA_DIR": str(tmp_path / "none")}
    assert "There is no installation here." in refusal(load(given), Purpose.SERVE)
    given["REGISTRAR_DATABASE_URL"] = "postgresql://registrar@db/registrar"
    require_installation(load(given), Purpose.LOOK)
    assert "here is no secret key here" in refusal(load(given), Purpose.SERVE)
    given["REGISTRAR_SECRET_KEYS"] = KEY
    assert "There is no Redis: set REGISTRAR_REDIS_URL" in refusal(load(given), Purpose.SERVE)
    given["REGISTRAR_REDIS_URL"] = "redis://redis"
    require_installation(load(given), Purpose.SERVE)
    assert not (tmp_path / "none").exists()


def test_without_a_key_nothing_is_sealed_with_one_that_is_kept_nowhere() -> None:
    with pytest.raises(SecretError) as caught:
        Secrets.absent().seal("value", Place("t", "c", UUID(int=1), "r", "f"))
    assert str(caught.value) == NO_KEY
    with pytest.raises(SecretError):
        Secrets.absent().open(b"sealed", Place("t", "c", UUID(int=1), "r", "f"))

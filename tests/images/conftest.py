"""Two installations from the images that build.sh made: production, and the sandbox with secrets in files."""

import base64
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import compose
from tests.images.compose import Service
from tests.images.installation import Installation, running
from tests.images.podman import Podman

SIMULATOR = "http://simulator:8090"


@pytest.fixture(scope="session")
def podman() -> Podman:
    return Podman(Path(os.environ["WORK"]), os.environ["CGROUP"])


@pytest.fixture(scope="module")
def production(podman: Podman) -> Iterator[Installation]:
    """compose.yaml alone, with an .env that has only what env.example marks as needed."""
    place = podman.work / "installations" / "production"
    place.mkdir(mode=0o711)
    env_file = compose.filled_example(place / "env", {**_passwords(), "REGISTRAR_SECRET_KEYS": _key()})
    services = compose.read("compose.yaml", variables=compose.assignments(env_file), secret_files=place)
    of_profile = {name: service for name, service in services.items() if "profiles" not in service.keys}
    with running(Installation(of_profile, env_file, place, podman)) as installation:
        yield installation


@pytest.fixture(scope="module")
def sandbox(podman: Podman) -> Iterator[Installation]:
    """compose.secrets.yaml laid over compose.yaml, and the profile `sandbox`, as env.example describes it."""
    place = podman.work / "installations" / "sandbox"
    place.mkdir(mode=0o711)
    env_file = compose.filled_example(
        place / "env",
        _passwords()
        | {"REGISTRAR_ENVIRONMENT": "development"}
        | {f"REGISTRAR_{name}_URL": SIMULATOR for name in ("PARTNER_CENTER", "LOGIN")},
    )
    services = compose.read(
        *("compose.yaml", "compose.secrets.yaml"),
        variables=compose.assignments(env_file),
        secret_files=place,
    )
    _write_secrets(services)
    with running(Installation(services, env_file, place, podman)) as installation:
        yield installation


def _passwords() -> dict[str, str]:
    return {name: secrets.token_hex(24) for name in ("DATABASE_PASSWORD", "VALKEY_PASSWORD")}


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _write_secrets(services: dict[str, Service]) -> None:
    """As the first lines of compose.secrets.yaml say: the image's user owns the file and alone reads it."""
    for path in {path for service in services.values() for path in service.secrets.values()}:
        path.write_text(_key() + "\n")
        os.chown(path, 10001, -1)
        path.chmod(0o400)

"""deploy/compose.yaml, read as Compose reads it and turned into options of podman, key by key.

A key that is not known here is refused: add one to compose.yaml together with its test here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.architecture.source import ROOT

DEPLOY = ROOT / "deploy"
ENV_EXAMPLE = DEPLOY / "env.example"
ELSEWHERE = {
    # Used by the installation itself.
    *("image", "command", "depends_on", "deploy", "stop_grace_period", "profiles", "ports"),
    "build",  # image.sh builds the targets; a test compares their names
    "networks",  # everything is in one network that has only a loopback interface
    "restart",  # what ends by itself stays ended, so that it shows
}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@dataclass(frozen=True)
class Service:
    """One service of the files, with its variables filled in."""

    name: str
    keys: Mapping[str, Any]
    secrets: Mapping[str, Path]

    @property
    def image(self) -> str:
        return str(self.keys["image"])

    @property
    def command(self) -> list[str]:
        return list(self.keys.get("command", []))

    @property
    def replicas(self) -> int:
        return int(self.keys.get("deploy", {}).get("replicas", 1))

    @property
    def grace_s(self) -> int:
        """Seconds from SIGTERM to SIGKILL; Compose's default is 10."""
        return int(self.keys.get("stop_grace_period", "10s").removesuffix("s"))

    @property
    def waits_for(self) -> dict[str, str]:
        """Other services, and the condition of each."""
        return {name: each["condition"] for name, each in self.keys.get("depends_on", {}).items()}

    @property
    def health_command(self) -> list[str] | None:
        """The command of its healthcheck; None if the image's counts, or none."""
        test = self.keys.get("healthcheck", {}).get("test")
        if test is None:
            return None
        assert test[0] == "CMD", test
        return list(test[1:])

    def options(self, env_file: Path) -> list[str]:
        """What `podman run` has to be told, so that the container is the one that Compose would make."""
        return [option for key, value in self.keys.items() for option in self._option(key, value, env_file)]

    def _option(self, key: str, value: Any, env_file: Path) -> Iterator[str]:
        match key:
            case "env_file":
                assert value == ".env"
                yield from ("--env-file", str(env_file))
            case "environment":
                for name, text in value.items():
                    yield from ("--env", f"{name}={text}")
            case "read_only":
                yield from ("--read-only", "--read-only-tmpfs=false") if value else ()
            case "tmpfs":
                for place in value:
                    yield from ("--tmpfs", f"{place},noexec")  # as Docker mounts them
            case "cap_drop" | "cap_add" | "security_opt" | "volumes":
                flag = {"volumes": "volume"}.get(key, key).replace("_", "-")
                for each in value:
                    yield from (f"--{flag}", each)
            case "mem_limit":
                yield from ("--memory", value)
            case "secrets":
                for name in value:
                    yield from ("--volume", f"{self.secrets[name]}:/run/secrets/{name}:ro")
            case "healthcheck":
                yield from _health_options(value)
            case _:
                assert key in ELSEWHERE, f"{self.name} has {key}, which tests/images does not know"


def _health_options(check: Mapping[str, Any]) -> Iterator[str]:
    if check.get("disable"):
        yield "--no-healthcheck"
        return
    yield from ("--health-cmd", json.dumps(check["test"][1:]))
    for key in ("interval", "timeout", "retries", "start_period"):
        if key in check:
            yield from (f"--health-{key.replace('_', '-')}", str(check[key]))


def read(*names: str, variables: Mapping[str, str], secret_files: Path) -> dict[str, Service]:
    """The services of these files of deploy/, each overriding the one before.

    `secret_files` is the directory that the paths of secrets are relative to.
    """
    files = [yaml.safe_load(_filled((DEPLOY / name).read_text(), variables)) for name in names]
    services: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, keys in file["services"].items():
            services[name] = _laid_over(services.get(name, {}), keys)
    secrets = {
        name: secret_files / secret["file"]
        for file in files
        for name, secret in file.get("secrets", {}).items()
    }
    return {name: Service(name, keys, secrets) for name, keys in services.items()}


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, lists added to each other, as Compose does."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict):
            merged[key] = {**below.get(key, {}), **value}
        elif isinstance(value, list):
            merged[key] = [*below.get(key, []), *value]
        else:
            merged[key] = value
    return merged


def _filled(text: str, variables: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        given = variables.get(name, "")
        if given or kind is None:
            return given
        if kind == "?":
            raise ValueError(f"{name} {rest}")
        return str(rest)

    return _VARIABLE.sub(value, text)


def filled_example(path: Path, values: Mapping[str, str]) -> Path:
    """deploy/env.example copied to `path` with these values, as compose.yaml's first lines tell people to."""
    text = ENV_EXAMPLE.read_text()
    for name, value in values.items():
        text, times = re.subn(rf"^#?{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert times == 1, f"{name} is not one line of env.example"
    path.write_text(text)
    return path


def assignments(path: Path) -> dict[str, str]:
    """The variables of an .env file."""
    pairs = (line.partition("=") for line in path.read_text().splitlines() if re.match(r"\w+=", line))
    return {name: value for name, _, value in pairs}

"""The environment's `REGISTRAR_...` names: misspelt ones refused, secrets from files, one line per fault."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.main import get_command

from app.cli import app
from app.kernel.environment import COMMAND_LINE_NAMES, SettingsRefused
from app.kernel.settings import SECRET_SETTINGS, Settings, load
from tests.architecture.source import ROOT

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
ENTRY_POINTS = {
    "uvicorn": ("-m", "uvicorn", "app.main:build", "--factory", "--port", "1"),
    "worker": ("-m", "workers.main"),
    "registrar api": ("-m", "app.cli", "api"),
    "registrar worker": ("-m", "app.cli", "worker"),
    "registrar migrate": ("-m", "app.cli", "migrate"),
    "registrar partner list": ("-m", "app.cli", "partner", "list"),
    "registrar databases": ("-m", "app.cli", "databases"),
    "registrar up": ("-m", "app.cli", "up"),
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("REGISTRAR_"):
            monkeypatch.delenv(name)


def refused(**environment: str) -> tuple[str, ...]:
    with pytest.raises(SettingsRefused) as caught:
        load(environment)
    return caught.value.lines


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("REGISTRAR_LEASE", "REGISTRAR_LEASE_S"),
        ("REGISTRAR_DATABSE_URL", "REGISTRAR_DATABASE_URL"),
        ("REGISTRAR_DATABASEURL", "REGISTRAR_DATABASE_URL"),
        ("REGISTRAR_SECRET_KEY", "REGISTRAR_SECRET_KEYS"),
        ("REGISTRAR_WEBHOOKS_ALLOW_HTTP", "REGISTRAR_WEBHOOK_ALLOW_HTTP"),
        ("REGISTRAR_SECRET_KEY_FILE", "REGISTRAR_SECRET_KEYS_FILE"),
        ("REGISTRAR_APIKEY", "REGISTRAR_API_KEY"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_right_one(name: str, right: str) -> None:
    (line,) = refused(**{name: "hunter2"})
    assert line == f"{name}: there is no such setting; did you mean {right}?"


def test_a_name_like_none_leads_to_the_list() -> None:
    (line,) = refused(REGISTRAR_COLOUR_OF_THE_SKY="blue")
    assert line.endswith("there is no such setting; deploy/env.example lists all of them.")
    assert (ROOT / "deploy/env.example").exists()


def test_every_fault_is_told_at_once() -> None:
    assert len(refused(REGISTRAR_LEASE="1", REGISTRAR_REDISURL="2", REGISTRAR_SECRET_KEYS_FILE="/none")) == 3


def test_a_setting_without_a_secret_comes_from_no_file() -> None:
    (line,) = refused(REGISTRAR_LOG_LEVEL_FILE="/run/secrets/level")
    assert "there is no such setting" in line


def test_what_kubernetes_says_about_a_service_of_our_name_is_no_setting() -> None:
    links = {
        "REGISTRAR_SERVICE_HOST": "10.0.0.7",
        "REGISTRAR_SERVICE_PORT": "8000",
        "REGISTRAR_SERVICE_PORT_HTTP": "8000",
        "REGISTRAR_PORT": "tcp://10.0.0.7:8000",
        "REGISTRAR_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "REGISTRAR_PORT_8000_TCP_ADDR": "10.0.0.7",
        "REGISTRAR_API_SERVICE_HOST": "10.0.0.8",
        # A Service called registrar-api: the same name as a setting, and no number.
        "REGISTRAR_API_PORT": "tcp://10.0.0.8:8000",
    }
    assert load(links).api_port == Settings.model_fields["api_port"].default


def test_names_of_the_command_line_and_of_other_programs_are_left_alone() -> None:
    others = {"REGISTRAR_API_KEY": "rk", "REGISTRAR_API_URL": "http://x", "REGISTRARY": "1", "X": "2"}
    assert load(others) == load({})


def test_a_setting_of_the_release_before_does_not_refuse_an_upgrade() -> None:
    assert load({"REGISTRAR_GRAPH_URL": "https://graph.microsoft.com"}) == load({})


def _environment_names(command: object) -> Iterator[str]:
    for parameter in getattr(command, "params", []):
        names = parameter.envvar
        yield from [names] if isinstance(names, str) else names or []
    for below in getattr(command, "commands", {}).values():
        yield from _environment_names(below)


def test_every_name_that_the_command_line_reads_is_known_and_no_other() -> None:
    read = {name for name in _environment_names(get_command(app)) if name.startswith("REGISTRAR_")}
    for path in (ROOT / "app/cli").glob("*.py"):
        found = re.findall(r"environ(?:\.get\(|\[)\"(REGISTRAR_\w+)\"", path.read_text())
        read |= set(found)
    settings = {f"REGISTRAR_{name.upper()}" for name in Settings.model_fields}
    assert read - settings == COMMAND_LINE_NAMES


# --- files ------------------------------------------------------------------------------------------


def test_every_secret_setting_may_come_from_a_file() -> None:
    secret = {name for name, field in Settings.model_fields.items() if SecretStr in _types(field.annotation)}
    assert secret
    assert secret | {"database_url", "migration_database_url", "redis_url"} == set(SECRET_SETTINGS)


def _types(annotation: object) -> set[object]:
    inner = getattr(annotation, "__args__", ())
    return {annotation}.union(*map(_types, inner))


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_its_file_without_the_newline(tmp_path: Path, ending: str) -> None:
    contents = {
        "database_url": "postgresql://registrar:pass@db/registrar",
        "migration_database_url": "postgresql://owner:pass@db/registrar",
        "redis_url": "redis://:pass@redis:6379/0",
        "secret_keys": f"{KEY},{KEY}",
    }
    environment = {}
    for name, content in contents.items():
        (tmp_path / name).write_text(content + ending)
        environment[f"REGISTRAR_{name.upper()}_FILE"] = str(tmp_path / name)
    settings = load(environment)
    assert settings.database_url == contents["database_url"]
    assert settings.migration_database_url == contents["migration_database_url"]
    assert settings.redis_url == contents["redis_url"]
    assert [key.get_secret_value() for key in settings.secret_keys] == [KEY, KEY]


def test_the_process_environment_is_read_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text(KEY + "\n")
    monkeypatch.setenv("REGISTRAR_SECRET_KEYS_FILE", str(tmp_path / "keys"))
    assert [key.get_secret_value() for key in load().secret_keys] == [KEY]
    assert [key.get_secret_value() for key in Settings().secret_keys] == [KEY]


def test_an_empty_value_beside_a_file_counts_as_not_given(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    given = {"REGISTRAR_SECRET_KEYS": "", "REGISTRAR_SECRET_KEYS_FILE": str(tmp_path / "keys")}
    assert load(given).secret_keys
    assert not load({"REGISTRAR_SECRET_KEYS_FILE": ""}).secret_keys


def test_a_value_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    (line,) = refused(REGISTRAR_SECRET_KEYS=KEY, REGISTRAR_SECRET_KEYS_FILE=str(tmp_path / "keys"))
    assert line == "REGISTRAR_SECRET_KEYS_FILE and REGISTRAR_SECRET_KEYS are both set: use one of them."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"\xff\xfe\x00", "it is not UTF-8 text"),
        (b"x" * 70_000, "it has more than 65,536 bytes"),
    ],
)
def test_a_file_of_no_use_is_told_in_one_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    (line,) = refused(REGISTRAR_REDIS_URL_FILE=str(path))
    assert line == f"REGISTRAR_REDIS_URL_FILE: the file cannot be used: {words}."


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    (line,) = refused(REGISTRAR_REDIS_URL_FILE=str(tmp_path))
    assert "Is a directory" in line


def test_a_wrong_secret_in_a_file_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("mysql://u:hunter2@h/d")
    (line,) = refused(REGISTRAR_DATABASE_URL_FILE=str(tmp_path / "url"))
    assert line.startswith("REGISTRAR_DATABASE_URL: this is not a PostgreSQL URL")
    assert "hunter2" not in line


# --- entry points -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ENTRY_POINTS))
def test_a_wrong_setting_is_one_line_at_every_entry_point(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *ENTRY_POINTS[name]],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REGISTRAR_LEASE_S": "hunter2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("REGISTRAR_LEASE_S: Input should be a valid number")
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_address_stops_a_command_before_it_calls_another_installation(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "customers"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REGISTRAR_API_URI": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "REGISTRAR_API_URI: there is no such setting; did you mean REGISTRAR_API_URL?"
    ]

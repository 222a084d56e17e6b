"""Deployment files agree with the repository: paths, commands, settings and locked packages."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.kernel.settings import SECRET_SETTINGS, SHUTDOWN_PAUSE_S, Settings
from app.local.stack import API_PATIENCE, WORKER_PATIENCE
from app.serve import GRACE_S, INTAKE_GRACE_S
from tests.images import compose as walked
from workers.lanes import SLICE

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "deploy/compose.yaml"
ENV_EXAMPLE = ROOT / "deploy/env.example"
LOCKS = ("requirements.lock", "deploy/requirements.lock")
SETTING = re.compile(r"REGISTRAR_[A-Z0-9_]*[A-Z0-9]")
KNOWN_SETTINGS = {f"REGISTRAR_{name.upper()}" for name in Settings.model_fields}
KNOWN_FILES = {f"REGISTRAR_{name.upper()}_FILE" for name in SECRET_SETTINGS}
SECRETS = ROOT / "deploy/compose.secrets.yaml"
SHARED_SERVICES = {"api", "migrate", "worker"}


def instructions() -> Iterator[tuple[str, str, str]]:
    """(stage, instruction, its rest) of the Dockerfile, continuation lines joined."""
    stage = ""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        if word:
            yield stage, word, rest.strip()


@cache
def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return read


@cache
def commands() -> frozenset[str]:
    """The commands `registrar --help` names."""
    said = subprocess.run(
        [sys.executable, "-m", "app.cli", "--help"],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    return frozenset(re.findall(r"^[\s│|]*([a-z][a-z-]+)\s{2,}\S", said, re.MULTILINE))


def copied_paths() -> list[str]:
    sources: list[str] = []
    for _, word, rest in instructions():
        if word == "COPY" and "--from=" not in rest:
            sources += shlex.split(rest)[:-1]
    return sources


def packages(lock: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Name to version and hashes. Every line that is no hash must be a pinned requirement."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if not line.strip():
            continue
        pinned = re.fullmatch(
            r"([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==(\S+)(?: ; [^#]*?)?((?:\s+--hash=\S+)*)\s*", line
        )
        assert pinned, f"{lock}: {line.split(' ')[0]} is not pinned by version"
        found[pinned[1]] = (pinned[2], frozenset(re.findall(r"--hash=(\S+)", pinned[3])))
    return found


# --- Dockerfile -----------------------------------------------------------------------------------------


def test_every_path_the_image_copies_exists() -> None:
    assert copied_paths()
    assert [path for path in copied_paths() if not (ROOT / path).exists()] == []


def test_the_build_context_lets_in_what_the_image_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == set(copied_paths())
    assert "app/local" in lines[lines.index("!app") + 1 :], "what is for one machine stays out"


def test_the_image_has_the_product_and_its_migrations_but_no_tests_and_no_simulator() -> None:
    copied = {
        path
        for stage, word, rest in instructions()
        if stage == "service" and word == "COPY"
        for path in shlex.split(rest)[:-1]
    }
    assert copied == {"app", "workers", "migrations", "alembic.ini"}


def test_the_image_installs_only_packages_whose_hashes_are_locked() -> None:
    installs = [rest for _, word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0]


@pytest.mark.parametrize("stage", ["service", "simulator"])
def test_an_image_runs_as_a_user_with_a_number(stage: str) -> None:
    users = [rest for name, word, rest in instructions() if name == stage and word == "USER"]
    assert users == ["10001:10001"]


@pytest.mark.parametrize("stage", ["service", "simulator"])
def test_an_image_says_whether_it_is_well_with_the_standard_library(stage: str) -> None:
    (check,) = [rest for name, word, rest in instructions() if name == stage and word == "HEALTHCHECK"]
    python, option, code = json.loads(check[check.index("CMD ") + 4 :])
    assert (python, option) == ("python", "-c")
    imported = {
        name
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_the_image_is_the_command_line_and_starts_the_api() -> None:
    last = {word: rest for stage, word, rest in instructions() if stage == "service"}
    assert json.loads(last["ENTRYPOINT"]) == ["registrar"]
    assert json.loads(last["CMD"]) == ["api"]
    assert [stage for stage, _, _ in instructions()][-1] == "service", "the default target is the last stage"


def test_the_image_starts_commands_that_exist() -> None:
    (words,) = [
        json.loads(rest) for stage, word, rest in instructions() if word == "CMD" and stage == "service"
    ]
    assert words[0] in commands()


# --- compose --------------------------------------------------------------------------------------------


def test_compose_has_the_services_of_a_whole_installation() -> None:
    assert set(compose()["services"]) == {"postgres", "valkey", "migrate", "api", "worker", "simulator"}
    assert compose()["services"]["simulator"]["profiles"] == ["sandbox"]
    assert compose()["services"]["worker"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("service", sorted(SHARED_SERVICES))
def test_compose_starts_commands_that_exist(service: str) -> None:
    assert compose()["services"][service]["command"][0] in commands()


def test_the_commands_that_compose_advises_exist() -> None:
    advised = re.findall(r"run --rm api ([a-z-]+) ([a-z-]+)", COMPOSE.read_text())
    assert advised
    for group, verb in advised:
        assert group in commands()
        subprocess.run(
            [sys.executable, "-m", "app.cli", group, verb, "--help"],
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=True,
        )


def test_compose_builds_stages_that_exist() -> None:
    stages = {stage for stage, _, _ in instructions()}
    targets = {s["build"]["target"] for s in compose()["services"].values() if "build" in s}
    assert targets == {"service", "simulator"}
    assert targets <= stages


def test_make_image_knows_every_key_of_the_services_that_it_runs(tmp_path: Path) -> None:
    variables = {"DATABASE_PASSWORD": "one", "VALKEY_PASSWORD": "two"}
    services = walked.read(COMPOSE.name, SECRETS.name, variables=variables, secret_files=tmp_path)
    for name in (*SHARED_SERVICES, "simulator"):
        options = services[name].options(tmp_path / "env")
        assert "--read-only" in options, name
        assert ("--env" in options) == (name in SHARED_SERVICES), name


def test_nothing_starts_before_the_migration_and_its_servers() -> None:
    for service in ("api", "worker"):
        waits_for = compose()["services"][service]["depends_on"]
        assert waits_for["migrate"] == {"condition": "service_completed_successfully"}
        assert waits_for["postgres"] == waits_for["valkey"] == {"condition": "service_healthy"}


@pytest.mark.parametrize("service", ["postgres", "valkey"])
def test_what_others_wait_for_says_when_it_is_healthy(service: str) -> None:
    assert compose()["services"][service]["healthcheck"]["test"][0] == "CMD"


def test_all_services_but_the_migration_are_restarted() -> None:
    assert {name: s["restart"] for name, s in compose()["services"].items()} == dict.fromkeys(
        compose()["services"], "unless-stopped"
    ) | {"migrate": "no"}


def test_every_file_system_is_read_only_and_no_port_is_open_to_the_network() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_no_service_has_a_power_that_it_does_not_need() -> None:
    added = {name: set(s.get("cap_add", [])) for name, s in compose()["services"].items()}
    drop_root = {"SETGID", "SETUID"}  # both images start as root and become their own user
    assert added == {name: set() for name in added} | {
        "postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", *drop_root},
        "valkey": {"CHOWN", *drop_root},
    }
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name


def test_every_file_system_in_memory_is_bounded() -> None:
    for name, service in compose()["services"].items():
        assert all(re.search(r":size=\d+m$", place) for place in service["tmpfs"]), name


def test_databases_are_in_a_network_that_does_not_leave_the_host() -> None:
    """So they may speak in clear text, which production refuses otherwise."""
    assert compose()["networks"]["databases"] == {"internal": True}
    of = {name: set(service["networks"]) for name, service in compose()["services"].items()}
    assert of["postgres"] == of["valkey"] == of["migrate"] == {"databases"}
    assert of["api"] == of["worker"] == {"databases", "outside"}
    assert of["simulator"] == {"outside"}
    assert compose()["services"]["api"]["environment"]["REGISTRAR_ALLOW_CLEAR_TEXT"] == "postgresql,redis"


def test_every_image_that_is_not_built_here_can_be_pinned_by_digest() -> None:
    names = {"python": "PYTHON_IMAGE", "postgres": "POSTGRES_IMAGE", "valkey": "VALKEY_IMAGE"}
    for service in ("postgres", "valkey"):
        image = compose()["services"][service]["image"]
        assert re.fullmatch(rf"\$\{{{names[service]}:-[a-z/]+:\d+\}}", image), image
    bases = [rest.split(" AS ")[0] for _, word, rest in instructions() if word == "FROM"]
    assert set(bases) == {"${PYTHON_IMAGE}", "base"}
    for service in ("api", "simulator"):
        default = f"PYTHON_IMAGE={compose()['services'][service]['build']['args']['PYTHON_IMAGE']}"
        (argument,) = [rest for _, word, rest in instructions() if word == "ARG"]
        assert default == f"PYTHON_IMAGE=${{PYTHON_IMAGE:-{argument.partition('=')[2]}}}"
    shown = dict(re.findall(r"^#([A-Z]+_IMAGE)=(\S+)$", ENV_EXAMPLE.read_text(), re.MULTILINE))
    used = re.findall(r"\$\{([A-Z]+_IMAGE):-([^}]+)\}", COMPOSE.read_text())
    assert shown == dict(used)


def test_valkey_asks_for_its_password_and_its_healthcheck_knows_it() -> None:
    valkey = compose()["services"]["valkey"]
    password = valkey["command"][valkey["command"].index("--requirepass") + 1]
    assert valkey["environment"]["REDISCLI_AUTH"] == password
    assert f":{password}@valkey:" in compose()["services"]["api"]["environment"]["REGISTRAR_REDIS_URL"]
    assert valkey["healthcheck"]["test"][-1].endswith("| grep -q PONG")


def test_a_worker_has_more_time_to_stop_than_a_step_may_take() -> None:
    grace = compose()["services"]["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings.model_fields["step_timeout_s"].default


def test_an_api_has_more_time_to_stop_than_its_pause_and_its_calls_may_take() -> None:
    grace = compose()["services"]["api"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > SHUTDOWN_PAUSE_S + GRACE_S + INTAKE_GRACE_S


def test_a_worker_is_asked_for_itself_and_not_for_its_databases() -> None:
    check = compose()["services"]["worker"]["healthcheck"]
    assert check["test"] == ["CMD", "registrar", "worker", "--probe"]


def test_compose_carries_no_password() -> None:
    text = COMPOSE.read_text() + COMPOSE.with_name("database.sh").read_text()
    given = re.findall(r"PASSWORD: (\S+)", text) + re.findall(r"://\w+:([^\s@]+[^@]*?)@", text)
    given += re.findall(r"\bPASSWORD (?!NULL)(\S+);", text)
    given += re.findall(r"--requirepass\s+- (\S+)", text) + re.findall(r"AUTH: (\S+)", text)
    given += re.findall(r"://:(\S+)", text)
    assert len(given) == 6
    allowed = ("${DATABASE_PASSWORD:?", "${VALKEY_PASSWORD:?", ":'password'")
    assert all(value.startswith(allowed) for value in given), given


def test_workers_have_a_disk_for_big_files_that_belongs_to_their_user() -> None:
    spool = compose()["services"]["worker"]["environment"]["REGISTRAR_SPOOL_DIR"]
    mounts = [volume.split(":")[1] for volume in compose()["services"]["worker"]["volumes"]]
    assert spool in mounts
    assert not any(spool.startswith(memory) for memory in compose()["services"]["worker"]["tmpfs"])
    service = [(word, rest) for stage, word, rest in instructions() if stage == "service"]
    (user,) = [rest.partition(":")[0] for word, rest in service if word == "USER"]
    made = [rest for word, rest in service if word == "RUN" and rest.endswith(spool)]
    assert made == [f"install --directory --owner={user} --group={user} --mode=0700 {spool}"]


def test_no_service_takes_all_the_memory_of_its_host() -> None:
    limits = {name: service.get("mem_limit") for name, service in compose()["services"].items()}
    assert all(re.fullmatch(r"[1-9][0-9]*[mg]", limit or "") for limit in limits.values()), limits
    # What Valkey may keep, and what it copies while it rewrites its file.
    command = compose()["services"]["valkey"]["command"]
    assert command[command.index("--maxmemory") + 1] == "256mb"
    assert limits["valkey"] == "512m"


def test_volumes_and_configurations_that_are_used_are_declared() -> None:
    used = {
        volume.partition(":")[0] for s in compose()["services"].values() for volume in s.get("volumes", [])
    }
    assert used == set(compose()["volumes"])
    sources = {c["source"] for s in compose()["services"].values() for c in s.get("configs", [])}
    assert sources == set(compose()["configs"])


def test_configurations_are_files_because_a_read_only_container_refuses_to_have_them_copied_in() -> None:
    for name, config in compose()["configs"].items():
        assert set(config) == {"file"}, name
        assert COMPOSE.with_name(config["file"].removeprefix("./")).is_file(), name


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [DOCKERFILE, COMPOSE, SECRETS, ENV_EXAMPLE], ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = set(SETTING.findall(path.read_text()))
    assert named
    assert named - KNOWN_SETTINGS - KNOWN_FILES == set()


def test_the_example_names_every_setting_that_may_come_from_a_file() -> None:
    assert set(SETTING.findall(ENV_EXAMPLE.read_text())) >= KNOWN_FILES


def test_secrets_of_docker_reach_every_part_that_needs_them() -> None:
    laid_over = yaml.safe_load(SECRETS.read_text())
    assert set(laid_over["services"]) == SHARED_SERVICES
    for service in laid_over["services"].values():
        (secret,) = service["secrets"]
        assert service["environment"] == {
            "REGISTRAR_SECRET_KEYS": "",  # a value beside the file would be refused
            "REGISTRAR_SECRET_KEYS_FILE": f"/run/secrets/{secret}",
        }
        assert secret in laid_over["secrets"]


def examples() -> dict[str, tuple[str, str]]:
    """Setting to (value, the sentences above it)."""
    found: dict[str, tuple[str, str]] = {}
    sentences: list[str] = []
    for line in ENV_EXAMPLE.read_text().splitlines():
        if assignment := re.fullmatch(r"#?(REGISTRAR_[A-Z0-9_]+)=(.*)", line):
            assert assignment[1] not in found, f"{assignment[1]} is there twice"
            found[assignment[1]] = (assignment[2], " ".join(sentences))
            sentences = []
        elif line.startswith("# "):
            sentences.append(line[2:])
        else:
            sentences = []
    return found


def test_the_example_has_every_setting() -> None:
    assert set(examples()) == KNOWN_SETTINGS


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_the_example_explains_a_setting_as_the_program_does(name: str) -> None:
    _, sentences = examples()[f"REGISTRAR_{name.upper()}"]
    assert str(Settings.model_fields[name].description) in sentences


def test_a_line_that_is_commented_out_shows_the_default() -> None:
    shown: dict[str, Any] = {
        key.removeprefix("REGISTRAR_").lower(): value
        for key, (value, _) in examples().items()
        if f"#{key}={value}" in ENV_EXAMPLE.read_text().splitlines()
    }
    assert len(shown) > 30
    defaults = Settings.model_construct()
    read = Settings(**shown)
    assert {name for name in shown if getattr(read, name) != getattr(defaults, name)} == set()


def test_the_example_needs_only_what_it_marks_as_needed() -> None:
    needed = {
        line.split("=")[0] for line in ENV_EXAMPLE.read_text().splitlines() if re.fullmatch(r"[A-Z_]+=", line)
    }
    assert needed == {"DATABASE_PASSWORD", "VALKEY_PASSWORD", "REGISTRAR_SECRET_KEYS"}
    required = set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE.read_text()))
    assert required == {"DATABASE_PASSWORD", "VALKEY_PASSWORD"}


# --- lock files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock: str) -> None:
    found = packages(lock)
    assert len(found) > 30
    assert [name for name, (_, hashes) in found.items() if not hashes] == []
    wrong = [h for _, hashes in found.values() for h in hashes if not re.fullmatch(r"sha256:[0-9a-f]{64}", h)]
    assert wrong == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_names_no_package_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert (
        re.findall(r"(?i)https?://\S+|--\S*index\S*|--find-links\S*|--trusted-host\S*|file:\S+", text) == []
    )


def test_the_image_runs_the_versions_that_were_tested() -> None:
    tested, deployed = (packages(lock) for lock in LOCKS)
    assert {name: version for name, version in deployed.items() if tested.get(name) != version} == {}


def test_every_dependency_of_the_project_is_locked() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    block = project[project.index("dependencies = [") : project.index("[project.optional-dependencies]")]
    names = set(re.findall(r'^\s+"([a-z0-9-]+)', block, re.MULTILINE))
    assert len(names) > 10
    assert names <= set(packages("deploy/requirements.lock"))


WITHOUT_OTHER_PACKAGES = """
import importlib, json, pkgutil, sys
from importlib.metadata import packages_distributions
locked = set(json.loads(sys.argv[1]))
ours = ("app", "workers", "simulator")
def known(owners):
    return locked & {owner.lower().replace("_", "-").replace(".", "-") for owner in owners}
barred = {
    module
    for module, owners in packages_distributions().items()
    if module not in ours and not known(owners)
}
class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in barred:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)
sys.meta_path.insert(0, Bar())
for name in ours:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, name + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(len(barred))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs as the images have them: without `app/local`."""
    place = tmp_path_factory.mktemp("image")
    left_out = shutil.ignore_patterns("__pycache__", "local")
    for package in ("app", "workers", "simulator"):
        shutil.copytree(ROOT / package, place / package, ignore=left_out)
    return place


def test_the_packages_of_the_image_suffice_for_all_of_it(image: Path) -> None:
    locked = json.dumps(sorted(packages("deploy/requirements.lock")))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OTHER_PACKAGES, locked],
        cwd=image,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10, "packages for development were barred"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("api", "Set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."),
        ("worker", "Set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."),
        ("migrate", "Set REGISTRAR_DATABASE_URL."),
        ("databases", "The image has no databases of its own."),
        ("up", "No such command 'up'."),
        ("demo", "No such command 'demo'."),
    ],
)
def test_a_command_in_the_image_says_that_it_needs_databases(image: Path, command: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", command],
        cwd=image,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (image / "data").exists()


def test_the_supervisor_of_one_machine_is_more_patient_than_its_parts_need() -> None:
    assert API_PATIENCE > GRACE_S
    assert WORKER_PATIENCE > SLICE


def test_deploy_has_no_python() -> None:
    """It is for people who deploy: what runs Registrar on one machine is in app/local."""
    assert sorted((ROOT / "deploy").rglob("*.py")) == []

"""compose.yaml as it stands: migrate, api and two workers against Debian's PostgreSQL and Redis."""

import json
import re
import shlex

import httpx
import pytest

from tests.images.compose import DEPLOY
from tests.images.installation import Installation
from tests.images.proofs import (
    assert_is_a_user_without_powers,
    assert_root_is_read_only,
    assert_stops_within_its_grace,
    files_of,
)

API = "http://127.0.0.1:8000"
LASTING = ("api", "worker-1", "worker-2")


@pytest.mark.parametrize("name", LASTING)
def test_a_container_runs_as_a_user_without_powers_on_a_read_only_root(
    production: Installation, name: str
) -> None:
    assert_is_a_user_without_powers(production.podman, name)
    assert_root_is_read_only(production.podman, name)


def test_an_image_has_the_product_and_neither_tests_nor_tools_for_one_machine(
    production: Installation,
) -> None:
    files = files_of(production.podman, "api")
    assert {path.parts[0] for path in files} == {"app", "workers", "migrations", "alembic.ini"}
    assert not [path for path in files if path.parts[:2] == ("app", "local")]


@pytest.mark.parametrize("name", LASTING)
def test_a_container_says_that_it_is_healthy(production: Installation, name: str) -> None:
    production.await_health(name)


def test_the_api_answers_at_the_port_that_compose_opens(production: Installation) -> None:
    (port,) = production.services["api"].keys["ports"]
    assert port == "127.0.0.1:8000:8000"
    answer = httpx.get(f"{API}/readyz?all", trust_env=False)
    assert (answer.status_code, answer.json()["worker"]) == (200, "alive"), answer.text


def test_the_commands_that_compose_advises_make_a_key_that_the_api_accepts(production: Installation) -> None:
    advised = re.findall(r"run --rm (\w+) (.+)$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    answers = [json.loads(production.command(name, *shlex.split(rest), "--json")) for name, rest in advised]
    key = answers[-1]["key"]
    answer = httpx.get(f"{API}/v1/limits", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", ["worker-1", "worker-2"])
def test_a_worker_may_write_on_the_disk_for_big_files(production: Installation, name: str) -> None:
    spool = production.services["worker"].keys["environment"]["REGISTRAR_SPOOL_DIR"]
    production.podman("exec", name, "sh", "-c", f"echo x >{spool}/{name} && rm {spool}/{name}")
    mode = production.podman("exec", name, "stat", "--format=%u:%g %a", spool)
    assert mode.strip() == "10001:10001 700"


@pytest.mark.parametrize("name", LASTING)  # the last: nothing runs after it
def test_sigterm_ends_a_container_within_its_grace_with_0(production: Installation, name: str) -> None:
    assert_stops_within_its_grace(production, name)

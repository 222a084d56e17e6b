"""The operator's guide says where to look: every route, command and field that it names is there.

What work can wait for is in the guide completely, because that is what somebody looks for at night.
"""

import ast
import re
from functools import cache
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app as program
from app.domain.catalogue import CATALOGUE
from tests.architecture.source import ROOT
from tests.support.document import openapi

TEXT = (ROOT / "docs/operate.md").read_text()
INSTALL = (ROOT / "docs/install.md").read_text()
INTEGRATE = (ROOT / "docs/integrate.md").read_text()


def section(heading: str) -> str:
    """From a heading to the next one of the same or a higher rank."""
    rank = len(heading) - len(heading.lstrip("#"))
    start = TEXT.index(f"\n{heading}\n") + len(heading) + 2
    end = re.search(rf"^#{{1,{rank}}} ", TEXT[start:], re.MULTILINE)
    return TEXT[start : start + end.start() if end else None]


@cache
def fields_of(path: str) -> frozenset[str]:
    """Every field of the answer to GET, at any depth."""
    found: set[str] = set()
    shapes = openapi()["components"]["schemas"]

    def collect(shape: Any) -> None:
        if isinstance(shape, list):
            for part in shape:
                collect(part)
        if not isinstance(shape, dict):
            return
        if (reference := shape.get("$ref")) is not None:
            name = reference.rsplit("/", 1)[-1]
            if name not in seen:
                seen.add(name)
                collect(shapes[name])
        found.update(shape.get("properties", {}))
        for part in shape.values():
            collect(part)

    seen: set[str] = set()
    collect(openapi()["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"])
    return frozenset(found)


def path_like(named: str) -> str:
    """The route that a guide's path stands for; names of parameters differ."""
    plain = re.sub(r"\{\w+\}", "{}", named.partition("?")[0])
    [path] = [path for path in openapi()["paths"] if re.sub(r"\{\w+\}", "{}", path) == plain]
    return str(path)


def named_fields() -> list[tuple[str, str]]:
    """`field` of `GET /v1/...`, in either order, as the guides write it."""
    text = re.sub(r"\s+", " ", TEXT + INTEGRATE)
    found = re.findall(r"`(\w+)` of `GET (/v1/[\w/{}-]+)`", text)
    for path, fields in re.findall(r"`GET (/v1/[\w/{}-]+)`: ((?:`\w+`(?:, | and )?)+)", text):
        found += [(field, path) for field in re.findall(r"`(\w+)`", fields)]
    return sorted(set(found))


def test_enough_fields_are_named_for_the_next_test_to_mean_something() -> None:
    assert ("waiting_for", "/v1/orders/{id}") in named_fields()
    assert ("trouble", "/v1/connections/{id}") in named_fields()
    assert len(named_fields()) >= 6


@pytest.mark.parametrize(("field", "path"), named_fields())
def test_every_field_that_a_guide_looks_for_is_in_the_answer(field: str, path: str) -> None:
    assert field in fields_of(path_like(path))


def commands() -> list[tuple[str, ...]]:
    """Every `registrar ...` of the guides, to the last word that names a command."""
    found = set()
    for line in re.findall(r"\bregistrar ([a-z][a-z -]*)", TEXT + INSTALL):
        words = [word for word in line.split() if not word.startswith("-")]
        group = len(words) > 1 and words[0] in {
            "portal",
            "partner",
            "api-key",
            "hash",
            "connection",
            "webhook",
            "secrets",
            "customer",
        }
        found.add(tuple(words[: 2 if group else 1]))
    return sorted(found)


def test_the_guide_names_the_commands_that_say_what_is_wrong() -> None:
    assert {("status",), ("order",), ("watch",)} <= set(commands())


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_of_the_guide_exists(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(program, [*command, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: registrar" in result.output


def codes_that_work_waits_for() -> set[str]:
    """The codes that `app.domain.waiting` names itself; others come from connections and batches."""
    source = ast.parse((ROOT / "app/domain/waiting.py").read_text())
    texts = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant)}
    return {text for text in texts if isinstance(text, str) and text in CATALOGUE}


def test_everything_that_work_can_wait_for_is_in_the_guide_and_all_of_that_in_the_catalogue() -> None:
    table = section("### An order does not move")
    table = table[: table.index("If that is not enough")]
    named = {
        code
        for row in re.findall(r"^\| (`\w+`[^|]*) \|", table, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", row)
    } - {"waiting_for"}
    assert len(codes_that_work_waits_for()) >= 12
    assert codes_that_work_waits_for() - {"batch_broken"} <= named
    assert named <= set(CATALOGUE)
    trouble = set(re.findall(r"^\| `(\w+)` \|", section("### Connection trouble"), re.MULTILINE))
    assert trouble <= named, "each trouble of a connection is what an order waits for"


def test_the_levels_and_exit_codes_of_status_are_those_of_the_program() -> None:
    from app.cli.status import _CODES
    from app.services.operations.status import Level

    told = {
        level: int(code) for code, level in re.findall(r"^\| (\d) \| `(\w+)` \|", section("## Health"), re.M)
    }
    assert told == {level.value: int(_CODES[level.value]) for level in Level}

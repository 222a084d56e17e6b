"""Removing at the command line: a look first, and everything only with `--yes`."""

from functools import partial
from typing import Any

import httpx
import orjson
import pytest

from app.cli.outcome import ExitCode
from tests.unit.cli_wire import CONNECTION, CUSTOMER, Wire

LOOK: dict[str, Any] = {
    "dry_run": True,
    "finished": False,
    "name": "Contoso",
    "counts": {"orders": 12, "registrations": 3400, "consent_changes": 2},
    "obstacles": [],
}
OBSTACLE = {"kind": "order", "id": "o", "name": "PO-4711", "words": "3 device(s) have no outcome yet."}
THINGS = [("customer", "contoso", f"/v1/customers/{CUSTOMER['id']}"),
          ("connection", CONNECTION["name"], f"/v1/connections/{CONNECTION['id']}")]  # fmt: skip


@pytest.fixture
def wire() -> Wire:
    return Wire()


def answer(body: dict[str, Any], _: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=body)


def answers(wire: Wire, path: str, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        wire.first.setdefault(("DELETE", path), []).append(partial(answer, body))


def deleted(wire: Wire) -> list[str]:
    return [request.url.query.decode() for request in wire.requests if request.method == "DELETE"]


@pytest.mark.parametrize(("noun", "name", "path"), THINGS)
def test_without_yes_there_is_only_a_look(wire: Wire, noun: str, name: str, path: str) -> None:
    answers(wire, path, LOOK)
    result = wire.run(noun, "remove", name)
    assert result.exit_code == ExitCode.DONE, result.output
    assert deleted(wire) == ["dry_run=true"]
    assert "3,400" in result.stdout
    assert "Nothing has been removed." in result.stdout


@pytest.mark.parametrize(("noun", "name", "path"), THINGS)
def test_with_yes_it_is_called_until_all_is_gone(wire: Wire, noun: str, name: str, path: str) -> None:
    part = {**LOOK, "dry_run": False}
    answers(wire, path, LOOK, part, part, {**part, "finished": True})
    result = wire.run(noun, "remove", name, "--yes")
    assert result.exit_code == ExitCode.DONE, result.output
    assert deleted(wire) == ["dry_run=true", *["everything=true"] * 3]
    assert f"The {noun} Contoso has been removed" in result.stdout


@pytest.mark.parametrize(("noun", "name", "path"), THINGS)
def test_what_is_in_the_way_is_named_and_nothing_is_removed(
    wire: Wire, noun: str, name: str, path: str
) -> None:
    for _ in range(2):
        answers(wire, path, {**LOOK, "obstacles": [OBSTACLE]})
    result = wire.run(noun, "remove", name, "--yes")
    assert result.exit_code == ExitCode.STILL_WAITING
    assert "PO-4711" in result.stdout
    assert OBSTACLE["words"] in result.stdout
    assert "Nothing has been removed. Add" not in result.stdout
    document = orjson.loads(wire.run(noun, "remove", name, "--yes", "--json").stdout)
    assert document["obstacles"] == [OBSTACLE]
    assert document["exit_code"] == ExitCode.STILL_WAITING
    assert deleted(wire) == ["dry_run=true"] * 2

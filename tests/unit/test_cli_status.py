"""`registrar status` on a screen of 80 columns, and what its exit code tells monitoring."""

import re
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.cli.surroundings import Surroundings
from tests.unit.cli_wire import KEY, NOW, Wire, problem

EARLIER = "2026-03-01T07:00:00.000Z"
WELL: dict[str, Any] = {
    "at": NOW,
    "level": "ok",
    "database": True,
    "schema": {"ok": True, "at": "0005", "wanted": "0005"},
    "redis": True,
    "workers": {"ok": True, "alive": 2, "items": [{"alive": True, "started_at": EARLIER, "seen_at": NOW}]},
    "work": [{"state": "queued", "batches": 3, "devices": 2500, "oldest_at": EARLIER}],
    "waiting_for": [],
    "connections": [],
    "connections_total": 2,
    "webhooks": [],
    "deliveries": {"waiting": 1, "oldest_at": EARLIER},
    "imports": {"waiting": 0, "oldest_due_at": None},
    "stuck": [],
}
NEEDY: dict[str, Any] = {
    **WELL,
    "level": "attention",
    "waiting_for": [
        {
            "code": "credential_refused",
            "title": "Microsoft refuses the connection's credentials",
            "advice": "person",
            "since": EARLIER,
            "until": None,
            "remedy": "Give the connection a new client secret or refresh token, then `:check` it.",
            "detail": "AADSTS50173",
            "devices": 2500,
        }
    ],
    "connections": [
        {
            "connection_id": "0",
            "name": "Contoso Distribution Europe, Middle East and Africa",
            "trouble": "credential_refused",
            "trouble_since": EARLIER,
            "remedy": "Give the connection a new client secret or refresh token, then `:check` it.",
            "breaker": "open",
            "blocked_until": "2026-03-01T10:01:00.000Z",
        }
    ],
    "webhooks": [
        {
            "endpoint_id": "0",
            "host": f"hooks{n}.contoso.example",
            "state": "degraded",
            "consecutive_failures": n,
        }
        for n in range(1, 13)
    ],
}


def status_of(answer: dict[str, Any]) -> Wire:
    wire = Wire()
    wire.first["GET", "/v1/status"] = [lambda _: httpx.Response(200, json=answer)] * 2
    return wire


@pytest.mark.parametrize(
    ("level", "code", "words"),
    [
        ("ok", 0, "All is well."),
        ("attention", 2, "Everything runs, and something needs attention."),
        ("down", 1, "Something is down."),
    ],
)
def test_the_level_decides_the_exit_code_and_the_headline(level: str, code: int, words: str) -> None:
    wire = status_of({**WELL, "level": level})
    result = wire.run("status")
    assert result.exit_code == code, result.output
    assert words in result.stdout
    document = wire.run("status", "--json")
    assert document.exit_code == code
    assert orjson.loads(document.stdout)["level"] == level


def test_it_fits_a_screen_of_80_columns_and_breaks_no_word() -> None:
    environment = {"REGISTRAR_API_KEY": KEY, "COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    surroundings = Surroundings(transport=httpx.MockTransport(status_of(NEEDY)))
    result = CliRunner().invoke(app, ["status"], obj=surroundings, env=environment)
    assert result.exit_code == 2, result.output
    assert "\x1b[1;33mlook" in result.stdout, "colours at a terminal"
    lines = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()
    assert [line for line in lines if len(line.rstrip()) > 80] == []
    assert len(lines) <= 45, "one screen"
    words = set(" ".join(lines).split())
    for whole in (
        "Distribution",
        "credential_refused",
        "hooks9.contoso.example",
        "2026-03-01",
        "credentials",
    ):
        assert any(whole in word for word in words), whole
    assert "3 not shown: --json shows all" in " ".join(lines)


def test_each_remedy_is_told_once() -> None:
    result = status_of(NEEDY).run("status")
    assert result.stdout.count("Give the connection a new client secret") == 1
    told = "Waits for Microsoft refuses the connection's credentials (2,500 devices, for 3 hours)"
    assert told in " ".join(result.stdout.split())


def test_values_of_others_cannot_command_the_terminal() -> None:
    evil = {**NEEDY["connections"][0], "name": "\x1b[2Jx"}
    result = status_of({**NEEDY, "connections": [evil]}).run("status")
    assert "\x1b" not in result.output


def test_an_api_that_is_away_is_down_and_a_key_that_is_wrong_is_an_error() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)

    wire = Wire()
    wire.first["GET", "/v1/status"] = [refuse]
    away = wire.run("status")
    assert away.exit_code == 1
    assert "DOWN  API" in away.stdout
    assert (len(wire.requests), wire.pauses) == (1, []), "an outage is told at once"
    wire.first["GET", "/v1/status"] = [lambda _: problem(503, "not_ready", "Not ready")]
    assert "DOWN  Database" in wire.run("status").stdout
    wire.first["GET", "/v1/status"] = [lambda _: problem(401, "unauthenticated", "No key")]
    refused = wire.run("status")
    assert refused.exit_code == 1
    assert "does not accept this API key" in refused.stderr

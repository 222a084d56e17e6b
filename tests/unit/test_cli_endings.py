"""Ends of commands: errors for programs, exit codes, version, completion, the API's address."""

from pathlib import Path

import httpx
import orjson
import pytest

from app import __version__
from app.cli import imports
from app.cli.api_client import ATTEMPTS, Api
from app.cli.outcome import EXIT_CODES, ExitCode, Stop
from app.cli.screen import Screen
from app.domain.catalogue import CATALOGUE
from tests.unit.cli_wire import DEVICES, KEY, Wire, problem
from tests.unit.test_cli_commands import refuse_connection


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_a_refusal_of_the_api_is_json_with_its_code_and_remedy(wire: Wire) -> None:
    wire.first["GET", "/v1/customers"] = [
        lambda _: problem(403, "scope_missing", "The API key may not do this", detail="It needs x.")
    ]
    result = wire.run("customers", "--json")
    assert result.exit_code == ExitCode.ERROR
    told = orjson.loads(result.stdout)
    assert told == {
        "code": "scope_missing",
        "title": "The API key may not do this",
        "detail": "It needs x.",
        "remedy": "Do this.",
        "exit_code": 1,
        "errors": [],
        "correlation_id": "c-1",
    }
    assert "may not do this" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("order", "no-such-order", "--json"), "name_not_found"),
        (("consent", "Nobody", "--json"), "name_not_found"),
        (("order", "--json"), "command_misused"),
        (("no-such-command", "--json"), "command_misused"),
        (("order", "R\udce9", "--json"), "command_misused"),
        (("partner", "create", "A\x00B", "--role", "oem", "--json"), "command_misused"),
        (("submit", "no-such-file.csv", "--json"), "command_failed"),
        (("validate", "no-such-file.csv", "--json"), "command_failed"),
    ],
)
def test_every_error_is_json_when_json_was_asked_for(
    wire: Wire, arguments: tuple[str, ...], code: str
) -> None:
    result = wire.run(*arguments)
    told = orjson.loads(result.stdout)
    assert told["code"] == code
    assert told["exit_code"] == result.exit_code == ExitCode.ERROR
    assert all(told[name] for name in ("title", "detail", "remedy"))
    assert told["detail"] in result.stderr
    assert wire.run(*arguments[:-1]).stdout == ""


def test_an_api_that_is_away_and_a_key_that_is_missing_have_their_codes(wire: Wire) -> None:
    wire.first["GET", "/v1/customers"] = [refuse_connection] * ATTEMPTS
    assert orjson.loads(wire.run("customers", "--json").stdout)["code"] == "api_unreachable"
    assert orjson.loads(wire.run("customers", "--json", key="").stdout)["code"] == "api_key_missing"
    wire.first["GET", "/v1/customers"] = [lambda _: httpx.Response(200, text="<html>")]
    assert orjson.loads(wire.run("customers", "--json").stdout)["code"] == "api_not_recognised"


def test_a_file_named_like_the_option_asks_for_no_json(wire: Wire) -> None:
    result = wire.run("submit", "--", "--json")
    assert result.exit_code == ExitCode.ERROR
    assert result.stdout == ""


def test_every_exit_code_has_its_meaning_and_help_shows_it(wire: Wire) -> None:
    assert set(EXIT_CODES) >= {int(code) for code in ExitCode}
    shown = " ".join(wire.run("--help").output.split())
    for code, words in EXIT_CODES.items():
        assert f"{code} {words}" in shown
    assert {Stop("", code=code).error_code for code in ExitCode} <= set(CATALOGUE)


def test_the_version_is_told(wire: Wire) -> None:
    result = wire.run("--version")
    assert (result.exit_code, result.stdout) == (0, f"registrar {__version__}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(wire: Wire, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The library looks for a shell among the parents of the process, and a test may have none.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = wire.run("--show-completion", shell)
    assert shown.exit_code == ExitCode.DONE, shown.output
    assert "_REGISTRAR_COMPLETE" in shown.stdout


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://127.0.0.1:8000/",
        "http://127.0.0.1:8000/v1",
        "http://127.0.0.1:8000/v1/",
    ],
)
def test_the_apis_address_is_taken_with_and_without_v1(wire: Wire, url: str) -> None:
    assert wire.run("customers", "--api-url", url).exit_code == ExitCode.DONE
    assert [str(request.url) for request in wire.requests] == [
        "http://127.0.0.1:8000/v1/customers?page_size=500"
    ]


def test_a_wrong_key_is_not_waited_for(wire: Wire) -> None:
    found = problem(429, "too_many_wrong_keys", "Too many calls with a wrong API key")
    found.headers["Retry-After"] = "60"
    wire.first["GET", "/v1/customers"] = [lambda _: found]
    result = wire.run("customers", "--json")
    assert (result.exit_code, wire.pauses) == (ExitCode.ERROR, [])
    assert orjson.loads(result.stdout)["code"] == "too_many_wrong_keys"


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("quota_exceeded", ExitCode.ERROR),
        ("order_rejected", ExitCode.REFUSED),
        ("of_a_later_release", ExitCode.REFUSED),
    ],
)
def test_submit_tells_programs_the_code_of_the_api(
    wire: Wire, tmp_path: Path, code: str, ends: ExitCode
) -> None:
    """A quota that is used up is not the file's fault."""
    file = tmp_path / "devices.csv"
    file.write_text(DEVICES)
    wire.first["POST", "/v1/orders"] = [lambda _: problem(422, code, "Refused")]
    result = wire.run("submit", str(file), "--customer", "contoso", "--json")
    told = orjson.loads(result.stdout)
    assert (told["code"], told["exit_code"], result.exit_code) == (code, ends, ends)


@pytest.mark.parametrize(
    ("code", "ends"), [("too_many_rows", ExitCode.REFUSED), ("quota_exceeded", ExitCode.ERROR)]
)
def test_an_import_that_was_refused_tells_programs_why(code: str, ends: ExitCode) -> None:
    stop = imports._over({"state": "refused", "failure": {"code": code, "detail": "No.", "remedy": "Do."}})
    assert (stop.document()["code"], stop.code) == (code, ends)


@pytest.mark.parametrize(
    ("column", "scopes", "says"),
    [
        ("hardware_hash", [], "Its hashes are left out"),
        ("hardware_hash", ["hashes:read"], "import that file"),
        ("model", [], "import that file"),
    ],
)
def test_rows_to_mend_without_their_hashes_are_said_to_be_so(
    wire: Wire,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    column: str,
    scopes: list[str],
    says: str,
) -> None:
    wire.first["GET", "/v1/imports/1/errors.csv"] = [lambda _: httpx.Response(200, content=b"row\r\n")]
    wire.first["GET", "/v1/me"] = [lambda _: httpx.Response(200, json={"scopes": scopes})]
    found = {"id": "1", "counts": {"invalid": 1}, "dialect": {"columns": [{"field": column}]}}
    with Api("http://127.0.0.1", KEY, transport=httpx.MockTransport(wire)) as api:
        imports._write_errors(Screen(json=False), api, found, tmp_path / "errors.csv")
    assert says in capsys.readouterr().out

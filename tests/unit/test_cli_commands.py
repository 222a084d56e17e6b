"""The command line beside submitting: the wire's moods, looking at orders, running the service."""

import re
from base64 import b64encode
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from app.cli.api_client import ATTEMPTS, LONGEST_PAUSE, Api, ApiRefusal
from app.cli.api_keys import PRESETS
from app.cli.customers import CONSENT_WORDS, EVIDENCE_WORDS
from app.cli.device_file import LONGEST
from app.cli.outcome import ExitCode, combine, judge_order
from app.cli.partners import ROLES
from app.cli.screen import FIELD_WORDS, ORDER_WORDS, STATE_WORDS
from app.domain.consent import ConsentState, Evidence
from app.domain.order import OrderState
from app.domain.registration import RegistrationState
from app.intake.rows import FIELDS
from app.services.access.identities import PartnerRole, Preset
from tests.unit.cli_wire import CUSTOMER, DEVICES, KEY, Wire, counts, problem, row_of


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    path = tmp_path / "delivery 7.csv"
    path.write_text(DEVICES)
    return path


# --- the wire -------------------------------------------------------------------------------------


def refuse_connection(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("Connection refused", request=request)


def test_an_api_that_does_not_run_is_told_in_words(wire: Wire) -> None:
    wire.first["GET", "/v1/customers"] = [refuse_connection] * ATTEMPTS
    result = wire.run("customers")
    assert result.exit_code == ExitCode.ERROR
    assert "The API at http://127.0.0.1:8000 does not answer." in result.stderr
    assert "`make up` starts it" in result.stderr
    assert len(wire.requests) == ATTEMPTS


@pytest.mark.parametrize("busy", [503, 429])
def test_reading_and_keyed_creation_are_repeated_after_the_time_asked_for(
    wire: Wire, devices: Path, busy: int
) -> None:
    answer = httpx.Response(busy, json={"title": "Busy"}, headers={"Retry-After": "7"})
    wire.first["GET", "/v1/customers"] = [lambda _: answer]
    wire.first["POST", "/v1/orders"] = [lambda _: answer]
    result = wire.run("submit", str(devices), "--customer", "contoso", "--no-watch")
    assert result.exit_code == ExitCode.DONE, result.output
    assert wire.pauses == [7.0, 7.0]
    assert len(wire.orders) == 1


def test_an_action_that_was_one_call_too_many_is_given_again_when_the_minute_is_over(
    wire: Wire, devices: Path
) -> None:
    wire.run("submit", str(devices), "--customer", "contoso", "--no-watch")
    path = f"/v1/orders/{UUID(int=100)}:cancel"
    done = httpx.Response(200, json={**wire.orders[str(UUID(int=100))], "counts": counts(cancelled=2)})
    wire.first["POST", path] = [lambda _: too_many(60), lambda _: done]
    result = wire.run("cancel", str(UUID(int=100)))
    assert result.exit_code == ExitCode.DONE, result.output
    assert wire.pauses == [60.0]


def test_a_file_is_asked_for_again_when_it_was_one_call_too_many(wire: Wire) -> None:
    path, pieces = "/v1/imports/1/errors.csv", list[bytes]()
    wire.first["GET", path] = [lambda _: too_many(12), lambda _: httpx.Response(200, content=b"row\r\n1\r\n")]
    with Api("http://127.0.0.1", KEY, transport=httpx.MockTransport(wire), sleep=wire.pauses.append) as api:
        api.save(path, pieces.append)
        assert (b"".join(pieces), wire.pauses) == (b"row\r\n1\r\n", [12.0])
        wire.first["GET", path] = [lambda _: too_many(12)] * ATTEMPTS
        with pytest.raises(ApiRefusal):
            api.save(path, pieces.append)


def test_patience_with_an_api_that_only_says_later_has_an_end(wire: Wire) -> None:
    wire.first["GET", "/v1/customers"] = [lambda _: too_many(3600)] * ATTEMPTS
    result = wire.run("customers")
    assert result.exit_code == ExitCode.ERROR
    assert "Too many calls with this API key" in result.stderr
    assert wire.pauses == [LONGEST_PAUSE] * (ATTEMPTS - 1)


def too_many(seconds: int) -> httpx.Response:
    found = problem(429, "rate_limited", "Too many calls with this API key")
    found.headers["Retry-After"] = str(seconds)
    return found


def test_an_answer_that_is_still_in_the_making_is_waited_for(wire: Wire, devices: Path) -> None:
    busy = problem(409, "idempotency_in_progress", "Still running")
    wire.first["POST", "/v1/orders"] = [lambda _: busy]
    assert wire.run("submit", str(devices), "--customer", "contoso", "--no-watch").exit_code == ExitCode.DONE
    assert len(wire.pauses) == 1


def test_an_action_without_a_key_is_not_repeated_when_its_answer_is_lost(wire: Wire, devices: Path) -> None:
    wire.run("submit", str(devices), "--customer", "contoso", "--no-watch")

    def lose(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset", request=request)

    path = f"/v1/orders/{UUID(int=100)}:cancel"
    wire.first["POST", path] = [lose]
    result = wire.run("cancel", str(UUID(int=100)))
    assert result.exit_code == ExitCode.ERROR
    assert "may have been carried out" in result.stderr
    assert sum(request.url.path == path for request in wire.requests) == 1


def test_following_an_order_survives_a_restart_of_the_api(wire: Wire, devices: Path) -> None:
    path = f"/v1/orders/{UUID(int=100)}"
    wire.first["GET", path] = [refuse_connection] * (2 * ATTEMPTS)
    result = wire.run("submit", str(devices), "--customer", "contoso")
    assert result.exit_code == ExitCode.DONE, result.output
    assert result.stdout.count("does not answer at the moment") == 1


def test_interrupting_ends_with_the_shells_own_code(wire: Wire, devices: Path) -> None:
    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    wire.first["GET", f"/v1/orders/{UUID(int=100)}"] = [interrupt]
    result = wire.run("submit", str(devices), "--customer", "contoso")
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "goes on" in result.stderr


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (problem(401, "unauthenticated", "No valid API key was sent"), "does not accept this API key"),
        (problem(403, "scope_missing", "The API key may not do this"), "may not do this"),
        (httpx.Response(200, text="<html>"), "is not Registrar's API"),
        (httpx.Response(502, json={"message": "bad gateway"}), "is not Registrar's API"),
    ],
)
def test_refusals_are_told_without_the_key(wire: Wire, answer: httpx.Response, words: str) -> None:
    wire.first["GET", "/v1/customers"] = [lambda _: answer]
    result = wire.run("customers")
    assert result.exit_code == ExitCode.ERROR
    assert words in result.stderr
    assert KEY not in result.output


@pytest.mark.parametrize("key", ["", "rk_a_b\u00e9", "rk a b"])
def test_an_unusable_key_is_refused_before_any_call(wire: Wire, key: str) -> None:
    result = wire.run("customers", key=key)
    assert result.exit_code == ExitCode.ERROR
    assert "REGISTRAR_API_KEY" in result.stderr
    assert not wire.requests
    assert not key or key not in result.output


@pytest.mark.parametrize("url", ["here", "ftp://host", "http://host:x"])
def test_an_unusable_address_is_refused_before_any_call(wire: Wire, url: str) -> None:
    result = wire.run("customers", "--api-url", url)
    assert result.exit_code == ExitCode.ERROR
    assert "REGISTRAR_API_URL looks like" in result.stderr


# --- looking --------------------------------------------------------------------------------------


def test_an_order_is_found_by_its_reference(wire: Wire, devices: Path) -> None:
    wire.run("submit", str(devices), "--customer", "contoso", "--reference", "PO-7", "--no-watch")
    result = wire.run("watch", "PO-7")
    assert result.exit_code == ExitCode.DONE, result.output
    missing = wire.run("order", "PO-8")
    assert missing.exit_code == ExitCode.ERROR
    assert "no order with the id or reference PO-8" in missing.stderr


def test_json_is_one_document_on_the_output_and_words_go_elsewhere(wire: Wire, devices: Path) -> None:
    result = wire.run("submit", str(devices), "--customer", "contoso", "--json")
    document = orjson.loads(result.stdout)
    assert document["exit_code"] == result.exit_code == 0
    assert document["orders"][0]["state"] == "completed"
    assert "is accepted" in result.stderr
    assert [c["name"] for c in orjson.loads(wire.run("customers", "--json").stdout)] == [
        "Contoso",
        "Fabrikam",
    ]


def test_found_devices_are_shown_with_customer_and_order(wire: Wire) -> None:
    wire.registrations = [row_of(RegistrationState.REGISTERED, error_code=None)]
    result = wire.run("find", "SYN")
    assert re.search(r"SYN1 +Contoso Book 14 +Contoso +Desk +registered +", result.stdout)
    assert wire.requests[0].url.params["serial_contains"] == "SYN"


def test_values_can_not_command_the_terminal(wire: Wire) -> None:
    wire.registrations = [row_of(RegistrationState.REGISTERED, error_code=None, model="[red]\x1b[2Jx\x07")]
    result = wire.run("find", "SYN")
    assert "\x1b" not in result.output
    assert "\x07" not in result.output
    assert "[red]\ufffd[2Jx\ufffd" in result.output


def test_consent_says_whether_devices_are_sent(wire: Wire) -> None:
    state = {**CUSTOMER["consent"], "state": "requested", "evidence": "link_issued"}
    consent: dict[str, Any] = {**state, "customer_id": CUSTOMER["id"], "lets_pass": False, "history": []}
    path = f"/v1/customers/{CUSTOMER['id']}/consent"
    wire.first["GET", path] = [lambda _: httpx.Response(200, json=consent)] * 2
    link = "https://admin.example/accept?" + "x" * 300
    wire.first["POST", f"{path}:request"] = [lambda _: httpx.Response(200, json={"url": link})]
    waiting = wire.run("consent", "contoso")
    assert waiting.exit_code == ExitCode.WAITING
    assert "asked for, not accepted yet" in waiting.stdout
    shown = wire.run("consent", "contoso", "--link")
    assert shown.exit_code == ExitCode.DONE
    assert link in shown.stdout, "a link that is broken over lines cannot be copied"


# --- operating ------------------------------------------------------------------------------------


def test_the_servers_take_the_process_over(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRAR_DATABASE_URL", "postgresql://registrar@127.0.0.1:1/registrar")
    monkeypatch.setenv("REGISTRAR_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("REGISTRAR_SECRET_KEYS", b64encode(bytes(32)).decode())
    assert wire.run("api").exit_code == ExitCode.DONE
    assert wire.run("worker").exit_code == ExitCode.DONE
    api, worker = wire.executed
    assert list(api[1:]) == ["-m", "app.serve"]
    assert list(worker[1:]) == ["-m", "workers.main"]


def test_databases_of_ones_own_are_not_run_by_registrar(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRAR_DATABASE_URL", "postgresql://registrar:hunter2@db/registrar")
    result = wire.run("databases")
    assert result.exit_code == ExitCode.ERROR
    assert "REGISTRAR_DATABASE_URL names a PostgreSQL of its own" in result.stderr
    assert "hunter2" not in result.output


def test_wrong_settings_are_named_and_their_values_are_not_shown(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRAR_API_PORT", "hunter2")
    result = wire.run("api")
    assert result.exit_code == ExitCode.ERROR
    assert "REGISTRAR_API_PORT: " in result.stderr
    assert "hunter2" not in result.output
    assert not wire.executed


@pytest.mark.parametrize("command", ["api", "worker"])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "REGISTRAR_DATABASE_URL",
            "mysql://u:hunter2@h/d",
            "REGISTRAR_DATABASE_URL: this is not a PostgreSQL URL",
        ),
        ("REGISTRAR_REDIS_URL", "http://u:hunter2@h", "REGISTRAR_REDIS_URL: this is not a Redis URL"),
        ("REGISTRAR_SECRET_KEYS", "hunter2", "REGISTRAR_SECRET_KEYS: keys must be base64"),
        ("REGISTRAR_SECRET_KEYS", "aHVudGVyMg==", "a secret key has 7 bytes; it needs 32."),
    ],
)
def test_a_server_does_not_start_on_settings_it_could_only_fail_with(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, command: str, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    result = wire.run(command)
    assert result.exit_code == ExitCode.ERROR
    assert words in result.stderr
    assert "hunter2" not in result.output
    assert not wire.executed


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:hunter2@h/d", "postgresql://u:hunter2@h:port/d"])
def test_a_database_url_that_is_none_is_refused_without_its_password(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REGISTRAR_DATABASE_URL", url)
    result = wire.run("partner", "list")
    assert result.exit_code == ExitCode.ERROR
    assert "REGISTRAR_DATABASE_URL: this is not a PostgreSQL URL" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    "arguments", [("sumbit",), ("submit",), ("find", "S", "--limit", "0"), ("submit", "--so")]
)
def test_a_wrong_call_is_an_error_and_not_partly_done(wire: Wire, arguments: tuple[str, ...]) -> None:
    result = wire.run(*arguments)
    assert result.exit_code == ExitCode.ERROR
    assert "--help` shows how to use it." in result.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("--help",), ("submit", "--help"), ("api-key", "create", "--help")]
)
def test_help_is_there(wire: Wire, arguments: tuple[str, ...]) -> None:
    result = wire.run(*arguments)
    assert result.exit_code == ExitCode.DONE
    assert "Usage: registrar" in result.stdout


# --- tables ---------------------------------------------------------------------------------------


def test_every_state_and_field_has_words() -> None:
    assert set(STATE_WORDS) == set(RegistrationState)
    assert set(ORDER_WORDS) == set(OrderState)
    assert set(CONSENT_WORDS) == set(ConsentState)
    assert set(EVIDENCE_WORDS) == set(Evidence)
    assert set(FIELD_WORDS) == set(FIELDS)
    assert set(LONGEST) < set(FIELDS)


def test_the_help_texts_name_every_role_and_preset() -> None:
    assert re.findall(r"[a-z_]+", ROLES.replace(" or ", " ")) == list(PartnerRole)
    assert PRESETS.split(", ") == list(Preset)


@pytest.mark.parametrize(
    ("state", "given", "code"),
    [
        ("completed", {"registered": 1, "already_registered": 2}, ExitCode.DONE),
        ("completed_with_errors", {"registered": 1, "failed": 1}, ExitCode.PARTIAL),
        ("failed", {"failed": 2}, ExitCode.PARTIAL),
        ("failed", {"invalid": 2}, ExitCode.REFUSED),
        ("held", {"held": 2, "invalid": 1}, ExitCode.WAITING),
        ("cancelled", {"cancelled": 2}, ExitCode.PARTIAL),
        ("in_progress", {"queued": 2}, ExitCode.DONE),
        ("in_progress", {"queued": 2, "invalid": 1}, ExitCode.PARTIAL),
    ],
)
def test_an_orders_outcome_decides_the_exit_code(state: str, given: dict[str, int], code: ExitCode) -> None:
    assert judge_order({"state": state, "counts": counts(**given)}) is code


def test_several_orders_end_with_what_needs_a_person_most() -> None:
    assert combine([ExitCode.DONE, ExitCode.DONE]) is ExitCode.DONE
    assert combine([ExitCode.DONE, ExitCode.REFUSED]) is ExitCode.PARTIAL
    assert combine([ExitCode.PARTIAL, ExitCode.WAITING]) is ExitCode.WAITING
    assert combine([ExitCode.REFUSED, ExitCode.REFUSED]) is ExitCode.REFUSED

"""Reasons that hold an order, at the command line: in plain words, and never waited for in silence."""

import re
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import typer
from typer.testing import CliRunner

from app.cli import app
from app.cli.following import REMINDER_S, seconds
from app.cli.outcome import ExitCode, combine, judge_followed, judge_now
from app.cli.screen import for_a_terminal
from app.cli.surroundings import Surroundings
from app.domain.catalogue import CATALOGUE, Category, lookup
from tests.unit.cli_wire import DEVICES, KEY, NOW, Wire, counts

WAITED_FOR = {Category.CONNECTION, Category.SERVICE, Category.UPSTREAM}

REFUSED: dict[str, Any] = {
    "code": "credential_refused",
    "title": "Microsoft refuses the connection's credentials",
    "advice": "person",
    "since": NOW,
    "until": None,
    "remedy": "Give the connection a new client secret or refresh token, then `:check` it.",
    "detail": "AADSTS50173 the grant was revoked",
    "devices": 2,
}
THROTTLED = {
    **REFUSED,
    "code": "upstream_throttled",
    "title": "Microsoft asks to slow down",
    "advice": "retry",
    "until": "2026-03-01T10:05:00.000Z",
    "remedy": "Nothing to do: Registrar waits as long as Microsoft asked.",
    "detail": None,
}
CONSENT = {**REFUSED, "code": "consent_missing", "title": "The customer has not accepted yet"}
TURN = {**REFUSED, "code": "waiting_for_turn", "title": "Other work goes first", "advice": "none"}
STUCK = {"state": "in_progress", "counts": {"queued": 2}, "waiting_for": [REFUSED]}
MOVING = {"state": "in_progress", "counts": {"queued": 2}, "waiting_for": [TURN]}
DONE = {"state": "completed", "counts": {"registered": 2}, "waiting_for": []}


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    path = tmp_path / "delivery.csv"
    path.write_text(DEVICES)
    return path


def placed(devices: Path, *outcomes: dict[str, Any]) -> Wire:
    wire = Wire(outcomes=outcomes)
    result = wire.run("submit", str(devices), "--customer", "contoso", "--reference", "PO-7", "--no-watch")
    assert result.exit_code == ExitCode.DONE, result.output
    return wire


def flat(text: str) -> str:
    return " ".join(text.split())


def test_one_look_says_what_holds_the_order_since_when_and_what_to_do(devices: Path) -> None:
    wire = placed(devices, STUCK)
    wire.orders["00000000-0000-0000-0000-000000000064"]["waiting_for"] = [REFUSED]
    result = wire.run("order", "PO-7")
    assert result.exit_code == 5
    for words in (
        "Waiting: Microsoft refuses the connection's credentials.",
        "Since 2026-03-01 10:00 UTC",
        "Until somebody has acted",
        "AADSTS50173 the grant was revoked",
        "What to do Give the connection a new client secret or refresh token, then `:check` it.",
        "Devices 2 devices",
    ):
        assert words in flat(result.stdout), words


def test_what_passes_by_itself_is_shown_with_its_end_and_is_no_alarm(devices: Path) -> None:
    wire = placed(devices, MOVING)
    wire.orders["00000000-0000-0000-0000-000000000064"]["waiting_for"] = [THROTTLED, TURN]
    result = wire.run("order", "PO-7")
    assert result.exit_code == ExitCode.DONE
    assert "Until 2026-03-01 10:05 UTC" in flat(result.stdout)
    assert "Waiting: Other work goes first." in result.stdout


def test_a_reason_fits_80_columns_and_breaks_no_word(devices: Path) -> None:
    wire = placed(devices, STUCK)
    wire.orders["00000000-0000-0000-0000-000000000064"]["waiting_for"] = [REFUSED]
    environment = {"REGISTRAR_API_KEY": KEY, "COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    surroundings = Surroundings(transport=httpx.MockTransport(wire))
    result = CliRunner().invoke(app, ["order", "PO-7"], obj=surroundings, env=environment)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()
    shown = lines[lines.index("Waiting: Microsoft refuses the connection's credentials.") :]
    assert [line for line in shown if len(line.rstrip()) > 80] == []
    words = set(" ".join(shown).split())
    assert set(REFUSED["remedy"].split()) | set(REFUSED["detail"].split()) <= words
    longest = max((entry.title for entry in CATALOGUE.values() if entry.category in WAITED_FOR), key=len)
    assert len(f"Waiting: {longest}.") <= 80


def test_watching_ends_with_5_when_the_time_is_up_and_says_why(devices: Path) -> None:
    wire = placed(devices, STUCK)
    result = wire.run("watch", "PO-7", "--timeout", "1m")
    assert result.exit_code == ExitCode.STILL_WAITING
    assert "Not over after 1 minute" in result.stdout
    assert sum(wire.pauses) == pytest.approx(60, abs=1)
    assert "`registrar watch 00000000-0000-0000-0000-000000000064` follows it again." in result.stdout
    assert result.stdout.count("Waiting: Microsoft refuses") == 2, "when it begins, and at the end"


def test_watching_something_that_only_takes_long_ends_with_5_too(devices: Path) -> None:
    wire = placed(devices, MOVING)
    result = wire.run("watch", "PO-7", "--timeout", "7")
    assert result.exit_code == ExitCode.STILL_WAITING
    assert "Waiting: Other work goes first." in result.stdout


def test_what_is_over_in_time_ends_as_ever(devices: Path) -> None:
    wire = placed(devices, STUCK, MOVING, DONE)
    result = wire.run("watch", "PO-7", "--timeout", "1h")
    assert result.exit_code == ExitCode.DONE, result.output
    assert "Nothing holds the order any more; it goes on." in result.stdout
    assert "Not over" not in result.stdout


def test_submitting_ends_with_5_when_the_time_is_up(devices: Path) -> None:
    wire = Wire(outcomes=[STUCK])
    result = wire.run("submit", str(devices), "--customer", "contoso", "--timeout", "30s", "--json")
    assert result.exit_code == ExitCode.STILL_WAITING
    document = orjson.loads(result.stdout)
    assert document["exit_code"] == 5
    assert document["orders"][0]["waiting_for"] == [REFUSED]
    assert "Waiting: Microsoft refuses" in result.stderr


def test_without_a_timeout_nobody_waits_in_silence(devices: Path) -> None:
    looks = int(2.5 * REMINDER_S / 3)
    wire = placed(devices, *[STUCK] * looks, DONE)
    result = wire.run("watch", "PO-7")
    assert result.exit_code == ExitCode.DONE
    assert result.stdout.count("Still waiting after") == 2
    assert result.stdout.count("Waiting: Microsoft refuses") == 3


def test_an_api_that_falls_silent_is_not_waited_for_longer_than_the_timeout(devices: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)

    wire = placed(devices, STUCK)
    wire.first["GET", "/v1/orders/00000000-0000-0000-0000-000000000064"] = [refuse] * 400
    result = wire.run("watch", "PO-7", "--timeout", "20")
    assert result.exit_code == ExitCode.ERROR
    assert "does not answer" in result.stderr
    assert sum(wire.pauses) < 60


def test_what_ends_the_following_is_left_to_the_last_words(devices: Path) -> None:
    held = {"state": "held", "counts": {"held": 2}, "waiting_for": [CONSENT]}
    result = placed(devices, held).run("watch", "PO-7", "--timeout", "1m")
    assert result.exit_code == ExitCode.WAITING
    assert "Waiting: The customer" not in result.stdout
    assert "will be sent automatically as soon as Contoso consents" in result.stdout


def test_an_older_api_that_tells_no_reasons_is_followed_as_before(devices: Path) -> None:
    wire = placed(devices, {"state": "in_progress", "counts": {"queued": 2}}, DONE)
    assert wire.run("watch", "PO-7").exit_code == ExitCode.DONE


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90", 90.0), ("90s", 90.0), ("10m", 600.0), ("1h30m", 5400.0), ("0", 0.0), ("1.5m", 90.0)],
)
def test_a_duration_is_read_as_people_write_it(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "soon", "10 m", "-5", "5d", "1h30x", "10 20", "1m2m3", "m"])
def test_a_duration_that_is_none_is_refused(text: str, devices: Path) -> None:
    with pytest.raises(typer.BadParameter):
        seconds(text)
    result = placed(devices, DONE).run("watch", "PO-7", f"--timeout={text}")
    assert result.exit_code == ExitCode.ERROR
    assert "90s, 10m or 1h30m" in flat(result.stderr)


def test_the_codes_of_one_look_and_of_following() -> None:
    order: dict[str, Any] = {"state": "in_progress", "counts": counts(queued=2)}
    assert judge_now(order) is ExitCode.DONE
    assert judge_now({**order, "waiting_for": [THROTTLED]}) is ExitCode.DONE
    assert judge_now({**order, "waiting_for": [REFUSED]}) is ExitCode.STILL_WAITING
    assert judge_now({**order, "portal": True, "waiting_for": [REFUSED]}) is ExitCode.WAITING
    assert judge_followed(order) is ExitCode.STILL_WAITING
    held = {"state": "held", "counts": counts(held=2), "waiting_for": [REFUSED, CONSENT]}
    assert judge_now(held) is judge_followed(held) is ExitCode.WAITING
    assert combine([ExitCode.DONE, ExitCode.STILL_WAITING]) is ExitCode.STILL_WAITING
    assert combine([ExitCode.STILL_WAITING, ExitCode.WAITING]) is ExitCode.WAITING


def test_a_remedy_names_the_command_and_not_the_route() -> None:
    remedy = lookup("consent_missing").remedy
    assert "`POST /v1/customers/{id}/consent:request`" in remedy
    assert "`registrar consent CUSTOMER --link`" in for_a_terminal(remedy)
    assert "POST" not in for_a_terminal(remedy)

"""API keys at the command line: what has to be said, and the key that its holder replaces."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app.cli import api_keys, profile_store
from app.cli.outcome import ExitCode, Stop
from app.cli.profile_store import Profile, Profiles
from app.domain.scope import Scope
from app.services.access.identities import PRESETS, Preset
from tests.unit.cli_wire import KEY, NOW, Wire

NEW = "rgstr_9f8e7d6c_" + "n" * 58
ROTATED: dict[str, Any] = {
    "key": NEW,
    "prefix": "9f8e7d6c",
    "name": "order system",
    "scopes": ["orders:read"],
    "expires_at": None,
    "previous_key_until": NOW,
}


@pytest.fixture
def wire() -> Wire:
    return Wire()


def answer(wire: Wire, path: str, status: int, body: dict[str, Any] | None) -> None:
    wire.first.setdefault(("POST", path), []).append(
        lambda _: httpx.Response(status, json=body) if body else httpx.Response(status)
    )


def test_making_a_key_asks_what_it_may_do(wire: Wire) -> None:
    result = wire.run("api-key", "create", "--partner", "Contoso", "--name", "order system")
    assert result.exit_code == ExitCode.ERROR
    assert "The command does not say what the key may do." in result.stderr
    for choice in (*Preset, *Scope):
        assert choice.value in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", timedelta(days=90)),
        ("90d", timedelta(days=90)),
        ("365 days", timedelta(days=365)),
        (" 1 day ", timedelta(days=1)),
        ("never", None),
        ("Never", None),
        ("2027-06-30", datetime(2027, 6, 30, 23, 59, 59, 999999, UTC)),
    ],
)
def test_an_expiry_is_days_a_date_or_never(text: str, expected: timedelta | datetime | None) -> None:
    assert api_keys._expiry(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "36501", "2027-13-01", "90 weeks", "9" * 400, "²"])
def test_what_is_no_expiry_is_refused_in_words(text: str) -> None:
    with pytest.raises(Stop, match="is not an expiry date"):
        api_keys._expiry(text)


def test_a_year_is_proposed() -> None:
    assert api_keys._expiry(api_keys.EXPIRES) == timedelta(days=365)


def test_presets_and_scopes_may_be_mixed() -> None:
    assert api_keys._scopes(["operator"]) == list(Scope)
    assert api_keys._scopes(["READ-ONLY", "orders:write", "orders:write"]) == [
        scope for scope in Scope if scope in {*PRESETS[Preset.READ_ONLY], Scope.ORDERS_WRITE}
    ]
    with pytest.raises(Stop, match="There is no scope 'orders'"):
        api_keys._scopes(["orders"])


def test_the_holder_replaces_its_key_and_sees_the_new_one_once(wire: Wire) -> None:
    answer(wire, "/v1/me/key:rotate", 200, ROTATED)
    result = wire.run("api-key", "rotate", "--overlap-hours", "2")
    assert result.exit_code == ExitCode.DONE, result.output
    assert NEW in result.stdout
    assert KEY not in result.output
    sent = wire.requests[-1]
    assert orjson.loads(sent.content) == {"overlap_seconds": 7200}
    assert sent.headers["Idempotency-Key"]


def test_a_profile_has_its_new_key_from_then_on(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    profile_store.save(Profiles({"prod": Profile("http://one", KEY), "b": Profile("http://two", "k")}, "b"))
    answer(wire, "/v1/me/key:rotate", 200, ROTATED)
    document = orjson.loads(
        wire.run("api-key", "rotate", "--json", env={"XDG_CONFIG_HOME": str(tmp_path)}).stdout
    )
    assert document == {**ROTATED, "profile": "prod"}
    known = profile_store.load()
    assert {name: profile.key for name, profile in known.by_name.items()} == {"prod": NEW, "b": "k"}
    assert known.used == "b"


def test_the_holder_ends_its_own_key(wire: Wire) -> None:
    answer(wire, "/v1/me/key:revoke", 204, None)
    result = wire.run("api-key", "revoke", "--own", "--yes")
    assert result.exit_code == ExitCode.DONE, result.output
    assert "Your API key is revoked" in result.stdout


@pytest.mark.parametrize(
    "arguments", [(), ("0a1b2c3d",), ("--partner", "P"), ("0a1b2c3d", "--own"), ("--own", "--partner", "P")]
)
def test_which_key_is_revoked_is_said_once(wire: Wire, arguments: tuple[str, ...]) -> None:
    assert wire.run("api-key", "revoke", *arguments).exit_code == ExitCode.ERROR
    assert wire.requests == []

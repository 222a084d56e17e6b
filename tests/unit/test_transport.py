"""Encryption in the URLs of PostgreSQL and Redis, read as libpq and redis-py read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.db.clock import DatabaseClock
from app.db.connecting import arguments_of, normalise_url
from app.kernel.budgets import Budgets, policy_for
from app.kernel.queue import redis_settings
from app.kernel.settings import Settings
from app.kernel.transport import (
    POSTGRESQL_PARAMETERS,
    postgresql_faults,
    postgresql_in_clear_text,
    redis_in_clear_text,
    ssl_mode,
)

HOST = "postgresql://registrar:secret@database.example/registrar"
BARE: dict[str, str] = {}


def faults(query: str, environment: dict[str, str] = BARE) -> str:
    return "; ".join(postgresql_faults(f"{HOST}?{query}", environment))


@pytest.mark.parametrize(
    ("query", "environment", "mode"),
    [
        ("", {}, "prefer"),
        ("sslmode=disable", {}, "disable"),
        ("sslmode=disable&sslmode=require", {}, "require"),
        ("ssl=true", {}, "require"),
        ("ssl=verify-full", {}, "verify-full"),
        ("", {"PGSSLMODE": "verify-ca"}, "verify-ca"),
        ("sslmode=allow", {"PGSSLMODE": "verify-ca"}, "allow"),
        ("sslrootcert=system", {}, "verify-full"),
        ("", {"PGSSLROOTCERT": "system"}, "verify-full"),
    ],
)
def test_the_mode_is_the_one_libpq_would_take(query: str, environment: dict[str, str], mode: str) -> None:
    assert ssl_mode(f"{HOST}?{query}", environment) == mode


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sslmode=verify_full", "use one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("sslmode=require&sslrootcert=system", "too weak for sslrootcert=system"),
        ("sslmode=verify-full", "needs the certificate authority of the server"),
        ("sslmode=verify-ca&sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem is no PEM file that can be read"),
        ("sslmode=require&sslcert=/nowhere/c.pem&sslkey=/nowhere/k.pem", "are no certificate with its key"),
        ("ssl_mode=require", "ssl_mode= is not a parameter that Registrar knows"),
        ("channel_binding=require", "channel_binding=require is not supported"),
        ("gssencmode=require", "gssencmode=require is not supported"),
    ],
)
def test_what_would_fail_or_mean_something_else_is_refused(
    query: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert words in faults(query)
    assert "secret" not in faults(query)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "sslmode=require",
        "sslmode=prefer&application_name=other&keepalives=1&gssencmode=prefer&sslsni=1",
        "sslrootcert=system",
        "sslmode=disable&sslrootcert=/nowhere/ca.pem",  # libpq does not read it either
        "connect_timeout=3&options=-c%20search_path%3Dpublic&target_session_attrs=read-write",
    ],
)
def test_what_libpq_takes_is_taken(query: str) -> None:
    assert faults(query) == ""


def test_no_parameter_reaches_the_driver_under_a_name_that_it_does_not_know() -> None:
    url = HOST + "?" + "&".join(f"{name}=1" for name in sorted(POSTGRESQL_PARAMETERS - {"host", "port"}))
    assert set(normalise_url(url).query) == {
        "user",
        "password",
        "database",
        "passfile",
        "target_session_attrs",
    }
    arguments = arguments_of(url)
    assert arguments["timeout"] == 1
    assert arguments["server_settings"] == {"options": "1"}
    assert "sslmode=1" in arguments["dsn"]
    assert set(arguments) == {"dsn", "timeout", "server_settings"}


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        (HOST, True),
        (HOST + "?sslmode=prefer", True),
        (HOST + "?sslmode=allow", True),
        (HOST + "?sslmode=disable", True),
        (HOST + "?sslmode=require", False),
        (HOST + "?sslrootcert=system", False),
        ("postgresql://u:p@10.1.2.3/d", True),
        ("postgresql://u:p@127.0.0.1/d", False),
        ("postgresql://u:p@[::1]/d", False),
        ("postgresql://u:p@localhost/d?sslmode=disable", False),
        ("postgresql://u:p@localhost.example/d", True),
        ("postgresql:///d?host=/run/postgresql", False),
        ("postgresql:///d?host=%2Frun%2Fpostgresql", False),
        ("postgresql://u@/d?host=one:5432&host=127.0.0.1:5432", True),
        ("postgresql://u@localhost/d?host=database.example", True),
        ("postgresql:///d", False),
    ],
)
def test_clear_text_over_a_network_is_seen(url: str, clear: bool) -> None:
    assert postgresql_in_clear_text(url, BARE) is clear
    assert postgresql_in_clear_text(url, {"PGSSLMODE": "require"}) is (clear and "sslmode" in url)


def test_a_host_of_the_environment_counts() -> None:
    assert postgresql_in_clear_text("postgresql:///d", {"PGHOST": "database.example"})


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("redis://redis:6379/0", True),
        ("redis://:pw@10.0.0.1", True),
        ("redis://localhost:6379", False),
        ("redis://127.1.2.3:6379", False),
        ("redis://[::1]:6379", False),
        ("rediss://redis:6379/0", False),
        ("unix:///run/valkey.sock", False),
    ],
)
def test_clear_text_to_redis_is_seen(url: str, clear: bool) -> None:
    assert redis_in_clear_text(url) is clear


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (True, "required", None)),
        ("?ssl_ca_certs=/etc/ca.pem", (True, "required", "/etc/ca.pem")),
        ("?ssl_cert_reqs=none", (False, "none", None)),
        ("?ssl_check_hostname=false", (False, "required", None)),
    ],
)
async def test_both_clients_of_redis_verify_the_same(query: str, expected: tuple[object, ...]) -> None:
    url = f"rediss://user:p%40ss@redis:6380/1{query}"
    queue = redis_settings(url, attempts=1)
    assert (queue.ssl, queue.username, queue.password) == (True, "user", "p@ss")
    assert (queue.ssl_check_hostname, queue.ssl_cert_reqs, queue.ssl_ca_certs) == expected
    budgets = Budgets.open(url, policy_for(Settings()), DatabaseClock().now)
    made = budgets.redis.connection_pool.connection_kwargs
    assert made["ssl_check_hostname"] is expected[0]
    assert made.get("ssl_cert_reqs", "required") == expected[1]
    assert made.get("ssl_ca_certs") == expected[2]
    await budgets.close()

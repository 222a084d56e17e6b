"""`sslmode=` and related parameters of the database URL, against PostgreSQL behind a relay with TLS.

The wheel's server is built without TLS. `.ci/run` tests TLS with the distribution's server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from app.db.connecting import make_engine
from app.kernel.transport import postgresql_faults
from tests.support.authority import Authority
from tests.support.relay import Relay
from tests.support.servers import Servers


@pytest.fixture
async def relay(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Relay]:
    monkeypatch.setenv("HOME", str(tmp_path))  # where libpq looks for unnamed certificates
    made = Relay(servers.database_url, Authority.make(tmp_path, "ours"))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


async def connection(relay: Relay, query: str, host: str = "127.0.0.1") -> bool | None:
    """Whether the connection was encrypted; None if it could not be made."""
    bare = make_url(relay.upstream).set(host=host, port=relay.port, query={})
    engine = make_engine(f"{bare.render_as_string(hide_password=False)}?{query}", poolclass=NullPool)
    try:
        async with engine.begin() as session:
            assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
    except (SQLAlchemyError, OSError):
        return None
    finally:
        await engine.dispose()
    return relay.came[0]


async def test_each_mode_does_what_libpq_says(relay: Relay, tmp_path: Path) -> None:
    ours, foreign = relay.authority.certificate, Authority.make(tmp_path, "foreign").certificate
    expected = {
        "": True,
        "sslmode=disable": False,
        "sslmode=allow": False,
        "sslmode=prefer": True,
        "sslmode=require": True,
        f"sslmode=require&sslrootcert={foreign}": None,
        f"sslmode=verify-ca&sslrootcert={ours}": True,
        f"sslmode=verify-ca&sslrootcert={foreign}": None,
        f"sslmode=verify-full&sslrootcert={ours}": True,
        f"sslmode=verify-full&sslrootcert={foreign}": None,
        "sslrootcert=system": None,
    }
    assert {query: await connection(relay, query) for query in expected} == expected


async def test_a_server_that_has_no_tls_is_spoken_to_only_where_that_is_allowed(relay: Relay) -> None:
    relay.speaks_tls = False
    ours = relay.authority.certificate
    expected = {
        "sslmode=prefer": False,
        "sslmode=require": None,
        f"sslmode=verify-full&sslrootcert={ours}": None,
        "sslrootcert=system": None,
    }
    assert {query: await connection(relay, query) for query in expected} == expected


async def test_only_verify_full_asks_whether_the_name_is_the_servers(relay: Relay) -> None:
    """Its certificate is for 127.0.0.1, not for the name that is used here."""
    root = f"sslrootcert={relay.authority.certificate}"
    assert await connection(relay, f"sslmode=verify-ca&{root}", "localhost") is True
    assert await connection(relay, f"sslmode=verify-full&{root}", "localhost") is None


async def test_the_systems_authorities_can_be_trusted(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(relay.authority.certificate))
    assert await connection(relay, "sslrootcert=system") is True
    assert await connection(relay, "sslrootcert=system", "localhost") is None


async def test_a_client_shows_its_certificate(relay: Relay) -> None:
    certificate, key = relay.authority.issue("registrar")
    root = f"sslmode=verify-full&sslrootcert={relay.authority.certificate}"
    shown = f"{root}&sslcert={certificate}&sslkey={key}"
    assert list(postgresql_faults(f"postgresql://u@h/d?{shown}")) == []
    names = []
    for query in (shown, root):
        assert await connection(relay, query) is True
        names.append(relay.came[1])
    assert names == ["registrar", None]

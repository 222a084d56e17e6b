"""The servers of a test run: PostgreSQL and Valkey (ours, or the environment's), and the simulator."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import uvicorn
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from app.db import schema
from app.db.connecting import make_engine
from app.local.embedded import Embedded
from simulator.main import build

INSUFFICIENT_PRIVILEGE = "42501"


@dataclass(frozen=True)
class Servers:
    database_url: str
    redis_url: str


def given_servers() -> list[Servers]:
    """The servers in TEST_SERVERS: a database URL and a Redis URL for each test process.

    Each test process needs its own servers, because tests empty Redis, inspect all locks of PostgreSQL and
    create roles.
    """
    urls = os.environ.get("TEST_SERVERS", "").split()
    return [Servers(*pair) for pair in zip(urls[::2], urls[1::2], strict=True)]


def _own_servers() -> Servers | None:
    """This test process's servers of the given ones; None if none are given."""
    given = given_servers()
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return given[number] if given else None


@contextmanager
def open_servers() -> Iterator[Servers]:
    """The given servers, otherwise new ones from their wheels."""
    given = _own_servers()
    if given is not None:
        yield given
        return
    directory = Path(tempfile.mkdtemp(prefix="registrar-test-"))
    try:
        with Embedded.open(directory, durable=False) as embedded:
            yield Servers(embedded.endpoints.database_url, embedded.endpoints.redis_url)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def make_cluster(place: Path) -> Path:
    """A data directory after its first start, with its servers stopped, to copy."""
    Embedded.open(place, durable=False).close()
    return place


def copy_cluster(made: Path, data_dir: Path) -> Path:
    """Copies PostgreSQL's files to a new data directory, to save the seconds of a first start.

    Nothing else is copied: locks, sockets and logs belong to one directory.
    """
    data_dir.mkdir(mode=0o700, parents=True)
    # cp keeps the owner; shutil does not.
    subprocess.run(["cp", "-Rp", str(made / "postgres"), str(data_dir / "postgres")], check=True)
    return data_dir


@asynccontextmanager
async def empty_database(server_url: str) -> AsyncIterator[str]:
    """A new database without tables on the server, dropped at the end."""
    name = f"test_{uuid4().hex[:12]}"
    admin = make_engine(server_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with admin.connect() as session:
        await session.execute(text(f'CREATE DATABASE "{name}"'))
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        await _drop(admin, name)
        await admin.dispose()


async def _drop(admin: AsyncEngine, name: str) -> None:
    """Waits for an autovacuum of the database, which we may not end."""
    async with asyncio.timeout(30), admin.connect() as session:
        while True:
            try:
                await session.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
                    raise
            else:
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def fresh_database(server_url: str) -> AsyncIterator[str]:
    """A new migrated database on the server, dropped at the end."""
    async with empty_database(server_url) as url:
        await schema.migrate(url)
        yield url


@asynccontextmanager
async def serve_simulator() -> AsyncIterator[str]:
    """The simulator on a free port of this process; yields its URL."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    config = uvicorn.Config(
        build(),
        host="127.0.0.1",
        port=port,
        log_level="error",
        timeout_graceful_shutdown=1,
        # Closing an idle connection would break a test's call at that moment.
        timeout_keep_alive=3600,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task

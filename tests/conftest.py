"""Fixtures: servers and a database once a test process, everything emptied before each test."""

import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.connecting import make_engine
from tests.support import drawing
from tests.support.published import require_all_published
from tests.support.servers import (
    Servers,
    fresh_database,
    given_servers,
    make_cluster,
    open_servers,
    serve_simulator,
)
from tests.support.world import World, open_world, settings_for

FIRST = (
    "tests/e2e/test_ten_thousand.py",
    "tests/e2e/test_local_stack.py",
)
"""Files with the longest tests. Begun last, they would keep one worker busy while the others are done."""


def pytest_xdist_auto_num_workers() -> int:
    """How many processes `make test` takes: as many as there are given servers, each process has its own.

    Otherwise two at least, because the tests of real processes wait most of their time; no more than four,
    because those tests follow each other in one process and are half of the whole time.
    """
    return len(given_servers()) or min(max(os.cpu_count() or 1, 2), 4)


def pytest_configure() -> None:
    """Nothing that imports and collection make is garbage: looking for some would take seconds."""
    gc.disable()
    drawing.load()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and getattr(item.obj, "is_hypothesis_test", False):
            item.add_marker("drawn")

    def place(item: pytest.Item) -> int:
        path = item.nodeid.partition("::")[0]
        return FIRST.index(path) if path in FIRST else len(FIRST)

    items.sort(key=place)  # stable: all else stays as it was


def pytest_collection_finish() -> None:
    """What the imports and the collection made stays to the end: no garbage collection looks at it again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with open_servers() as found:
        yield found


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory to copy with `copy_cluster`, for tests whose subject is not the first start."""
    return make_cluster(tmp_path_factory.mktemp("cluster") / "data")


@pytest_asyncio.fixture(scope="session")
async def database_url(servers: Servers) -> AsyncIterator[str]:
    async with fresh_database(servers.database_url) as url:
        yield url


@pytest_asyncio.fixture
async def owner(database_url: str) -> AsyncIterator[AsyncConnection]:
    """A transaction of the owner of the tables, taken back at the end."""
    engine = make_engine(database_url, poolclass=NullPool)
    async with engine.connect() as session:
        yield session
        await session.rollback()
    await engine.dispose()


@pytest_asyncio.fixture(scope="session")
async def simulator_url() -> AsyncIterator[str]:
    async with serve_simulator() as url:
        yield url


@pytest_asyncio.fixture(scope="session")
async def _world(servers: Servers, database_url: str, simulator_url: str) -> AsyncIterator[World]:
    world = await open_world(settings_for(servers, database_url, simulator_url))
    yield world
    await world.client.aclose()
    await world.simulator.aclose()
    await world.runtime.close()


@pytest_asyncio.fixture
async def world(_world: World) -> AsyncIterator[World]:
    """An empty world. Whatever events a test leaves in it have the shapes that are published."""
    await _world.clear()
    yield _world
    await require_all_published(_world)

"""Fixtures: servers and a database once per test process, emptied before each test."""

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
"""Files with the longest tests. Begun last, they would keep one process busy after the others are done."""


def pytest_xdist_auto_num_workers() -> int:
    """The number of test processes: one for each given pair of servers.

    Otherwise at least two, because tests of real processes mostly wait, and at most four, because those tests
    run one after another in one process and take half of the whole time.
    """
    return len(given_servers()) or min(max(os.cpu_count() or 1, 2), 4)


def pytest_configure() -> None:
    """Turns off garbage collection, which would take seconds during imports and collection and find
    nothing."""
    gc.disable()
    drawing.load()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and getattr(item.obj, "is_hypothesis_test", False):
            item.add_marker("drawn")

    def place(item: pytest.Item) -> int:
        path = item.nodeid.partition("::")[0]
        return FIRST.index(path) if path in FIRST else len(FIRST)

    items.sort(key=place)  # stable: the others keep their order


def pytest_collection_finish() -> None:
    """Freezes the objects of imports and collection, which stay to the end."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with open_servers() as found:
        yield found


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory to copy with `copy_cluster`, for tests that are not about the first start."""
    return make_cluster(tmp_path_factory.mktemp("cluster") / "data")


@pytest_asyncio.fixture(scope="session")
async def database_url(servers: Servers) -> AsyncIterator[str]:
    async with fresh_database(servers.database_url) as url:
        yield url


@pytest_asyncio.fixture
async def owner(database_url: str) -> AsyncIterator[AsyncConnection]:
    """A transaction of the tables' owner, rolled back at the end."""
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
    """An empty world. At the end, checks that all events in it have their published shapes."""
    await _world.clear()
    yield _world
    await require_all_published(_world)

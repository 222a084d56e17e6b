"""Fixtures: servers once a run, a database once a test process, everything emptied before each test."""

import gc
import ssl
from collections.abc import AsyncIterator, Iterator
from functools import cache

import pytest
import pytest_asyncio

from tests.servers import Servers, fresh_database, open_servers, serve_simulator
from tests.world import World, open_world, settings_for


def pytest_collection_finish() -> None:
    """What the imports and the collection made stays to the end: no garbage collection looks at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _certificates_once() -> Iterator[None]:
    """Every new HTTP client would read the machine's certificates again, which takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with open_servers() as found:
        yield found


@pytest_asyncio.fixture(scope="session")
async def database_url(servers: Servers) -> AsyncIterator[str]:
    async with fresh_database(servers.database_url) as url:
        yield url


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
async def world(_world: World) -> World:
    await _world.clear()
    return _world

"""The cost of a call in threads, statements and round trips. The benchmarks measure times."""

from collections.abc import Callable, Iterator
from inspect import iscoroutinefunction
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from app.db.driver import Direct
from tests.support.statements import sent_by
from tests.support.world import World

AUTHENTICATION = 1
"""One statement; only behind a pooler it needs a transaction."""
BEGIN, COMMIT = 1, 1
LIST, COUNTS = 1, 1


def _calls_of(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    """The route's own function and those of its dependencies."""
    if dependant.call is not None:
        yield dependant.call
    for part in dependant.dependencies:
        yield from _calls_of(part)


async def test_no_part_of_a_route_needs_a_thread(world: World) -> None:
    """The framework runs plain functions in threads, and switching waits for whatever keeps Python busy."""
    routes = [found.route for found in iter_route_contexts(world.app.routes)]
    dependants = [route.dependant for route in routes if hasattr(route, "dependant")]
    assert dependants
    plain = {
        call.__qualname__
        for dependant in dependants
        for call in _calls_of(dependant)
        if not iscoroutinefunction(call)
    }
    assert plain == set()


async def trips_of(world: World, path: str, headers: dict[str, str]) -> list[str]:
    """The statements that a GET sends to the database, except for two that are rare: reading the clock, and
    noting the key's use, which an earlier call does here."""
    assert (await world.client.get(path, headers=headers)).status_code == 200
    async with sent_by(world.runtime.engine) as sent:
        assert (await world.client.get(path, headers=headers)).status_code == 200
    return [trip for trip in sent.texts if "clock_timestamp" not in trip]


async def test_a_call_needs_few_round_trips_to_the_database(world: World) -> None:
    partner = await world.partner()
    async with world.runtime.engine.connect() as session:
        direct = issubclass(type((await session.get_raw_connection()).driver_connection), Direct)
    authentication = AUTHENTICATION if direct else BEGIN + AUTHENTICATION + COMMIT
    trips = await trips_of(world, "/v1/orders?page_size=5", partner.headers)
    assert len(trips) == authentication + BEGIN + LIST + COUNTS + COMMIT, trips
    assert len(await trips_of(world, "/v1/me", partner.headers)) == authentication

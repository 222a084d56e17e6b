"""What a call costs, in counts: threads, statements and round trips. Times are for the benchmarks."""

from collections.abc import Callable, Iterator
from inspect import iscoroutinefunction
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from tests.world import World


def _calls_of(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    """The route's own function and those of its dependencies."""
    if dependant.call is not None:
        yield dependant.call
    for part in dependant.dependencies:
        yield from _calls_of(part)


async def test_no_part_of_a_route_needs_a_thread(world: World) -> None:
    """The framework runs a plain function in one, and its switches wait for whatever keeps Python busy."""
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

"""A lane: takes due work until nothing is left or its time is over.

A wake-up opens a lane; the rows say what to do. So a thousand wake-ups for the same work cost a thousand
queries that find nothing, and one wake-up is enough for a thousand rows.
"""

import time
from collections.abc import Awaitable, Callable

SLICE = 2.0
"""Seconds after which a lane ends and asks to be woken again. A worker that is told to stop ends its lanes
within this time plus one step."""


async def run_lane(step: Callable[[], Awaitable[bool]], again: Callable[[], Awaitable[None]]) -> int:
    """Repeats `step` while it finds work. Returns how many times it did."""
    ends = time.monotonic() + SLICE
    done = 0
    while await step():
        done += 1
        if time.monotonic() >= ends:
            await again()
            break
    return done

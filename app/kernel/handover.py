"""Releases claims after a database outage, retrying for a few seconds.

A restart of the database is over in seconds; the end of a lease would cost minutes.
"""

import asyncio
from collections.abc import Awaitable, Callable

PAUSES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 4.0)
"""Seconds before each try."""


async def hand_over_patiently(hand_over: Callable[[], Awaitable[bool]]) -> None:
    """Tries until `hand_over` returns that the claim was released, or the pauses are used up."""
    for pause in PAUSES:
        await asyncio.sleep(pause)
        if await hand_over():
            return

"""Large bodies take turns: so many in a process at a time, so many of one partner, and fairly.

A body of 64 MB needs its own size twice while it is decoded, and decoding keeps other work of the process
waiting.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from app.domain.errors import Busy
from app.domain.ids import PartnerId
from app.fair_turns import FairTurns, NoTurn

LARGE_BODY: Final = 512 * 1024
"""Bytes. A larger body waits for its turn before it is read."""
RETRY_AFTER: Final = 10


@asynccontextmanager
async def body_turn(turns: FairTurns, partner_id: PartnerId) -> AsyncIterator[None]:
    """Lasts as long as the block runs. Raises Busy when it does not come in time."""
    try:
        await turns.take(partner_id)
    except NoTurn:
        raise Busy(
            "large_bodies_waiting",
            f"At most {turns.total} bodies over {LARGE_BODY // 1024} kB are read at a time, {turns.each} of "
            f"one partner. It was not its turn for {turns.patience or 0:.0f} s.",
            retry_after=RETRY_AFTER,
        ) from None
    try:
        yield
    finally:
        turns.give(partner_id)

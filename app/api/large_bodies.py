"""Large bodies take turns: a few in a process at a time, fewer of one partner, in rounds over partners.

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
    """Holds a turn while the block runs. Raises Busy when the turn does not come in time."""
    try:
        await turns.take(partner_id)
    except NoTurn:
        raise Busy(
            "large_bodies_waiting",
            f"At most {turns.total} bodies over {LARGE_BODY // 1024} kB are read at a time, {turns.each} of "
            f"one partner. This one waited {turns.patience or 0:.0f} s for its turn.",
            retry_after=RETRY_AFTER,
        ) from None
    try:
        yield
    finally:
        turns.give(partner_id)

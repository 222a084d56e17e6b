"""Turns of large bodies: a few in a process at a time, fewer of one partner, in rounds over partners.

A body of 64 MB takes twice its size in memory while it is decoded, and keeps other work of the process
waiting. A turn is held while the body arrives, so a slow body gives way when others wait.
"""

from contextlib import AbstractAsyncContextManager
from typing import Final

from app.domain.errors import Busy
from app.domain.ids import PartnerId
from app.kernel.fair_turns import FairTurns, NoTurn

LARGE_BODY: Final = 512 * 1024
"""Bytes. A larger body waits for its turn before it is read."""
RETRY_AFTER: Final = 10
SLOW: Final = 64 * 1024
"""Bytes per second. A body that arrives more slowly keeps its turn only while no other partner's waits."""
GRACE_S: Final = 10.0
"""Seconds before a body's rate is judged."""


def body_turn(turns: FairTurns, partner_id: PartnerId) -> AbstractAsyncContextManager[None]:
    """Holds a turn while the block runs. Raises Busy when the turn does not come in time."""

    def refused(_: NoTurn) -> Busy:
        return Busy(
            "large_bodies_waiting",
            f"At most {turns.total} bodies over {LARGE_BODY // 1024} kB are read at a time, {turns.each} of "
            f"one partner. This one waited {turns.patience or 0:.0f} s for its turn.",
            retry_after=RETRY_AFTER,
        )

    return turns.turn(partner_id, refused)


def give_way(turns: FairTurns, partner_id: PartnerId, size: int, seconds: float) -> None:
    """Raises Busy for a body that is too slow, if another partner's body waits and all turns are taken."""
    if seconds <= GRACE_S or size >= SLOW * seconds or turns.held < turns.total:
        return
    if turns.waiting > turns.waiting_of(partner_id):
        raise Busy(
            "large_bodies_waiting",
            f"The body arrived at less than {SLOW // 1024} kB per second while others waited for its turn.",
            retry_after=RETRY_AFTER,
        )

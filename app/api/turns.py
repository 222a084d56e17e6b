"""Turns of calls: so many of one partner are worked on at a time, and the others wait in its own line.

What is held for a call is given back when its answer has gone out, or was broken off. Large pages and large
orders need a second turn, of which there are few: they are work for the processor, and everybody's. That one
is given back when the answer begins, for its work is done then, and a client may read as slowly as it likes.
"""

from collections.abc import Callable
from contextlib import suppress

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.errors import Busy, RateLimited
from app.domain.ids import PartnerId
from app.fair_turns import FairTurns, LineFull, WaitedTooLong
from app.runtime import Runtime

RETRY_AFTER = 2
"""Seconds after which a partner's calls of this moment have mostly been answered."""
LARGE_PAGE = 200
"""Items from which a page is one of the large ones."""


class CallTurns:
    """Gives back what calls hold, however they end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Callable[[], None]] = []
        heavy: list[Callable[[], None]] = []
        if scope["type"] == "http":
            scope.setdefault("state", {}).update(turns=held, heavy_turns=heavy)

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":
                _give_back(heavy)
            await send(message)

        try:
            await self.app(scope, receive, answering)
        finally:
            _give_back(heavy)
            _give_back(held)


def _give_back(held: list[Callable[[], None]]) -> None:
    while held:
        held.pop()()


async def take_call(request: Request, runtime: Runtime, partner_id: PartnerId) -> None:
    """A turn for this call. Raises RateLimited, or Busy where others have kept the process busy."""
    await _take(runtime.turns.calls, partner_id, request.state.turns)
    with suppress(ValueError):  # what is no number is refused elsewhere
        if int(request.query_params.get("page_size", "0")) >= LARGE_PAGE:
            await take_heavy(request, runtime, partner_id)


async def take_heavy(request: Request, runtime: Runtime, partner_id: PartnerId) -> None:
    """A turn for what keeps the processor or the database busy for long; one for a call. Raises alike."""
    if getattr(request.state, "is_heavy", False):
        return
    request.state.is_heavy = True
    await _take(runtime.turns.heavy, partner_id, request.state.heavy_turns)


async def _take(turns: FairTurns, partner_id: PartnerId, held: list[Callable[[], None]]) -> None:
    try:
        await turns.take(partner_id)
    except LineFull:
        words = f"{turns.held_by(partner_id)} of your calls are worked on, and {turns.line} wait already."
        raise RateLimited("too_many_calls_at_once", words, retry_after=RETRY_AFTER) from None
    except WaitedTooLong:
        words = f"The call waited {turns.patience:g} seconds for its turn. Nothing has been done."
        raise Busy("turn_did_not_come", words, retry_after=RETRY_AFTER) from None
    held.append(lambda: turns.give(partner_id))

"""Turns of calls: a few calls of one partner run at a time, and its others wait in its own line.

A call returns its turns when its answer has been sent or broken off. Large pages and large orders need a
second turn, of which there are few, because they keep the shared processor busy. It is returned when the
answer begins: the work is done then, and the client may read slowly.

While other partners call, turns yield to them (docs/adr/0026).
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from time import monotonic

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.actor import Principal
from app.domain.errors import Busy, RateLimited
from app.domain.ids import PartnerId
from app.kernel.fair_turns import FairTurns, LineFull, NoTurn
from app.runtime import Runtime

RETRY_AFTER = 2
"""Seconds after which most of a partner's current calls have been answered."""
LARGE_PAGE = 200
"""Items from which a page counts as large."""


class CallTurns:
    """Returns the turns that a call holds, however the call ends."""

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


async def take_call(request: Request, runtime: Runtime, principal: Principal) -> None:
    """Waits for this call's turn. Raises RateLimited where the line is full, or Busy after a long wait."""
    await _take(runtime.turns.calls, principal.partner_id, request.state.turns)
    with suppress(ValueError):  # an invalid number is refused elsewhere
        if int(request.query_params.get("page_size", "0")) >= LARGE_PAGE:
            await take_heavy(request, runtime, principal)


async def take_heavy(request: Request, runtime: Runtime, principal: Principal) -> None:
    """Waits for the second turn, of calls that keep the processor or the database busy for long. Raises like
    `take_call`. A call takes it once at most."""
    if getattr(request.state, "is_heavy", False):
        return
    request.state.is_heavy = True
    await _take(runtime.turns.heavy, principal.partner_id, request.state.heavy_turns)


def step(runtime: Runtime, principal: Principal) -> AbstractAsyncContextManager[None]:
    """A turn for the beginning of a call that may take minutes and holds none meanwhile. Raises like
    `take_call`."""
    turns = runtime.turns.calls
    return turns.turn(principal.partner_id, partial(_refusal, turns, principal.partner_id))


async def _take(turns: FairTurns, partner_id: PartnerId, held: list[Callable[[], None]]) -> None:
    try:
        await turns.take(partner_id)
    except NoTurn as missed:
        raise _refusal(turns, partner_id, missed) from None
    begun = monotonic()
    held.append(lambda: turns.give(partner_id, monotonic() - begun))


def _refusal(turns: FairTurns, partner_id: PartnerId, missed: NoTurn) -> Exception:
    if isinstance(missed, LineFull):
        words = (
            f"{turns.held_by(partner_id)} of your calls are being worked on, and {turns.line} are waiting."
        )
        return RateLimited("too_many_calls_at_once", words, retry_after=RETRY_AFTER)
    words = f"The call waited {turns.patience:g} seconds for its turn. Nothing has been done."
    return Busy("turn_did_not_come", words, retry_after=RETRY_AFTER)

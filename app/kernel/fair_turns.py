"""Turns in one process: a limit for all, a limit for each partner, and rounds over the partners that wait.

Used for calls, large bodies and orders, and database connections. A partner that asks for more than its share
waits in its own line, and the lines are served in turn, so that one partner's backlog does not delay others.
The state is in the memory of one process and belongs to one event loop.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self

from app.domain.schedule import share_of
from app.kernel.settings import Settings

ACTIVE_S: Final = 2.0
"""Seconds after its last call for which a partner counts as active."""
LONGEST_REST_S: Final = 1.0
"""The longest rest of a turn, in seconds."""
PIECES_PER_PARTNER: Final = 2
"""Pieces of one partner's uploads that a process compresses and stores at the same time."""
BODY_PATIENCE: Final = 30.0
"""Seconds a large body waits, unread, before it is refused."""
CONNECTION_PATIENCE: Final = 30.0
"""Seconds a transaction waits for a database connection."""


class NoTurn(Exception):
    """The turn did not come, and nothing was begun."""


class LineFull(NoTurn):
    """The partner's line is full."""


class WaitedTooLong(NoTurn):
    """The turn did not come in time."""


@dataclass(slots=True)
class _Line:
    """A partner's held turns and its waiting requests, oldest first."""

    held: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Activity:
    """The partners that have called recently."""

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._called: OrderedDict[Hashable, float] = OrderedDict()
        """The time of each partner's last call, the latest at the end."""

    def __len__(self) -> int:
        return len(self._called)

    def note(self, whose: Hashable) -> None:
        now = self._steady()
        self._called[whose] = now
        self._called.move_to_end(whose)
        while now - next(iter(self._called.values())) > ACTIVE_S:
            self._called.popitem(last=False)

    def has_other(self, whose: Hashable) -> bool:
        """Whether a partner other than this one is active."""
        for other, called in reversed(self._called.items()):
            if other != whose:
                return self._steady() - called <= ACTIVE_S
        return False


class FairTurns:
    """At most `total` turns at a time, of which one partner has at most `each`.

    While several partners wait, each has at most its equal part (`share_of`). One partner alone never gets
    the last `kept_free` turns, so that another partner is served at once. At most `line` requests of one
    partner wait, each for `patience` seconds; None: without a bound.

    `yields_to`: while another partner is active there, a partner has half of `each`, and its turns rest after
    their work for as long as the work took. So the processor is free for the others in between. A single
    partner notices nothing, and one that sends one call at a time hardly anything.
    """

    def __init__(
        self,
        total: int,
        *,
        each: int | None = None,
        kept_free: int = 0,
        line: int | None = None,
        patience: float | None = None,
        yields_to: Activity | None = None,
    ) -> None:
        self.total = total
        self.each = total if each is None else each
        self.kept_free = kept_free
        self.line = line
        self.patience = patience
        self._activity = yields_to
        self._held = 0
        self._lines: dict[Hashable, _Line] = {}
        self._round: dict[Hashable, None] = {}
        """The partners that wait, the next one first. A dict keeps its order, and removes quickly."""

    @asynccontextmanager
    async def turn(
        self, whose: Hashable, refusal: Callable[[NoTurn], Exception] | None = None
    ) -> AsyncIterator[None]:
        """Waits for a turn of this partner and holds it while the block runs.

        Raises what `refusal` makes of NoTurn; without one, NoTurn itself.
        """
        try:
            await self.take(whose)
        except NoTurn as missed:
            if refusal is None:
                raise
            raise refusal(missed) from missed
        begun = time.monotonic()
        try:
            yield
        finally:
            self.give(whose, time.monotonic() - begun)

    async def take(self, whose: Hashable) -> None:
        """Like `turn`, without a block: give each turn back exactly once."""
        line = self._lines.get(whose)
        if line is None:
            line = self._lines[whose] = _Line()
        if not line.waiting and self._may_take(whose, line):
            self._grant(line)
            return
        if self.line is not None and len(line.waiting) >= self.line:
            self._forget(whose, line)
            raise LineFull
        await self._wait(whose, line)

    def give(self, whose: Hashable, worked_s: float = 0.0) -> None:
        """`worked_s`: how long the turn was used. It rests as long if other partners are active."""
        if worked_s > 0 and self._yields(whose):
            rest = min(worked_s, LONGEST_REST_S)
            asyncio.get_running_loop().call_later(rest, self._free, whose)
        else:
            self._free(whose)

    def _free(self, whose: Hashable) -> None:
        line = self._lines[whose]
        line.held -= 1
        self._held -= 1
        self._forget(whose, line)
        self._serve()

    def held_by(self, whose: Hashable) -> int:
        line = self._lines.get(whose)
        return 0 if line is None else line.held

    def waiting_of(self, whose: Hashable) -> int:
        line = self._lines.get(whose)
        return 0 if line is None else len(line.waiting)

    @property
    def held(self) -> int:
        return self._held

    @property
    def waiting(self) -> int:
        return sum(len(self._lines[whose].waiting) for whose in self._round)

    async def _wait(self, whose: Hashable, line: _Line) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        self._round.setdefault(whose)
        try:
            async with asyncio.timeout(self.patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(whose)  # the turn came just as we gave up waiting
            else:
                if turn in line.waiting:
                    line.waiting.remove(turn)
                if not line.waiting:
                    self._round.pop(whose, None)
                self._forget(whose, line)
                self._serve()  # fewer partners wait, so their shares have grown
            if isinstance(error, TimeoutError):
                raise WaitedTooLong from None
            raise

    def _may_take(self, whose: Hashable, line: _Line) -> bool:
        waiting = len(self._round) + (whose not in self._round)
        each = max(1, self.each // 2) if self._yields(whose) else self.each
        most = min(each, share_of(self.total, waiting, kept_free=self.kept_free))
        return self._held < self.total and line.held < most

    def _yields(self, whose: Hashable) -> bool:
        return self._activity is not None and self._activity.has_other(whose)

    def _grant(self, line: _Line) -> None:
        line.held += 1
        self._held += 1

    def _serve(self) -> None:
        """Hands out what is free, one turn to each partner that waits, round after round."""
        while self._held < self.total:
            for whose in self._round:
                line = self._lines[whose]
                if self._may_take(whose, line):
                    break
            else:
                return
            turn = line.waiting.popleft()
            del self._round[whose]
            if line.waiting:
                self._round[whose] = None  # behind all others that wait
            if not turn.done():  # otherwise its owner has just given up waiting, and removes it
                self._grant(line)
                turn.set_result(None)

    def _forget(self, whose: Hashable, line: _Line) -> None:
        """Removes a partner that neither holds nor waits, because processes run for months."""
        if not line.held and not line.waiting:
            self._lines.pop(whose, None)


@dataclass(frozen=True)
class Turns:
    """The resources that partners share in this process."""

    activity: Activity
    """The partners that have called this process recently."""
    calls: FairTurns
    heavy: FairTurns
    """Large orders and pages, which keep the processor busy for long."""
    bodies: FairTurns
    """Large bodies, whose bytes and objects are in memory at the same time."""
    pieces: FairTurns
    """Pieces of uploads, while they are compressed and stored."""
    connections: FairTurns
    """Database connections for partners' transactions. One more is for claims, keys and housekeeping."""
    imports: FairTurns
    """Readers of imports in this process, one for each lane."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        line, patience = settings.calls_waiting_per_partner, settings.call_patience_s
        pool = settings.database_pool_size
        activity = Activity()
        return cls(
            activity=activity,
            calls=FairTurns(
                settings.calls_at_once,
                each=settings.calls_at_once_per_partner,
                line=line,
                patience=patience,
                yields_to=activity,
            ),
            heavy=FairTurns(settings.heavy_calls_at_once, kept_free=1, line=line, patience=patience),
            bodies=FairTurns(
                settings.large_bodies, each=settings.large_bodies_per_partner, patience=BODY_PATIENCE
            ),
            pieces=FairTurns(2 * PIECES_PER_PARTNER, each=PIECES_PER_PARTNER, yields_to=activity),
            connections=FairTurns(max(1, pool - 1), kept_free=1, patience=CONNECTION_PATIENCE),
            imports=FairTurns(settings.import_lanes),
        )

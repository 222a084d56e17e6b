"""A reading's turn: the right to use this process's processor, passed on after each time slice.

A worker begins more imports than it has lanes, and they take turns here, in rounds over partners. So a file
of three rows is read while one of a million is under way, even with one lane. The reader runs in a thread and
calls `breathe` wherever it reads bytes; when its slice is over it waits there for its next turn. Meanwhile
its claim is renewed, so that a waiting reading does not count as dead.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final, Self, TypeVar, TypeVarTuple

from anyio import from_thread, to_thread

from app.domain.ids import PartnerId
from app.kernel.fair_turns import FairTurns

Given = TypeVarTuple("Given")
Result = TypeVar("Result")

SLICE: Final = 0.2
"""Seconds in a slice."""


class ReadingOver(Exception):
    """The reading has ended but its thread has not: it was cancelled, or its time ran out."""


class Turn:
    """One reading's place among the others. Entering the block takes no turn: `take` waits for one."""

    def __init__(
        self, turns: FairTurns, partner_id: PartnerId, between: Callable[[], Awaitable[None]]
    ) -> None:
        """`between` is called after each slice, and may raise what ends the reading."""
        self._turns = turns
        self._partner_id = partner_id
        self._between = between
        self._has_turn = False
        self._is_over = False
        self._ends = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        self.give()

    async def run(
        self,
        work: Callable[[*Given], Result],
        *given: *Given,
        abandon_on_cancel: bool = False,
    ) -> Result:
        """Runs the work in a thread during the reading's turns; the work calls `breathe`."""
        await self.take()
        try:
            return await to_thread.run_sync(work, *given, abandon_on_cancel=abandon_on_cancel)
        finally:
            self.give()

    async def take(self) -> None:
        """Waits for a turn of one slice. In the thread, `breathe` takes the next ones."""
        if not self._has_turn:
            await self._turns.take(self._partner_id)
            self._has_turn = True
            if self._is_over:
                self.give()
                raise ReadingOver
        self._ends = time.monotonic() + SLICE

    def give(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._turns.give(self._partner_id)

    @property
    def is_used_up(self) -> bool:
        return time.monotonic() >= self._ends

    def breathe(self) -> None:
        """Called in the reader's thread: waits for the next turn if the slice is over."""
        if self.is_used_up:
            from_thread.run(self._pass_on)

    async def _pass_on(self) -> None:
        if self._is_over:
            raise ReadingOver
        self.give()
        await self._between()
        await self.take()

"""Turns in one process: shares, rounds, bounds, and what is given up while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.fair_turns import ACTIVE_S, Activity, FairTurns, LineFull, NoTurn, WaitedTooLong


class Scene:
    """Takers that hold their turn until they are told to give it back, and the order of their turns."""

    def __init__(self, turns: FairTurns) -> None:
        self.turns = turns
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ends: dict[str, asyncio.Event] = {}

    async def come(self, *names: str) -> None:
        """`a1` is the first of partner a."""
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._take(name))
            await settle()

    async def _take(self, name: str) -> None:
        async with self.turns.turn(name[0]):
            self.served.append(name)
            await self.ends[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await settle()

    async def close(self) -> None:
        for event in self.ends.values():
            event.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def settle() -> None:
    """Lets every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_partner_alone_has_every_turn_and_its_next_one_waits() -> None:
    scene = Scene(FairTurns(2))
    await scene.come("a1", "a2", "a3")
    assert scene.served == ["a1", "a2"]
    await scene.end("a1")
    assert scene.served == ["a1", "a2", "a3"]
    await scene.close()


async def test_partner_has_at_most_its_own_bound_and_another_is_served_at_once() -> None:
    scene = Scene(FairTurns(4, each=2))
    await scene.come("a1", "a2", "a3", "a4", "b1")
    assert scene.served == ["a1", "a2", "b1"]
    assert scene.turns.waiting_of("a") == 2
    await scene.close()


async def test_turns_kept_free_are_there_for_whoever_comes_second() -> None:
    scene = Scene(FairTurns(3, kept_free=1))
    await scene.come("a1", "a2", "a3", "b1")
    assert scene.served == ["a1", "a2", "b1"]
    await scene.close()


async def test_those_that_wait_are_served_in_rounds_over_partners() -> None:
    scene = Scene(FairTurns(1))
    await scene.come("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    for name in ("a1", "a2", "b1", "c1", "a3", "b2"):
        await scene.end(name)
    assert scene.served == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
    await scene.close()


async def test_partner_that_waits_beside_another_keeps_to_its_share() -> None:
    scene = Scene(FairTurns(4))
    await scene.come("a1", "a2", "a3", "a4", "a5", "a6", "b1", "b2", "b3")
    await scene.end("a1", "a2")
    assert scene.served[4:] == ["b1", "b2"], "a holds its half already"
    await scene.end("b1", "b2")
    assert scene.served[6:] == ["b3", "a5"], "b alone has nothing left, so that a may take more"
    await scene.close()


async def test_line_of_a_partner_is_bounded_and_no_other_feels_it() -> None:
    scene = Scene(FairTurns(2, each=1, line=2))
    await scene.come("a1", "a2", "a3")
    with pytest.raises(LineFull):
        async with scene.turns.turn("a"):
            pass
    await scene.come("b1")
    assert scene.served == ["a1", "b1"]
    await scene.close()


async def test_patience_ends_the_wait_and_leaves_nothing_behind() -> None:
    turns = FairTurns(1, patience=0)
    async with turns.turn("a"):
        with pytest.raises(WaitedTooLong):
            async with turns.turn("b"):
                pass
        assert turns.waiting == 0
    async with turns.turn("b"):
        assert turns.held_by("b") == 1
    assert turns.held == 0


async def test_what_is_cancelled_while_it_waits_gives_its_place_to_the_next() -> None:
    scene = Scene(FairTurns(1))
    await scene.come("a1", "b1", "c1")
    scene.tasks["b1"].cancel()
    await scene.end("a1")
    assert scene.served == ["a1", "c1"]
    await scene.close()
    assert scene.turns.held == 0


async def test_turn_that_comes_in_the_moment_of_the_cancellation_goes_to_the_next() -> None:
    turns = FairTurns(1)
    await turns.take("a")
    second, third = (asyncio.create_task(turns.take(whose)) for whose in "bc")
    await settle()
    turns.give("a")  # the second has its turn, and has not run since
    second.cancel()
    await settle()
    assert second.cancelled()
    assert third.done()
    assert (turns.held_by("b"), turns.held_by("c"), turns.held) == (0, 1, 1)


async def test_turn_that_is_free_in_the_moment_of_the_cancellation_goes_to_the_next() -> None:
    turns = FairTurns(1)
    await turns.take("a")
    second, third = (asyncio.create_task(turns.take(whose)) for whose in "bc")
    await settle()
    second.cancel()  # it has not run since
    turns.give("a")
    await settle()
    assert second.cancelled()
    assert third.done()
    assert (turns.held_by("b"), turns.held_by("c"), turns.held, turns.waiting) == (0, 1, 1, 0)
    turns.give("c")
    assert turns.held == 0


async def test_partner_that_is_away_is_forgotten() -> None:
    turns = FairTurns(2, line=0)
    for number in range(100):
        async with turns.turn(number):
            pass
    with pytest.raises(LineFull):
        async with turns.turn("a"), turns.turn("a"), turns.turn("a"):
            pass
    assert not turns._lines
    assert not turns._round


async def test_partner_beside_an_active_one_has_half_of_its_turns() -> None:
    activity = Activity(steady=lambda: 0.0)
    scene = Scene(FairTurns(8, each=4, yields_to=activity))
    activity.note("a")
    await scene.come("a1", "a2", "a3")
    assert scene.served == ["a1", "a2", "a3"], "alone it has them all"
    activity.note("b")
    await scene.come("a4", "a5", "b1")
    assert scene.served[3:] == ["b1"]
    await scene.close()


async def test_turn_rests_after_its_work_beside_an_active_partner() -> None:
    activity = Activity(steady=lambda: 0.0)
    turns = FairTurns(2, each=2, yields_to=activity)
    activity.note("a")
    await turns.take("a")
    turns.give("a", worked_s=0.01)
    assert turns.held == 0, "alone it does not rest"
    activity.note("b")
    await turns.take("a")
    turns.give("a", worked_s=0.01)
    assert turns.held_by("a") == 1, "it rests as long as it worked"
    await turns.take("a")
    assert turns.held_by("a") == 1, "the next one came when the rest was over"


async def test_resting_turn_of_one_partner_keeps_none_from_another() -> None:
    activity = Activity(steady=lambda: 0.0)
    turns = FairTurns(2, each=2, yields_to=activity)
    for whose in "ab":
        activity.note(whose)
    await turns.take("a")
    turns.give("a", worked_s=60)
    await turns.take("b")
    assert (turns.held_by("a"), turns.held_by("b")) == (1, 1)


def test_partner_is_active_for_a_while_after_its_call_and_then_forgotten() -> None:
    now = 0.0
    activity = Activity(lambda: now)
    activity.note("a")
    activity.note("b")
    assert activity.has_other("a")
    assert activity.has_other("c")
    now = ACTIVE_S + 0.1
    assert not activity.has_other("a")
    activity.note("c")
    assert len(activity) == 1
    assert not activity.has_other("c")


@given(st.data())
def test_no_bound_is_passed_and_no_free_turn_is_withheld(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 6))
    each = data.draw(st.integers(1, 6))
    moves = data.draw(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
    asyncio.run(_walk(FairTurns(total, each=each, line=5), moves))


async def _walk(turns: FairTurns, moves: list[tuple[str, bool]]) -> None:
    holding: dict[Hashable, int] = dict.fromkeys("abc", 0)
    tasks: list[asyncio.Task[None]] = []

    async def take(whose: str) -> None:
        await turns.take(whose)
        holding[whose] += 1

    for whose, comes in moves:
        if comes:
            tasks.append(asyncio.create_task(take(whose)))
        elif holding[whose]:
            holding[whose] -= 1
            turns.give(whose)
        await settle()
        assert turns.held == sum(holding.values()) <= turns.total
        for each in "abc":
            assert holding[each] == turns.held_by(each) <= turns.each
            if turns.waiting_of(each) and turns.held < turns.total:
                assert holding[each] > 0, "one that waits has its share already"
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        assert found is None or isinstance(found, asyncio.CancelledError | NoTurn)

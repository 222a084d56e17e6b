"""Large bodies take turns, fairly."""

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from app.api.large_bodies import LargeBodies
from app.domain.errors import Busy
from app.domain.ids import PartnerId

A, B, C = (PartnerId(UUID(int=n)) for n in (1, 2, 3))


class Queue:
    """Bodies that are being read until they are told to end."""

    def __init__(self, large_bodies: LargeBodies) -> None:
        self.large_bodies = large_bodies
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def add(self, name: str, partner: PartnerId) -> None:
        self.ends[name] = asyncio.Event()

        async def run() -> None:
            async with self.large_bodies.turn(partner):
                self.begun.append(name)
                await self.ends[name].wait()

        self.tasks[name] = asyncio.create_task(run())
        await self.settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await self.settle()

    async def settle(self) -> None:
        """Lets every task go on as far as it can; none of them waits for anything but an event."""
        for _ in range(20):
            await asyncio.sleep(0)


async def test_a_partner_has_its_share_and_the_others_pass_it() -> None:
    queue = Queue(LargeBodies(per_process=3, per_partner=2))
    for name in ("a1", "a2", "a3", "a4"):
        await queue.add(name, A)
    assert queue.begun == ["a1", "a2"]
    await queue.add("b1", B)
    assert queue.begun == ["a1", "a2", "b1"]
    await queue.add("b2", B)
    await queue.add("c1", C)
    assert queue.begun == ["a1", "a2", "b1"]
    # The longest waiting partner first, then by turns.
    await queue.end("a1")
    await queue.end("a2")
    await queue.end("b1")
    assert queue.begun == ["a1", "a2", "b1", "a3", "b2", "c1"]
    for name in ("a3", "a4", "b2", "c1"):
        await queue.end(name)
    assert queue.begun[-1] == "a4"


async def test_who_has_no_turn_in_time_is_told_when_to_come_again() -> None:
    large_bodies = LargeBodies(per_process=2, per_partner=1, patience=0.01)
    async with large_bodies.turn(A):
        with pytest.raises(Busy) as refused:
            await large_bodies.turn(A).__aenter__()
        assert (refused.value.code, refused.value.retry_after) == ("large_bodies_waiting", 10)
        async with large_bodies.turn(B):
            pass
    async with large_bodies.turn(A):
        pass


@pytest.mark.parametrize("granted", [False, True], ids=["waiting", "just granted"])
async def test_who_goes_away_leaves_its_place_to_the_next(granted: bool) -> None:
    large_bodies = LargeBodies(per_process=1, per_partner=1)
    queue = Queue(large_bodies)
    for name in ("a1", "a2", "a3"):
        await queue.add(name, A)
    if granted:
        # In the same step: the turn is given and the request is cancelled.
        queue.ends["a1"].set()
        await queue.tasks["a1"]
    queue.tasks["a2"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await queue.tasks["a2"]
    if not granted:
        await queue.end("a1")
    await queue.settle()
    assert queue.begun[-1] == "a3"
    await queue.end("a3")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(large_bodies.turn(B))

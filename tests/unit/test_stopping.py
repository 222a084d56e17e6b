"""Tasks of a worker that stops: ended even when a cancellation gets lost."""

import asyncio
import contextlib

from workers.stopping import end_tasks


async def test_a_task_that_loses_its_first_cancellation_is_ended_all_the_same() -> None:
    lost = 0

    async def deaf_once() -> None:
        nonlocal lost
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        lost += 1
        await asyncio.Event().wait()

    deaf, ordinary = asyncio.create_task(deaf_once()), asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)  # so that both have begun to wait

    async with asyncio.timeout(30):
        await end_tasks([deaf, ordinary])

    assert lost == 1
    assert deaf.cancelled()
    assert ordinary.cancelled()

"""The worker's heartbeat on its own machine: a file that is touched while the event loop runs.

It asks neither the database nor Redis: a worker that waits for them is alive, and a restart would not help.
`registrar worker --probe` looks at the file's time.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.kernel.telemetry import logger

log = logger("worker")


@asynccontextmanager
async def showing_life(path: Path, every_s: float) -> AsyncIterator[None]:
    """Touches the file at intervals; removes it at the end."""
    task = asyncio.create_task(_touch_repeatedly(path, every_s))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        _forget(path)


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


async def _touch_repeatedly(path: Path, every_s: float) -> None:
    told = False
    while True:
        try:
            touch(path)
        except OSError as error:
            if not told:
                log.warning("alive_file_not_written", path=str(path), error=type(error).__name__)
            told = True
        await asyncio.sleep(every_s)


def touch(path: Path) -> None:
    """Touches the file, but follows no link, because the directory may be writable for everybody."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.utime(descriptor)
    finally:
        os.close(descriptor)

"""A worker or an API as a separate process on a test's world: the real program, to kill."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from app.domain.order import FINAL
from tests.support.world import Partner, World

PATIENCE = 45.0
"""Seconds for a worker process to start and reach the call; two on a quiet machine."""


@asynccontextmanager
async def worker_process(
    world: World, log: Path, **settings: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m workers.main` on the world's databases and simulator, killed at the end."""
    async with _process(world, log, "workers.main", **settings) as process:
        yield process


@asynccontextmanager
async def api_process(
    world: World, log: Path, port: int, **settings: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The API on a port, killed at the end."""
    arguments = ("uvicorn", "--factory", "app.main:build", "--port", str(port))
    async with _process(world, log, *arguments, **settings) as process:
        yield process


@asynccontextmanager
async def registrar_process(
    world: World, log: Path, *arguments: str, **settings: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`registrar ARGUMENTS`, killed at the end."""
    async with _process(world, log, "app.cli", *arguments, **settings) as process:
        yield process


async def run_operator(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `registrar ARGUMENTS` on a database and checks that it succeeds. In a process, because it sets up
    logging."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "app.cli", *arguments],
        env={**os.environ, "REGISTRAR_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


@asynccontextmanager
async def _process(
    world: World, log: Path, *arguments: str, **settings: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    known = world.runtime.settings
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("REGISTRAR_")},
        "REGISTRAR_DATABASE_URL": str(known.database_url),
        "REGISTRAR_REDIS_URL": str(known.redis_url),
        "REGISTRAR_SECRET_KEYS": ",".join(key.get_secret_value() for key in known.secret_keys),
        "REGISTRAR_PARTNER_CENTER_URL": known.partner_center_url,
        "REGISTRAR_LOGIN_URL": known.login_url,
        **{f"REGISTRAR_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *arguments, env=environment, stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def until_over(world: World, partner: Partner, order_id: UUID) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if (await world.view(partner, order_id)).state in FINAL:
                return
            await asyncio.sleep(0.05)

"""The world's API on a real socket, whose connections can really break."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from app.api.http.edge import Limits
from app.api.http.protocol import BoundedHttp
from tests.support.world import World


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[tuple[str, int]]:
    """Host and port."""

    class Http(BoundedHttp):
        @classmethod
        def bounds(cls) -> Limits:
            return Limits.of(world.runtime.settings)

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        world.app, http=Http, ws="none", log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listening]))
    async with asyncio.timeout(45):
        while not server.started:  # noqa: ASYNC110 - uvicorn has a flag, no event
            await asyncio.sleep(0.005)
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = True
        await task

"""Start and shutdown of an API process, as its server sees them."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kernel.settings import Environment, Settings
from app.kernel.telemetry import logger

log = logger("api")


BOUNDED: Final = "app.api.http.protocol"
"""The protocol module that bounds connections. The server loads it before the application starts."""


class Unbounded(RuntimeError):
    """The server does not bound connections, and no setting says that a proxy does."""


def require_bounds(settings: Settings) -> None:
    """Raises Unbounded in production, otherwise warns, if a caller could use up connections and memory before
    its key is known. The application cannot prevent that: the server reads request heads before it."""
    if BOUNDED in sys.modules or settings.bounded_by_proxy:
        return
    if settings.environment is Environment.PRODUCTION:
        raise Unbounded(
            "This server does not bound connections, request heads and slow bodies. Start the API with "
            "`registrar api`, or set REGISTRAR_BOUNDED_BY_PROXY=true if a proxy in front bounds them."
        )
    log.warning("connections_unbounded", remedy="Start the API with `registrar api`.")


class StartupFailure:
    """Tells the server in plain words why the process cannot start, without a traceback.

    The application puts them into its state as `startup_failure`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def in_words(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                words = getattr(scope["app"].state, "startup_failure", None)
                message = {**message, "message": words or message["message"]}
            await send(message)

        await self.app(scope, receive, in_words)


@contextmanager
def delayed_stop(pause_s: float, tell: Callable[[], None]) -> Iterator[None]:
    """Inside this block, SIGTERM calls `tell` and reaches the server `pause_s` seconds later.

    Meanwhile load balancers see that the process is not ready and send it no more calls. A second SIGTERM,
    and Ctrl-C, reach the server at once.
    """
    server = signal.getsignal(signal.SIGTERM)
    if pause_s <= 0 or not callable(server) or threading.current_thread() is not threading.main_thread():
        yield
        return
    stop: Callable[[int, FrameType | None], object] = server
    loop, told = asyncio.get_running_loop(), False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            stop(number, frame)
            return
        told = True
        loop.call_soon_threadsafe(tell)
        loop.call_soon_threadsafe(loop.call_later, pause_s, stop, number, None)

    signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is on_signal:
            signal.signal(signal.SIGTERM, server)

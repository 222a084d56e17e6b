"""The program: `uvicorn simulator.main:app`.

A bare ASGI callable, so that the simulated services can use the server's own `send`, which dropping a
connection needs, without the cost of a framework. Only the control routes are a Starlette program. `build`
returns a new program with its own memory.
"""

from __future__ import annotations

import httpx
from starlette.types import Receive, Scope, Send

from simulator.control import build_control
from simulator.exchange import exchange
from simulator.notifications import Notifications
from simulator.state import State


class Simulator:
    """The ASGI program over one state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._control = build_control(state)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                if scope["path"].startswith("/control/"):
                    await self._control(scope, receive, send)
                else:
                    await exchange(self.state, scope, receive, send)
            case "lifespan":
                await self._live(receive, send)
            case _:
                raise RuntimeError(f"{scope['type']} is not served")

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                self.state.notifications.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def build(webhook_transport: httpx.AsyncBaseTransport | None = None) -> Simulator:
    """Returns a new stand-in. `webhook_transport` replaces the network for its notifications."""
    return Simulator(State(Notifications(webhook_transport)))


app = build()

"""How an API process starts and stops, as its server sees it."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class StartupFailure:
    """Tells the server why the process cannot start in the words for a person, without a traceback.

    The application leaves them in its state as `startup_failure`.
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

"""The answer to a creating call, given once per Idempotency-Key.

It is stored in the transaction that creates the object, so a route opens that transaction and answers inside
it:

    async with answered_once(request, runtime, caller, key, digest) as answer:
        if answer.is_due:
            async with customers.create(runtime, caller, new) as (tx, record):
                await answer.give(tx, 201, location, rendering.customer(record))
    return answer.response
"""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import Header, Request, Response
from pydantic import BaseModel

from app.domain.actor import Principal
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.access import idempotency
from app.services.access.idempotency import Once, Replay

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes a repetition harmless: the first answer comes again, marked "
        "`Idempotency-Replayed: true`. Remembered for 72 hours, unless `GET /v1/limits` has other "
        "`idempotency_hours`.",
    ),
]


@dataclass
class Answer:
    """An answer that is still due, or a stored one to repeat."""

    _once: Once | None = None
    _replay: Replay | None = None
    _response: Response | None = None

    @property
    def is_due(self) -> bool:
        """Whether the call has not been answered before."""
        return self._replay is None

    @property
    def is_to_be_reread(self) -> bool:
        """Whether the first answer was too large to be stored, so that the route must render its object
        again."""
        return self._replay is not None and not self._replay.body

    @property
    def made(self) -> UUID:
        """The id of the object in the first answer."""
        assert self._replay is not None
        return UUID((self._replay.location or "").rpartition("/")[2])

    @property
    def response(self) -> Response:
        if self._replay is not None:
            return _replayed(self._replay, self._replay.body)
        assert self._response is not None, "the route has not answered"
        return self._response

    async def give(self, tx: PartnerTx, status: int, location: str | None, body: BaseModel) -> None:
        """Stores the answer with its key. Raises Conflict if a repetition has taken over the key."""
        content = _json(body)
        if self._once is not None:
            await self._once.complete(tx, status, location, content)
        self._response = _response(status, location, content)

    def reread(self, body: BaseModel) -> None:
        assert self._replay is not None
        self._replay = Replay(self._replay.status, self._replay.location, _json(body))


@contextlib.asynccontextmanager
async def answered_once(
    request: Request,
    runtime: Runtime,
    principal: Principal,
    key: str | None,
    digest: bytes,
    *,
    shown_to: UUID | None = None,
) -> AsyncIterator[Answer]:
    """Carries out a creating call at most once per Idempotency-Key; always if there is no key.

    `digest` is the body's: the same key with another body is refused. `shown_to` is for an answer with a
    secret, see `idempotency.begin`. Raises what `idempotency.begin` raises.
    """
    if key is None:
        yield Answer()
        return
    path = request.scope["path"].encode()
    fingerprint = hashlib.sha256(b"\n".join((request.method.encode(), path, digest)))
    found = await idempotency.begin(runtime, principal, key, fingerprint.digest(), shown_to)
    if isinstance(found, Replay):
        yield Answer(_replay=found)
        return
    finished = False
    try:
        async with found.kept():
            yield Answer(_once=found)
        finished = True
    finally:
        if not finished:
            await found.give_up()


def _json(body: BaseModel) -> bytes:
    return orjson.dumps(body.model_dump(mode="json"))


def _response(status: int, location: str | None, content: bytes) -> Response:
    headers = {"Location": location} if location else {}
    return Response(content, status, headers, media_type="application/json")


def _replayed(replay: Replay, content: bytes) -> Response:
    response = _response(replay.status, replay.location, content)
    response.headers["Idempotency-Replayed"] = "true"
    return response

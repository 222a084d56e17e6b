"""Dependencies of the routes: runtime, caller, page and body.

Bodies are read here and not by the framework, because orders are large: they are bounded while they arrive
and decoded in a thread.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Annotated
from uuid import UUID

from anyio import to_thread
from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from starlette.requests import ClientDisconnect

from app.api.contract.naming import KEYED
from app.api.http import bodies, call_rates, turns
from app.api.http.arriving import SMALL_BODY, Arriving
from app.api.http.decoding import Body, decode
from app.api.http.intake_relay import HANDED_OVER, HandOver, hands_over
from app.api.http.large_bodies import LARGE_BODY, body_turn, give_way
from app.api.http.wrong_keys import WrongKeys
from app.db.paging import InvalidPageToken, PageRequest, bind
from app.db.paging import request as page_request
from app.domain.errors import FieldError, Unauthenticated, Unprocessable
from app.domain.scope import Scope
from app.runtime import Runtime
from app.services.access import identities
from app.services.access.identities import Caller, RefusedKey


def runtime_of(request: Request) -> Runtime:
    return request.app.state.runtime  # type: ignore[no-any-return]


async def _runtime(request: Request) -> Runtime:
    return runtime_of(request)


# Dependencies are coroutines, because the framework runs plain functions in threads.
RuntimeOf = Annotated[Runtime, Depends(_runtime)]


def caller_with(scope: Scope | None, *, waits: bool = True) -> Callable[..., Awaitable[Caller]]:
    """The dependency that authenticates, counts the call, and demands the scope.

    The call then waits for its turn, except routes that may take minutes. In the intake process, the front
    has already found the caller.
    """

    async def authenticated(request: Request, runtime: RuntimeOf) -> Caller:
        known: Caller | None = getattr(request.state, "handed_over", None)
        if known is not None:  # the front has done all of this
            request.state.partner_id = known.partner_id
            return known
        caller = await _identified(request, runtime)
        request.state.caller = caller
        request.state.partner_id = caller.partner_id
        request.state.key_prefix = caller.key_prefix
        await call_rates.spend(request, runtime, caller)
        if scope is not None:
            caller.require(scope)
        _refuse_strange_parameters(request)
        runtime.turns.activity.note(caller.partner_id)
        if waits:
            await turns.take_call(request, runtime, caller)
        return caller

    KEYED.add(authenticated)
    return authenticated


async def _identified(request: Request, runtime: Runtime) -> Caller:
    """The caller whose key the request has. Raises Unauthenticated, RateLimited or Unprocessable."""
    given = request.headers.getlist("authorization")
    if len(given) > 1:
        # A proxy and the service behind it might read different ones.
        raise Unprocessable("authorization_repeated", f"The call has {len(given)} Authorization headers.")
    if not given:
        raise Unauthenticated("unauthenticated", identities.REFUSED_KEY)
    kind, _, key = given[0].partition(" ")
    wrong_keys: WrongKeys = request.app.state.wrong_keys
    address, now = request.state.client, runtime.now()
    async with wrong_keys.turn(address, now):
        found = await identities.identify(runtime, key.strip() if kind.casefold() == "bearer" else "")
    if isinstance(found, RefusedKey):
        refusal = wrong_keys.refusal(address, found, now)
        await wrong_keys.pause(address, now)
        raise refusal
    return found


def path_of(request: Request, route: str, **parameters: str) -> str:
    """A route's path for the caller, without the Host header."""
    return f"{request.scope.get('root_path', '')}{request.app.url_path_for(route, **parameters)}"


def _refuse_strange_parameters(request: Request) -> None:
    """Refuses unknown and repeated parameters. Otherwise a misspelt filter would return everything, and a
    repeated one only half, without notice."""
    known = _parameters_of(request.scope["route"].dependant)
    given = Counter(name for name, _ in request.query_params.multi_items())
    for strange, words, detail in (
        (given.keys() - known, "This call has no such parameter.", "A parameter is unknown."),
        ({name for name, n in given.items() if n > 1}, "It is given twice.", "A parameter is given twice."),
    ):
        if strange:
            errors = [FieldError(name[:100], "invalid_parameter", words) for name in sorted(strange)[:100]]
            raise Unprocessable("invalid_parameter", detail, errors)


def _parameters_of(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_parameters_of(part) for part in dependant.dependencies))


ReadsOrders = Annotated[Caller, Depends(caller_with(Scope.ORDERS_READ))]


WritesOrders = Annotated[Caller, Depends(caller_with(Scope.ORDERS_WRITE))]


Uploads = Annotated[Caller, Depends(caller_with(Scope.ORDERS_WRITE, waits=False))]


ReadsCustomers = Annotated[Caller, Depends(caller_with(Scope.CUSTOMERS_READ))]


WritesCustomers = Annotated[Caller, Depends(caller_with(Scope.CUSTOMERS_WRITE))]


ReadsConnections = Annotated[Caller, Depends(caller_with(Scope.CONNECTIONS_READ))]


WritesConnections = Annotated[Caller, Depends(caller_with(Scope.CONNECTIONS_WRITE))]


ReadsWebhooks = Annotated[Caller, Depends(caller_with(Scope.WEBHOOKS_READ))]


WritesWebhooks = Annotated[Caller, Depends(caller_with(Scope.WEBHOOKS_WRITE))]


AnyCaller = Annotated[Caller, Depends(caller_with(None))]


def _page_by(read: Callable[[str], object]) -> Callable[..., Awaitable[PageRequest]]:
    """`read` parses a token's text into a sort value, or raises ValueError."""

    async def page(
        request: Request,
        page_size: Annotated[int | None, Query(ge=1, description="Default 50, at most 1,000.")] = None,
        page_token: Annotated[
            str | None, Query(max_length=500, description="`next_page_token` of the page before.")
        ] = None,
    ) -> PageRequest:
        try:
            wanted = page_request(page_size, page_token, _binding(request))
            # Rewritten, because Python accepts more forms of an id or a number than the database.
            after = None if wanted.after is None else str(read(wanted.after))
        except (InvalidPageToken, ValueError) as error:
            raise Unprocessable(
                "invalid_page_token",
                "",
                [FieldError("page_token", "invalid_page_token", _NOT_A_TOKEN)],
            ) from error
        return replace(wanted, after=after)

    return page


_NOT_A_TOKEN = "It is not a token of this list with these filters."  # noqa: S105 - words, not a secret


def _binding(request: Request) -> bytes:
    """Identifies the page's list: partner, path, and all parameters except those of the page."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    given = request.query_params.multi_items()
    filters = [(name, value) for name, value in given if name not in ("page_size", "page_token")]
    return bind(str(request.state.partner_id), path, filters)


PageOfIds = Annotated[PageRequest, Depends(_page_by(UUID))]


def _row_number(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**31:
        raise ValueError(text)
    return number


PageOfRows = Annotated[PageRequest, Depends(_page_by(_row_number))]


async def read(request: Request, model: type[Body], *, nothing: Body | None = None) -> tuple[Body, bytes]:
    """The body as its model, and the SHA-256 of its bytes. The bytes, 40 MB for an order, are not kept.

    `nothing` is the model of an empty body, if the call allows one.

    Raises Unprocessable: unsupported_media_type, not_json, body_too_complex, or validation_failed with every
    field; Busy if no large body can be taken now; HandOver if the body belongs to the intake process.
    The size is bounded by the middleware.
    """
    if nothing is None:
        _require_json(request)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > HANDED_OVER and hands_over(request):
        raise HandOver([], is_whole=False)
    bound = bodies.bound_of(request.scope)
    arriving = Arriving(bound, int(announced) if announced.isdecimal() else 0)
    # The turn of a large body ends when it is decoded.
    async with contextlib.AsyncExitStack() as turn:
        try:
            async for chunk in _in_turn(request, turn):
                await arriving.add(chunk)
        except ClientDisconnect as gone:
            # The client is gone. The log shows a broken-off request, not an error of ours.
            raise Unprocessable("not_json", "The connection ended before the body did.") from gone
        body = arriving.body()
        if nothing is not None:
            if not body.strip():
                return nothing, await arriving.digest()
            _require_json(request)
        if len(body) < SMALL_BODY:
            return decode(body, model, bound, arriving.commas), await arriving.digest()
        # Hash beside the parser, in a thread of another pool. If two threads took turns at parsing, each
        # would keep 40 MB of heap after a large order.
        digest, taken = await asyncio.gather(
            arriving.digest(), to_thread.run_sync(decode, body, model, bound, arriving.commas)
        )
    return taken, digest


def _require_json(request: Request) -> None:
    """Raises Unprocessable."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        said = f"Content-Type {kind[:100]!r} is not read here" if kind else "Content-Type is missing"
        raise Unprocessable("unsupported_media_type", f"{said}; send application/json.")


async def _in_turn(request: Request, turn: contextlib.AsyncExitStack) -> AsyncIterator[bytes]:
    """Yields the body's chunks. A large body waits for its turn as soon as its size is known."""
    announced = request.headers.get("content-length", "")
    partner_id, large_ones = request.state.partner_id, runtime_of(request).turns.bodies
    waits = body_turn(large_ones, partner_id)
    large = announced.isdecimal() and int(announced) > LARGE_BODY
    if large:
        await turn.enter_async_context(waits)
    size, begun = 0, time.monotonic()
    async for chunk in _chunks(request):
        size += len(chunk)
        if size > LARGE_BODY and not large:
            large = True
            await turn.enter_async_context(waits)
            size, begun = 0, time.monotonic()
        if large and chunk:
            give_way(large_ones, partner_id, size, time.monotonic() - begun)
        yield chunk


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Raises HandOver as soon as the body is known to belong to the intake process."""
    if not hands_over(request):
        async for chunk in request.stream():
            yield chunk
        return
    begun, size, more = list[bytes](), 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        begun.append(message.get("body", b""))
        size, more = size + len(begun[-1]), message.get("more_body", False)
        if size > HANDED_OVER:
            raise HandOver(begun, is_whole=not more)
    for chunk in begun:
        yield chunk


def has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers

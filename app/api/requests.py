"""What every route needs of a request: the runtime, the caller, the page, the body, the key of an
idempotent POST. Bodies are read here and not by the framework, because orders are large: they are
bounded while they arrive and decoded in a thread.
"""

import asyncio
import codecs
import contextlib
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from io import BytesIO
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from anyio import to_thread
from fastapi import Depends, Header, Query, Request, Response
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from app.api import call_rates, repeated_keys
from app.api.problems import pydantic_error
from app.db.paging import InvalidPageToken, PageRequest, bind
from app.db.paging import request as page_request
from app.domain.errors import FieldError, Unauthenticated, Unprocessable
from app.domain.ids import PartnerId
from app.runtime import Runtime, Tx
from app.services import idempotency, identities
from app.services.idempotency import Once, Replay
from app.services.identities import Caller, Scope

Body = TypeVar("Body", bound=BaseModel)


def runtime_of(request: Request) -> Runtime:
    return request.app.state.runtime  # type: ignore[no-any-return]


RuntimeOf = Annotated[Runtime, Depends(runtime_of)]


KEYED: set[Callable[..., Any]] = set()
"""The dependencies that ask for an API key."""


def caller_with(scope: Scope | None) -> Callable[..., Awaitable[Caller]]:
    """The dependency that authenticates, counts the call, and demands the scope."""

    async def authenticated(
        request: Request,
        runtime: RuntimeOf,
        authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Caller:
        kind, _, key = (authorization or "").partition(" ")
        if kind.casefold() != "bearer":
            raise Unauthenticated("unauthenticated", identities.REFUSED_KEY)
        caller = await identities.authenticate(runtime, key.strip())
        request.state.partner_id = caller.partner_id
        await call_rates.spend(request, runtime, caller)
        if scope is not None:
            caller.require(scope)
        _refuse_strange_parameters(request)
        return caller

    KEYED.add(authenticated)
    return authenticated


def path_of(request: Request, route: str, **parameters: str) -> str:
    """A route's path as the caller has to write it: never made from the Host header."""
    return f"{request.scope.get('root_path', '')}{request.app.url_path_for(route, **parameters)}"


def _refuse_strange_parameters(request: Request) -> None:
    """A misspelt filter would otherwise answer with everything, one of two values with half of what is
    asked for, and nobody would notice. No call takes a parameter twice."""
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
ReadsCustomers = Annotated[Caller, Depends(caller_with(Scope.CUSTOMERS_READ))]
WritesCustomers = Annotated[Caller, Depends(caller_with(Scope.CUSTOMERS_WRITE))]
ReadsConnections = Annotated[Caller, Depends(caller_with(Scope.CONNECTIONS_READ))]
WritesConnections = Annotated[Caller, Depends(caller_with(Scope.CONNECTIONS_WRITE))]
ReadsWebhooks = Annotated[Caller, Depends(caller_with(Scope.WEBHOOKS_READ))]
WritesWebhooks = Annotated[Caller, Depends(caller_with(Scope.WEBHOOKS_WRITE))]
AnyCaller = Annotated[Caller, Depends(caller_with(None))]


def _page_by(read: Callable[[str], object]) -> Callable[..., PageRequest]:
    """`read` makes the sort value of a token's text, or raises ValueError."""

    def page(
        request: Request,
        page_size: Annotated[int | None, Query(ge=1, description="Default 50, at most 1,000.")] = None,
        page_token: Annotated[
            str | None, Query(max_length=500, description="`next_page_token` of the page before.")
        ] = None,
    ) -> PageRequest:
        try:
            wanted = page_request(page_size, page_token, _binding(request))
            # Written anew: what Python takes for an id or a number is more than the database does.
            after = None if wanted.after is None else str(read(wanted.after))
        except (InvalidPageToken, ValueError) as error:
            raise Unprocessable(
                "invalid_page_token",
                "",
                [FieldError("page_token", "invalid_page_token", _NOT_A_TOKEN)],
            ) from error
        return replace(wanted, after=after)

    return page


_NOT_A_TOKEN = "It is no token of this list with these filters."  # noqa: S105 - words, not a secret


def _binding(request: Request) -> bytes:
    """The page's list: the partner whose key was accepted, the path, and every parameter but the page's."""
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


async def read(request: Request, model: type[Body]) -> tuple[Body, bytes]:
    """The body as the model, and the SHA-256 of its bytes, which are not kept: an order's are 40 MB.

    Raises Unprocessable: unsupported_media_type, not_json, or validation_failed with every field.
    The size is bounded by the middleware.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        said = f"Content-Type {kind[:100]!r} is not read here" if kind else "Content-Type is missing"
        raise Unprocessable("unsupported_media_type", f"{said}; send application/json.")
    # Written into the place that was announced, and given away: of an order of 40 MB there is one copy.
    announced = request.headers.get("content-length", "")
    received = BytesIO(bytes(int(announced))) if announced.isdecimal() else BytesIO()
    try:
        async for chunk in request.stream():
            received.write(chunk)
    except ClientDisconnect as gone:
        # Nobody hears the answer; the log has a broken-off request and no error of ours.
        raise Unprocessable("not_json", "The connection ended before the body did.") from gone
    received.truncate()
    body = received.getvalue()
    del received
    if len(body) < SMALL_BODY:
        return _parse(body, model), hashlib.sha256(body).digest()
    # Beside the parser and on another core, in a thread of another pool: of two threads that take turns at
    # parsing, each would keep the 40 MB that a large order once took from its heap.
    digest, taken = await asyncio.gather(
        asyncio.to_thread(_digest, body), to_thread.run_sync(_parse, body, model)
    )
    return taken, digest


def has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


SMALL_BODY = 64 * 1024
"""Bytes. Larger bodies are decoded in a thread, so that other callers are answered meanwhile."""


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def _parse(body: bytes, model: type[Body]) -> Body:
    body = body.removeprefix(codecs.BOM_UTF8)  # Windows PowerShell writes it, RFC 8259 lets us
    try:
        taken = model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            raise Unprocessable("not_json", found[0]["msg"]) from None
        raise Unprocessable(
            "validation_failed",
            f"{len(found)} field(s) are wrong." if len(found) > 1 else found[0]["msg"],
            [pydantic_error(part) for part in found[:100]],
        ) from None
    if (name := repeated_keys.find(body, taken)) is not None:
        words = f"The name {name!r} stands twice in one object; nobody can tell which value is meant."
        raise Unprocessable("validation_failed", words, [FieldError("", "key_repeated", words)])
    return taken


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes a repetition harmless: the first answer comes again, marked "
        "`Idempotency-Replayed: true`. Remembered for 72 hours.",
    ),
]

Remember = Callable[[Tx, int, str | None, BaseModel], Awaitable[None]]
"""Stores the answer with the key, in the transaction that makes what the answer tells of."""


async def create_once(
    request: Request,
    runtime: Runtime,
    partner_id: PartnerId,
    key: str | None,
    digest: bytes,
    run: Callable[[Remember], Awaitable[Any]],
) -> Response:
    """Runs a creating request at most once per Idempotency-Key. `run` calls what it is given to answer.

    `digest` is that of the body: the same key with another body is refused.
    """
    answered: list[Response] = []
    once: Once | None = None
    if key is not None:
        path = request.scope["path"].encode()
        fingerprint = hashlib.sha256(b"\n".join((request.method.encode(), path, digest)))
        found = await idempotency.begin(runtime, partner_id, key, fingerprint.digest())
        if isinstance(found, Replay):
            return _replay(found)
        once = found

    async def remember(tx: Tx, status: int, location: str | None, answer: BaseModel) -> None:
        content = orjson.dumps(answer.model_dump(mode="json"))
        if once is not None:
            await once.complete(tx, status, location, content)
        answered[:] = [_response(status, location, content)]

    finished = False
    try:
        async with once.kept() if once is not None else contextlib.nullcontext():
            await run(remember)
        finished = True
    finally:
        if once is not None and not finished:
            await once.give_up()
    return answered[0]


def _response(status: int, location: str | None, content: bytes) -> Response:
    headers = {"Location": location} if location else {}
    return Response(content, status, headers, media_type="application/json")


def _replay(replay: Replay) -> Response:
    response = _response(replay.status, replay.location, replay.body)
    response.headers["Idempotency-Replayed"] = "true"
    return response

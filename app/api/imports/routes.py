"""Imports: upload a file, look at the preview, commit it to orders."""

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from app.api import answers
from app.api.answers import CSV, download
from app.api.contract.problems import pydantic_error
from app.api.contract.schema import body_of, upload_of
from app.api.contract.texts import CodeSought
from app.api.http import turns
from app.api.http.multipart import MultipartFile
from app.api.imports import rendering
from app.api.imports.models import CommitIn, ImportIn, ImportOut, ImportProblems, ImportRows, Imports
from app.api.once import IdempotencyKey, answered_once
from app.api.requests import (
    PageOfIds,
    PageOfRows,
    ReadsOrders,
    RuntimeOf,
    Uploads,
    WritesOrders,
    has_body,
    path_of,
    read,
)
from app.domain.errors import FieldError, Unprocessable
from app.domain.imports import ImportState, Verdict
from app.domain.scope import Scope
from app.services.access import idempotency
from app.services.imports import imports, reports
from app.services.imports.imports import Instructions, Upload

router = APIRouter(prefix="/v1/imports", tags=["Imports"])

RETRY_AFTER = "2"
"""Seconds a poller should wait while an import is moving."""
CODINGS = ("", "identity", "gzip", "x-gzip")

Given = Annotated[str | None, Query(max_length=512)]


@router.post("", status_code=201, response_model=ImportOut, openapi_extra=upload_of(ImportIn))
async def create_import(
    request: Request,
    runtime: RuntimeOf,
    caller: Uploads,
    customer_id: Given = None,
    reference: Given = None,
    purchase_order: Given = None,
    group_tag: Given = None,
    profile: Given = None,
    encoding: Given = None,
    file_name: Given = None,
    sheet: Given = None,
    include_hidden: Given = None,
    key: IdempotencyKey = None,
) -> Response:
    """Uploads a file with devices: CSV, TSV, XLSX, JSON Lines or OA3.xml, also compressed with gzip.

    The file is the body itself or the one file of a form (`multipart/form-data`), up to 4 GB unless the
    operator has set another limit. Nothing is ordered yet: a worker reads it, and you look at the
    preview before you `:commit`.
    """
    given = {
        name: request.query_params[name] for name in ImportIn.model_fields if name in request.query_params
    }
    coding = request.headers.get("content-encoding", "").strip().casefold()
    if coding not in CODINGS:
        raise Unprocessable(
            "unsupported_media_type", f"Content-Encoding {coding[:40]!r} is not read; gzip is."
        )
    async with turns.step(runtime, caller):
        await imports.check_instructions(runtime, caller, _instructions(given))
        repeated = key is not None and await idempotency.knows(runtime, caller, key)
        upload = await Upload.begin(runtime, caller, repeated=repeated)
    try:
        fields = await _receive(request, upload)
        instructions = _instructions(_joined(given, fields))
        digest = await upload.end()

        fingerprint = hashlib.sha256(
            orjson.dumps(_joined(given, fields), option=orjson.OPT_SORT_KEYS) + digest
        )
        async with answered_once(request, runtime, caller, key, fingerprint.digest()) as answer:
            if answer.is_due:
                # Not a call's turn, which can be refused: a file that has arrived must not be.
                async with (
                    runtime.turns.pieces.turn(caller.partner_id),
                    imports.complete(upload, instructions, digest) as (tx, view),
                ):
                    location = path_of(request, "get_import", import_id=str(upload.id))
                    await answer.give(tx, 201, location, rendering.import_(view))
            elif answer.is_to_be_reread:
                answer.reread(rendering.import_(await imports.get(runtime, caller, answer.made)))
        return answer.response
    finally:
        # It did not become an import: refused, broken off, or answered before.
        await upload.throw_away()


async def _receive(request: Request, upload: Upload) -> dict[str, str]:
    """Streams the file into the upload. The form's fields, if it is one."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().casefold() != "multipart/form-data":
        async for chunk in _body(request):
            await upload.feed(chunk)
        return {}
    form = MultipartFile(content_type)
    async for chunk in _body(request):
        for part in form.feed(chunk):
            await upload.feed(part)
    form.end()
    return {**({"file_name": form.file_name} if form.file_name else {}), **form.fields}


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as gone:
        raise Unprocessable("upload_broken_off", "The connection ended before the file did.") from gone


def _joined(parameters: dict[str, str], fields: dict[str, str]) -> dict[str, str]:
    twice = sorted((parameters.keys() & fields.keys()) - {"file_name"})
    if twice:
        errors = [
            FieldError(f"/{name}", "validation_failed", "It is in the URL and in the form.") for name in twice
        ]
        raise Unprocessable("validation_failed", "A field is given twice.", errors)
    return {**fields, **parameters}


def _instructions(given: dict[str, str]) -> Instructions:
    try:
        found = ImportIn.model_validate_json(orjson.dumps(given))
    except ValidationError as error:
        errors = [pydantic_error(part) for part in error.errors()[:100]]
        raise Unprocessable("validation_failed", "", errors) from error
    hidden = None if found.include_hidden is None else found.include_hidden == "true"
    return Instructions(**{**found.model_dump(), "include_hidden": hidden})


@router.get("", response_model=Imports)
async def list_imports(
    runtime: RuntimeOf, caller: ReadsOrders, page: PageOfIds, state: ImportState | None = None
) -> Imports | Response:
    """Newest first."""
    found = await imports.list_page(runtime, caller, page, state=state)
    return await answers.page(Imports, found, rendering.import_)


@router.get("/{import_id}")
async def get_import(
    runtime: RuntimeOf, caller: ReadsOrders, import_id: UUID, response: Response
) -> ImportOut:
    """Progress while it is being read; afterwards what was found and what committing would do."""
    view = await imports.get(runtime, caller, import_id)
    if view.is_moving:
        response.headers["Retry-After"] = RETRY_AFTER
    return rendering.import_(view)


@router.get("/{import_id}/rows", response_model=ImportRows)
async def list_import_rows(
    runtime: RuntimeOf,
    caller: ReadsOrders,
    import_id: UUID,
    page: PageOfRows,
    verdict: Verdict | None = None,
    code: Annotated[CodeSought | None, Query()] = None,
) -> ImportRows | Response:
    """The rows with their verdicts, in the file's order."""
    found = await imports.rows(runtime, caller, import_id, page, verdict=verdict, code=code)
    return await answers.page(ImportRows, found, rendering.row)


@router.get("/{import_id}/problems")
async def list_import_problems(
    runtime: RuntimeOf, caller: ReadsOrders, import_id: UUID, page: PageOfRows
) -> ImportProblems:
    """Every problem of every row; `page_size` counts rows."""
    found = await imports.rows(runtime, caller, import_id, page, noted_only=True)
    return ImportProblems(
        items=[problem for row in found.items for problem in rendering.problems(row)],
        next_page_token=found.next_token,
    )


@router.get(
    "/{import_id}/errors.csv",
    response_class=StreamingResponse,
    responses={**CSV, 409: {"description": "There are no rows: not yet, or not any more."}},
)
async def download_import_errors(
    runtime: RuntimeOf,
    caller: ReadsOrders,
    import_id: UUID,
    verdict: Annotated[Verdict, Query(description="Which rows.")] = Verdict.INVALID,
) -> StreamingResponse:
    """The invalid rows as they were uploaded, each with what is wrong and what to do. Correct the file and
    upload it again.

    It has hardware hashes if the key has `hashes:read`; otherwise their cells are empty.
    """
    lines = await reports.errors_of(
        runtime,
        caller,
        import_id,
        verdict=verdict,
        with_hashes=Scope.HASHES_READ in caller.scopes,
    )
    return download("errors.csv", lines)


@router.post(
    "/{import_id}:commit",
    status_code=202,
    response_model=ImportOut,
    openapi_extra=body_of(CommitIn, required=False),
)
async def commit_import(
    request: Request, runtime: RuntimeOf, caller: WritesOrders, import_id: UUID, key: IdempotencyKey = None
) -> Response:
    """Creates the orders in the background, one for each customer of the file.

    The preview's valid rows are ordered. Rows are checked again for what may have changed since (a group tag,
    another order); one that has become invalid is marked `changed`.
    """
    given, digest = await read(request, CommitIn) if has_body(request) else (CommitIn(), b"")

    async with answered_once(request, runtime, caller, key, digest) as answer:
        if answer.is_due:
            reject = given.on_invalid == "reject"
            async with imports.commit(
                runtime, caller, import_id, reject_invalid=reject, reference=given.reference
            ) as (tx, view):
                await answer.give(tx, 202, None, rendering.import_(view))
        elif answer.is_to_be_reread:
            answer.reread(rendering.import_(await imports.get(runtime, caller, import_id)))
    return answer.response


@router.post("/{import_id}:discard")
async def discard_import(runtime: RuntimeOf, caller: WritesOrders, import_id: UUID) -> ImportOut:
    """Stops reading and deletes the rows."""
    return rendering.import_(await imports.discard(runtime, caller, import_id))

"""Portal mode: an order's files to upload by hand, and the outcomes that people record."""

from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from app.api.contract.schema import ASKS_FOR_A_FILE, CONFLICTS, body_of
from app.api.customers.models import ConsentOut
from app.api.customers.routes import consent_of
from app.api.orders import rendering
from app.api.orders.models import BatchOut
from app.api.portal.models import (
    ConsentRecordIn,
    OutcomeIn,
    PortalFileOut,
    PortalFiles,
    RecordedDevice,
    RecordedOrder,
    RecordedOut,
    RowOutcomeIn,
    UndoUploadIn,
    UntouchedOut,
)
from app.api.requests import (
    PageOfIds,
    ReadsOrders,
    RuntimeOf,
    WritesCustomers,
    WritesOrders,
    has_body,
    path_of,
    read,
)
from app.domain.consent import ConsentState
from app.domain.errors import TooLarge, Unprocessable
from app.domain.registration import RegistrationState
from app.runtime import Runtime
from app.services.access.identities import Caller
from app.services.consents import consents
from app.services.orders import registrations
from app.services.portal import files, portal
from app.services.portal.entries import Entry
from app.services.portal.portal import Recorded, Report

router = APIRouter(prefix="/v1", tags=["Portal"])

MAX_RESULT_BYTES = 16 * 1024 * 1024
"""The largest file of results of a portal: 1,000 devices with hashes in UTF-16 are 8 MB."""
MAX_UNTOUCHED = 100
_FILES = (
    "text/",
    "application/csv",
    "application/vnd.ms-excel",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/octet-stream",
)
CSV = "text/csv"


@router.get("/orders/{order_id}/portal-files")
async def list_portal_files(
    request: Request, runtime: RuntimeOf, caller: ReadsOrders, order_id: UUID, page: PageOfIds
) -> PortalFiles:
    """The order's files to upload at the portal by hand, oldest first, with the steps for each."""
    found = await files.list_of_order(runtime, caller, order_id, page)
    items = [
        PortalFileOut(
            name=file.name,
            batch_id=file.batch.id,
            group_tag=file.batch.group_tag,
            rows=file.batch.device_count,
            state=file.batch.state,
            href=path_of(request, "get_portal_file", batch_id=str(file.batch.id)) if file.ready else None,
            steps=list(file.steps),
            submitted_at=file.batch.submitted_at,
            settled_at=file.batch.settled_at,
        )
        for file in found.items
    ]
    return PortalFiles(items=items, next_page_token=found.next_token)


@router.get(
    "/batches/{batch_id}/portal-file.csv",
    response_class=Response,
    responses={
        200: {
            "content": {CSV: {"schema": {"type": "string"}}},
            "description": "The exact bytes to upload.",
        },
        **CONFLICTS,
    },
)
async def get_portal_file(runtime: RuntimeOf, caller: WritesOrders, batch_id: UUID) -> Response:
    """The file to upload, exactly as the portal wants it. Downloading it changes nothing and may be repeated.

    Needs `orders:write`, and `hashes:read` where a device has a hardware hash. Once devices of it are
    registered, their hashes are deleted and the file is not available any more.
    """
    name, content = await files.file_of(runtime, caller, batch_id)
    disposition = f"attachment; filename=\"{name}\"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(content, media_type=CSV, headers={"Content-Disposition": disposition})


@router.post("/batches/{batch_id}:mark-uploaded")
async def mark_uploaded(runtime: RuntimeOf, caller: WritesOrders, batch_id: UUID) -> BatchOut:
    """Records that the file has been uploaded: its devices are with Microsoft now."""
    await portal.mark_uploaded(runtime, caller, batch_id)
    return await _batch(runtime, caller, batch_id)


@router.post("/batches/{batch_id}:undo-upload", openapi_extra=body_of(UndoUploadIn))
async def undo_upload(request: Request, runtime: RuntimeOf, caller: WritesOrders, batch_id: UUID) -> BatchOut:
    """Records that the file is not at the portal after all: marked by mistake, or refused whole.

    Its devices wait for an upload again, and none has failed. With `refused`, the portal's words are kept
    with the batch. Not possible once an outcome of one of its devices is recorded.
    """
    given = (await read(request, UndoUploadIn))[0] if has_body(request) else UndoUploadIn()
    await portal.undo_upload(runtime, caller, batch_id, given.refused)
    return await _batch(runtime, caller, batch_id)


@router.post("/batches/{batch_id}:record-outcome", openapi_extra=body_of(OutcomeIn))
async def record_outcome(
    request: Request, runtime: RuntimeOf, caller: WritesOrders, batch_id: UUID
) -> RecordedOut:
    """Records the devices' outcomes as the portal shows them: one outcome for all, or one by one.

    Events and webhooks follow as for any other outcome. One outcome for all needs a file that is marked as
    uploaded; naming devices marks it as uploaded.

    `correct` replaces outcomes that were recorded by mistake, even after the order's end;
    `registration.settled` and the order's final event are then sent again. Without it, existing outcomes are
    kept and listed. A device that `:retry-failed` tries again belongs to its new file.
    """
    given, _ = await read(request, OutcomeIn)
    if given.rows is None:
        assert given.outcome is not None
        outcome = RegistrationState(given.outcome)
        report = await portal.record_all(
            runtime,
            caller,
            batch_id,
            outcome,
            code=given.code,
            detail=given.detail,
            correct=given.correct,
        )
    else:
        entries = [_entry(row) for row in given.rows]
        report = await portal.record_rows(runtime, caller, batch_id, entries, correct=given.correct)
    return await _recorded(runtime, caller, batch_id, report)


def _entry(row: RowOutcomeIn) -> Entry:
    fields: dict[str, Any] = row.model_dump(exclude={"outcome"})
    return Entry(outcome=RegistrationState(row.outcome), **fields)


@router.post("/batches/{batch_id}/portal-result", openapi_extra=ASKS_FOR_A_FILE)
async def record_portal_result(
    request: Request,
    runtime: RuntimeOf,
    caller: WritesOrders,
    batch_id: UUID,
    correct: Annotated[bool, Query(description="Replace outcomes that were recorded by mistake.")] = False,
) -> RecordedOut:
    """Records outcomes from the portal's own list of results. The body is the file, text or a workbook.

    Columns are found by their names; `unread_columns` lists the others. Rows that match no device of this
    batch, or whose columns contradict each other, are listed with their line and change nothing. If the
    portal names only rows of the uploaded file, send its text as it is (`806 ...: rows 2, 5`), or a table
    with a column `CSV row`; rows are counted from 1 without the header. This also marks the file as uploaded.
    """
    content = await _file(request)
    report = await portal.record_result(runtime, caller, batch_id, content, correct=correct)
    return await _recorded(runtime, caller, batch_id, report)


async def _file(request: Request) -> bytes:
    kind = request.headers.get("content-type", CSV).partition(";")[0].strip().casefold()
    if not kind.startswith(_FILES):
        raise Unprocessable(
            "unsupported_media_type", "Send the file itself as the body, as text/csv or as a workbook."
        )
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MAX_RESULT_BYTES:
            raise TooLarge("body_too_large", f"A file of results has at most {MAX_RESULT_BYTES:,} bytes.")
    return bytes(received)


async def _batch(runtime: Runtime, caller: Caller, batch_id: UUID) -> BatchOut:
    view, _ = await registrations.get_batch(runtime, caller, batch_id)
    return BatchOut(**rendering.batch_fields(view.record, view.counts, view.waiting_for))


async def _recorded(runtime: Runtime, caller: Caller, batch_id: UUID, report: Report) -> RecordedOut:
    batch = await _batch(runtime, caller, batch_id)
    return RecordedOut(
        batch=batch,
        order=RecordedOrder(
            id=batch.order_id,
            reference=report.reference,
            customer_id=batch.customer_id,
            customer_name=report.customer_name,
        ),
        outcomes={state.value: count for state, count in report.outcomes.items()},
        devices=[_device(device) for device in report.devices[:MAX_UNTOUCHED]],
        unread_columns=list(report.unread),
        recorded=report.recorded,
        corrected=report.corrected,
        again=report.again,
        open=report.open,
        untouched_total=len(report.untouched),
        untouched=[UntouchedOut(place=u.place, reason=u.reason) for u in report.untouched[:MAX_UNTOUCHED]],
    )


def _device(recorded: Recorded) -> RecordedDevice:
    row, outcome = recorded.row, recorded.outcome
    return RecordedDevice(
        registration_id=row.id,
        row=row.row_number,
        file_row=recorded.file_row,
        line_ref=row.line_ref,
        serial_number=row.serial_number,
        product_key=row.product_key,
        state=outcome.state,
        error_code=outcome.error_code,
    )


@router.post(
    "/customers/{customer_id}/consent:record", tags=["Customers"], openapi_extra=body_of(ConsentRecordIn)
)
async def record_consent(
    request: Request, runtime: RuntimeOf, caller: WritesCustomers, customer_id: UUID
) -> ConsentOut:
    """Records a customer's consent for a portal connection, where it cannot be looked up.

    `granted` lets held orders go on; `revoked` holds files that are not uploaded yet. `granted` again renews
    the proof.
    """
    given, _ = await read(request, ConsentRecordIn)
    await consents.record(runtime, caller, customer_id, ConsentState(given.state), given.note)
    return await consent_of(runtime, caller, customer_id)

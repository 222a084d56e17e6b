"""The shapes of orders, registrations and batches, as callers meet them."""

from collections.abc import Mapping
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from app.api.contract.models import GroupTagText, Input, OnInvalid, Output, PageOf, Text100, WaitingOut
from app.api.contract.times import Timestamp
from app.domain.batch import BatchState
from app.domain.catalogue import Severity
from app.domain.identity import IdentityKind
from app.domain.order import MAX_DEVICES, OrderState
from app.domain.registration import RegistrationState


class DeviceIn(Input):
    """One device: a PKID, or serial number + manufacturer + model, or a hardware hash.

    Values are checked like those of a file. N/A, NULL, `-` and the like count as empty.
    """

    serial_number: str | None = Field(None, max_length=4096)
    manufacturer: str | None = Field(None, max_length=4096, description="Exactly as the firmware has it.")
    model: str | None = Field(None, max_length=4096, description="Exactly as the firmware has it.")
    product_key: str | None = Field(
        None, max_length=4096, description="PKID: the 13-digit Product Key ID, never a product key."
    )
    hardware_hash: str | None = Field(None, max_length=20_000, description="4K hardware hash, base64.")
    group_tag: str | None = Field(None, max_length=4096)
    line_ref: str | None = Field(None, max_length=255, description="Your own line; echoed in every result.")


class OrderIn(Input):
    ROWS = ("devices", DeviceIn)

    customer_id: UUID = Field(strict=False)
    reference: Text100 = Field(description="Your own number, unique among your orders.")
    purchase_order: Text100 | None = None
    group_tag: GroupTagText | None = Field(
        None, description="For devices without a group tag. Default: the customer's, then the connection's."
    )
    devices: Annotated[list[DeviceIn], Field(min_length=1, max_length=MAX_DEVICES, fail_fast=True)]
    on_invalid: OnInvalid = "accept_valid"
    validate_only: bool = Field(False, description="Run the same checks and store nothing.")


class Counts(Output):
    total: int
    invalid: int = 0
    held: int = 0
    queued: int = 0
    submitting: int = 0
    processing: int = 0
    registered: int = 0
    already_registered: int = 0
    conflict: int = 0
    failed: int = 0
    unknown: int = 0
    cancelled: int = 0

    @classmethod
    def of(cls, counts: Mapping[RegistrationState, int]) -> "Counts":
        return cls(total=sum(counts.values()), **{state.value: n for state, n in counts.items()})


class FindingOut(Output):
    code: str
    severity: Severity
    field: str
    detail: str
    remedy: str


class RowProblem(Output):
    row: int = Field(description="The device's number in the order, counted from 1.")
    line_ref: str | None
    valid: bool
    findings: list[FindingOut]


class BatchPlan(Output):
    group_tag: str
    devices: int


class OrderPreview(Output):
    """What the order does or would do, the same for a dry run and the real order."""

    counts: Counts
    portal: bool = Field(description="Each batch is a file to upload by hand, not a call to Microsoft.")
    batches: list[BatchPlan]
    problems: list[RowProblem] = Field(description="The first 100 rows with findings.")
    problems_total: int = Field(description="Rows with findings, errors or warnings.")


class OrderOut(Output):
    id: UUID
    reference: str
    purchase_order: str | None
    customer_id: UUID
    platform: str
    portal: bool = Field(description="Its files are uploaded by hand: see `portal-files`.")
    group_tag: str
    state: OrderState = Field(description="Computed from the counts; never Microsoft's batch status.")
    counts: Counts
    waiting_for: list[WaitingOut] = Field(
        [],
        description="What holds the order, reasons that need action first; empty when it is over.",
    )
    created_at: Timestamp


class OrderAccepted(OrderOut):
    result: Literal["accepted"] = Field("accepted", description="Distinguishes it from `validated`.")
    preview: OrderPreview


class OrderValidated(OrderPreview):
    """The answer to `validate_only`."""

    result: Literal["validated"] = Field("validated", description="Distinguishes it from `accepted`.")


class OrderRetried(OrderOut):
    retried: int
    without_hash: int = Field(description="Rows whose hash has been deleted since: send them in a new order.")


class Orders(PageOf):
    items: list[OrderOut]


class Upstream(Output):
    code: str | None
    name: str | None
    device_id: str | None


class RegistrationOut(Output):
    id: UUID
    order_id: UUID
    customer_id: UUID
    batch_id: UUID | None
    row: int
    line_ref: str | None
    state: RegistrationState
    identity: IdentityKind | None = Field(description="The kind of identity; null for an invalid row.")
    group_tag: str | None
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    error_code: str | None
    error_detail: str | None
    remedy: str | None = Field(description="What to do about `error_code`.")
    upstream: Upstream = Field(description="Microsoft's own words about this device.")
    findings: list[FindingOut] = Field(description="Findings of the checks before anything was sent.")
    attempt: int
    created_at: Timestamp
    updated_at: Timestamp
    settled_at: Timestamp | None


class Registrations(PageOf):
    items: list[RegistrationOut]


class BatchOut(Output):
    id: UUID
    order_id: UUID
    customer_id: UUID
    group_tag: str
    state: BatchState
    counts: Counts
    waiting_for: list[WaitingOut] = Field([], description="What holds the batch; empty when it is over.")
    tracking_id: str | None = Field(description="The platform's job, where one job tells of all devices.")
    correlation_id: UUID = Field(description="MS-CorrelationId of every call for this batch.")
    submissions: int
    polls: int
    uncertain: bool = Field(description="An earlier call may have reached Microsoft without an answer.")
    failure_code: str | None
    failure_said: str | None = Field(description="Microsoft's own words about the last failure.")
    due_at: Timestamp
    submitted_at: Timestamp | None
    settled_at: Timestamp | None
    created_at: Timestamp


class BatchAttempt(Output):
    kind: str
    request_id: UUID | None = Field(description="MS-RequestId.")
    correlation_id: UUID | None
    started_at: Timestamp
    finished_at: Timestamp | None
    outcome: str | None
    said: str | None
    made_by: UUID | None = Field(description="The API key that recorded it by hand.")


class BatchDetail(BatchOut):
    attempts: list[BatchAttempt] = Field(description="Newest first, at most 200.")


class Batches(PageOf):
    items: list[BatchOut]

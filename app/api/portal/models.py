"""Models of portal mode: files to upload by hand, and their recorded outcomes."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.api.contract.models import Input, Output, PageOf
from app.api.contract.texts import SOUGHT_PATTERN, Safe, Storable, named
from app.api.contract.times import Timestamp
from app.api.orders.models import BatchOut
from app.domain.batch import BatchState
from app.domain.registration import RegistrationState

Note = Annotated[str, named(500), Safe]
Value = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=SOUGHT_PATTERN), Storable]
Spoken = Literal["registered", "already_registered", "conflict", "failed"]


class PortalFileOut(Output):
    """One file, which is one batch: one group tag, and no more devices than the portal takes."""

    name: str = Field(description="The group tag and the order's reference as a file name.")
    batch_id: UUID
    group_tag: str
    rows: int
    state: BatchState = Field(
        description="queued: to be uploaded; submitted: uploaded; held: no consent; settled: over."
    )
    href: str | None = Field(description="Where to download it; null if it is not to be uploaded now.")
    steps: list[str] = Field(description="What to do at this portal, step by step.")
    submitted_at: Timestamp | None = Field(description="When it was marked as uploaded.")
    settled_at: Timestamp | None


class PortalFiles(PageOf):
    items: list[PortalFileOut]


Code = Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9_]+$")]


class RowOutcomeIn(Input):
    """One device, named by any of `row`, `file_row`, `registration_id`, `line_ref`, `serial_number`,
    `product_key`."""

    row: int | None = Field(None, ge=1, le=1_000_000, description="The device's number in the order, from 1.")
    file_row: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="The device's row in the uploaded file, from 1 without the header, as Intune names rows.",
    )
    registration_id: UUID | None = Field(None, strict=False)
    line_ref: Value | None = None
    serial_number: Value | None = None
    product_key: Value | None = None
    outcome: Spoken
    code: Code | None = Field(
        None,
        description="Microsoft's number or name, such as 808. With `failed` it says which failure.",
    )
    detail: Note | None = Field(None, description="Your own words; shown as `error_detail`. No secrets.")

    @model_validator(mode="after")
    def _names_a_device(self) -> "RowOutcomeIn":
        names = {"row", "file_row", "registration_id", "line_ref", "serial_number", "product_key"}
        if not self.model_fields_set & names:
            raise PydanticCustomError(
                "missing", "Name the device: by row, file_row, line_ref, serial number, ..."
            )
        return self


class OutcomeIn(Input):
    """One outcome for every device of the batch without one, or outcomes device by device."""

    ROWS = ("rows", RowOutcomeIn)

    outcome: Spoken | None = None
    code: Code | None = Field(
        None, description="With `outcome`: Microsoft's number or name for every device. See `rows`."
    )
    detail: Note | None = Field(None, description="With `outcome`: your own words for every device.")
    rows: Annotated[list[RowOutcomeIn], Field(min_length=1, max_length=10_000, fail_fast=True)] | None = None
    correct: bool = Field(
        False,
        description="Replace outcomes that were recorded by mistake. With `outcome`, that "
        "is every device of the batch.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "OutcomeIn":
        if (self.outcome is None) == (self.rows is None):
            raise PydanticCustomError("missing", "Give either `outcome` or `rows`")
        if self.rows is not None and (self.code or self.detail):
            raise PydanticCustomError("missing", "Give `code` and `detail` in each of the `rows`")
        return self


class UndoUploadIn(Input):
    refused: Note | None = Field(
        None,
        description="The portal's words, if it refused the whole file; shown as the batch's `failure_said`.",
    )


class RecordedDevice(Output):
    """A device whose outcome was written, to check that it is the right one."""

    registration_id: UUID
    row: int = Field(description="Of the order, from 1.")
    file_row: int = Field(description="Of the uploaded file, from 1 without the header.")
    line_ref: str | None
    serial_number: str | None
    product_key: str | None
    state: RegistrationState
    error_code: str | None


class RecordedOrder(Output):
    id: UUID
    reference: str
    customer_id: UUID
    customer_name: str


class UntouchedOut(Output):
    place: int = Field(description="The entry in `rows`, or the line of the file, counted from 1.")
    reason: str


class RecordedOut(Output):
    batch: BatchOut
    order: RecordedOrder
    outcomes: dict[str, int] = Field(description="`recorded`, counted by outcome.")
    devices: list[RecordedDevice] = Field(description="Those whose outcome was written; the first 100.")
    unread_columns: list[str] = Field(description="Columns of the file that were not read.")
    recorded: int = Field(description="Devices whose outcome was written.")
    corrected: int = Field(description="Of those, devices that had another outcome before.")
    again: int = Field(description="Of those, devices with a temporary failure: they are in a new file.")
    open: int = Field(description="Devices of the batch that have no outcome yet.")
    untouched_total: int
    untouched: list[UntouchedOut] = Field(
        description="Entries from which nothing was recorded, and why; the first 100. An existing outcome is "
        "overwritten with `correct` only."
    )


class ConsentRecordIn(Input):
    state: Literal["granted", "revoked"]
    note: Note = Field(description="What you saw, where and when; kept in the history.")

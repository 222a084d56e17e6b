"""The shapes of portal mode: files for a person, and what the person says came of them."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.api.models import NAME_PATTERN, BatchOut, Input, Output, PageOf, Timestamp
from app.domain.batch import BatchState

Note = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=NAME_PATTERN)
]
Value = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
Spoken = Literal["registered", "already_registered", "conflict", "failed"]


class PortalFileOut(Output):
    """One file, which is one batch: one group tag, at most as many devices as the portal takes."""

    name: str = Field(description="The group tag as a file name.")
    batch_id: UUID
    group_tag: str
    rows: int
    state: BatchState = Field(
        description="queued: to be uploaded; submitted: uploaded; held: no consent; settled: over."
    )
    href: str | None = Field(
        description="Where its bytes are; null while, or when, it is not to be uploaded."
    )
    steps: list[str] = Field(description="What the person does at this portal, in order.")
    submitted_at: Timestamp | None = Field(description="When it was marked as uploaded.")
    settled_at: Timestamp | None


class PortalFiles(PageOf):
    items: list[PortalFileOut]


class RowOutcomeIn(Input):
    """One device, named by any of `row`, `registration_id`, `line_ref`, `serial_number`, `product_key`."""

    row: int | None = Field(None, ge=1, le=10_000, description="The device's number in the order, from 1.")
    registration_id: UUID | None = Field(None, strict=False)
    line_ref: Value | None = None
    serial_number: Value | None = None
    product_key: Value | None = None
    outcome: Spoken
    code: Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9_]+$")] | None = Field(
        None,
        description="Microsoft's number or name, as 808. With `failed` it decides what the failure was.",
    )
    detail: Note | None = Field(None, description="Your own words; shown as `error_detail`. No secrets.")

    @model_validator(mode="after")
    def _names_a_device(self) -> "RowOutcomeIn":
        if not self.model_fields_set & {"row", "registration_id", "line_ref", "serial_number", "product_key"}:
            raise PydanticCustomError("missing", "Name the device: by row, line_ref, serial number, ...")
        return self


class OutcomeIn(Input):
    """Either one outcome for every device of the batch that has none yet, or device by device."""

    outcome: Spoken | None = None
    rows: Annotated[list[RowOutcomeIn], Field(min_length=1, max_length=10_000)] | None = None
    correct: bool = Field(
        False,
        description="What is said here replaces outcomes that were recorded by mistake. With `outcome`, that "
        "is every device of the batch.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "OutcomeIn":
        if (self.outcome is None) == (self.rows is None):
            raise PydanticCustomError("missing", "Give either `outcome` or `rows`")
        return self


class UntouchedOut(Output):
    place: int = Field(description="The entry in `rows`, or the line of the file, counted from 1.")
    reason: str


class RecordedOut(Output):
    batch: BatchOut
    recorded: int = Field(description="Devices whose outcome was written.")
    corrected: int = Field(description="Of those, devices that had another outcome before.")
    again: int = Field(description="Of those, devices with a passing trouble: they are in a new file.")
    open: int = Field(description="Devices of the batch that have no outcome yet.")
    untouched_total: int
    untouched: list[UntouchedOut] = Field(
        description="From what nothing was recorded, and why; the first 100. An outcome that is there is "
        "overwritten with `correct` only."
    )


class ConsentRecordIn(Input):
    state: Literal["granted", "revoked"]
    note: Note = Field(description="What you saw, where and when; kept in the history.")

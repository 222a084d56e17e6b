"""The shapes callers meet: what they send and what they get, as OpenAPI shows them.

Answers are built from the services' records here and nowhere else. A field's description says
what a caller needs to know; credentials, keys and hashes have no answer shape at all.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.api.texts import KeepsNoSecret, NamesATag, Safe, Seen, named
from app.api.times import Timestamp
from app.api.waiting_models import WaitingOut
from app.domain.batch import BatchState
from app.domain.catalogue import Advice, Category, Severity
from app.domain.consent import ConsentState, Evidence
from app.domain.identity import IdentityKind
from app.domain.order import MAX_DEVICES, OrderState
from app.domain.registration import RegistrationState
from app.domain.scope import Scope
from app.platforms.base import Channel, Profiles


def _written_out(value: Any) -> Any:
    """pydantic would take any number for seconds since 1970."""
    if isinstance(value, str) and not _DATE_AND_TIME.match(value):
        raise PydanticCustomError(
            "datetime_parsing", "Input should be a date and time with its offset, as 2026-01-31T08:00:00Z"
        )
    return value


_DATE_AND_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}", re.ASCII)


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("datetime_out_of_range", "Input is outside the years 1 to 9999") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
"""A time in a query, with its offset."""


Text100 = Annotated[str, named(100), Safe, KeepsNoSecret]
Text255 = Annotated[str, named(255), Safe, KeepsNoSecret]
GroupTagText = Annotated[str, named(512), Seen, NamesATag, KeepsNoSecret]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=8192, pattern=r"^[\x21-\x7e]+$")]


def _present_word(value: Any) -> Any:
    """`reject_order` is what orders called it before imports came."""
    return "reject" if value == "reject_order" else value


OnInvalid = Annotated[
    Literal["accept_valid", "reject"],
    BeforeValidator(_present_word),
    Field(
        description="`accept_valid`: invalid rows are left out and the others are ordered. "
        "`reject`: nothing is ordered if a row is invalid."
    ),
]
"""One pair of words for orders and imports."""


class Input(BaseModel):
    """Strict: a field nobody knows is an error, not something to drop silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ROWS: ClassVar[tuple[str, type[BaseModel]] | None] = None
    """The long list of the body and what is in it. It fails at its first wrong row, so that a body wrong
    everywhere costs little; `decoding` then looks at one row after the other."""


class Patch(Input):
    """Changes what is given. Null empties a field that may be empty, and is refused for the others."""

    MAY_BE_EMPTY: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*")
    @classmethod
    def _refuse_null(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name not in cls.MAY_BE_EMPTY:
            raise PydanticCustomError("not_nullable", "This field cannot be emptied")
        return value


class Output(BaseModel):
    model_config = ConfigDict(frozen=True)


class PageOf(Output):
    next_page_token: str | None = Field(
        None, description="Give it as `page_token` for the next page; null at the end."
    )


# --- problems -------------------------------------------------------------------------------------


class ProblemError(Output):
    pointer: str = Field(description="JSON pointer into the body, or the parameter's name.")
    code: str = Field(description="A code of `GET /v1/error-codes`, or of the JSON shape.")
    detail: str
    row: int | None = Field(None, description="The device's number in the order, counted from 1.")
    field: str | None = Field(None, description="The field's name.")
    remedy: str | None = Field(None, description="What to do about it.")


class Problem(Output):
    """RFC 9457 problem details."""

    type: str = Field(description="A link to the code's entry.")
    title: str
    status: int
    detail: str
    code: str = Field(description="A code of `GET /v1/error-codes`.")
    remedy: str
    correlation_id: str = Field(description="Give it to the operator when asking for help.")
    errors: list[ProblemError] = Field(default_factory=list)
    links: dict[str, str] = Field(default_factory=dict, description="Ids of what the detail speaks of.")


# --- platforms, codes, limits -----------------------------------------------------------------------


class PlatformOut(Output):
    name: str
    title: str
    max_devices: int = Field(description="Devices in one upload at most.")
    identities: list[IdentityKind]
    profiles: Profiles
    channel: Channel
    automated: bool = Field(description="Whether Registrar drives it by API.")
    portal: bool = Field(description="Whether orders can be files that a person uploads at its portal.")
    retired: bool
    note: str


class Platforms(Output):
    items: list[PlatformOut]


class CodeOut(Output):
    code: str
    category: Category
    severity: Severity
    advice: Advice = Field(
        description="retry: the same later; person: do the remedy first; never: send something else."
    )
    title: str
    remedy: str


class Codes(Output):
    items: list[CodeOut]


# --- connections ------------------------------------------------------------------------------------


class ConnectionIn(Input):
    name: Text100
    platform: Text100 = "partner_center"
    entra_tenant_id: UUID = Field(strict=False, description="The partner's own Entra tenant.")
    client_id: Text255 | None = Field(
        None,
        description="The app registered in Partner Center. A portal connection (an indirect reseller's, or "
        "one of a platform without an API) has no credentials: with any of the three it is refused.",
    )
    client_secret: Secret | None = Field(None, description="Write-only. Refused for a portal connection.")
    refresh_token: Secret | None = Field(
        None,
        description="Write-only. App+User consent with MFA; without it no new group tag can be made. "
        "Refused for a portal connection.",
    )
    region: Text100 | None = Field(None, description="Sales region; for your own overview.")
    default_group_tag: GroupTagText = Field(
        description="For devices that name none: Partner Center would invent a tag otherwise."
    )


class ConnectionPatch(Patch):
    MAY_BE_EMPTY = frozenset({"region", "client_secret", "refresh_token"})

    name: Text100 | None = None
    entra_tenant_id: UUID | None = Field(
        None,
        strict=False,
        description="The partner's own Entra tenant. Where it changes, send `client_secret` and, if the "
        "connection has one, `refresh_token` in the same call. Customers' consents are then unknown, and "
        "their orders held until the new tenant's customers list has been read, which happens at once.",
    )
    client_id: Text255 | None = Field(
        None,
        description="The app registered in Partner Center. Where it changes, send `client_secret` and, if "
        "the connection has one, `refresh_token` in the same call. Refused for a portal connection.",
    )
    client_secret: Secret | None = Field(
        None,
        description="Null takes the stored one away: the connection is in trouble until it has another. "
        "Refused for a portal connection.",
    )
    refresh_token: Secret | None = Field(
        None, description="Null takes the stored one away. Refused for a portal connection."
    )
    region: Text100 | None = None
    default_group_tag: GroupTagText | None = None


class Trouble(Output):
    code: str
    said: str | None = Field(description="Microsoft's own words.")
    since: Timestamp
    remedy: str


class ConnectionOut(Output):
    id: UUID
    name: str
    platform: str
    portal: bool = Field(
        description="Its orders are files for a person, and consent is recorded by hand: the platform is not "
        "driven by API, or not for the partner's role."
    )
    entra_tenant_id: UUID
    client_id: str | None
    has_client_secret: bool
    has_refresh_token: bool
    refresh_token_at: Timestamp | None = Field(description="It lives 90 days from then.")
    region: str | None
    default_group_tag: str
    trouble: Trouble | None = Field(description="What has to be fixed; null when all is well.")
    customers_read_at: Timestamp | None
    checked_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class Connections(PageOf):
    items: list[ConnectionOut]


class CheckOut(Output):
    ok: bool
    proved: list[str] = Field(description="What Microsoft was asked and answered well.")
    code: str | None = Field(description="What is wrong, as a code of `GET /v1/error-codes`.")
    said: str | None = Field(description="Microsoft's own words.")
    remedy: str | None


# --- customers and consent --------------------------------------------------------------------------


class CustomerIn(Input):
    connection_id: UUID = Field(strict=False)
    entra_tenant_id: UUID = Field(strict=False, description="The customer's Entra tenant.")
    name: Text255
    domain: Text255 | None = None
    default_group_tag: GroupTagText | None = None


class CustomerPatch(Patch):
    MAY_BE_EMPTY = frozenset({"domain", "default_group_tag"})

    name: Text255 | None = None
    domain: Text255 | None = None
    default_group_tag: GroupTagText | None = None


class ConsentSummary(Output):
    state: ConsentState
    since: Timestamp
    evidence: Evidence = Field(description="What the state rests on.")
    proved_at: Timestamp | None = Field(description="When the customer was last seen in the customers list.")
    checked_at: Timestamp | None = Field(description="When the customers list was last read.")


class ConsentChange(Output):
    from_state: ConsentState | None
    to_state: ConsentState
    evidence: Evidence
    at: Timestamp
    note: str | None = Field(description="What a person wrote down with it.")
    made_by: UUID | None = Field(description="The API key of that person.")


class ConsentOut(ConsentSummary):
    customer_id: UUID
    lets_pass: bool = Field(description="Whether devices are sent in this state.")
    history: list[ConsentChange] = Field(description="Newest first, at most 100.")


class ConsentLink(Output):
    url: str = Field(description="A global administrator of the customer opens it and accepts.")


class CustomerOut(Output):
    id: UUID
    connection_id: UUID
    entra_tenant_id: UUID
    name: str
    domain: str | None
    default_group_tag: str | None
    consent: ConsentSummary
    created_at: Timestamp
    updated_at: Timestamp


class Customers(PageOf):
    items: list[CustomerOut]


# --- orders and registrations -------------------------------------------------------------------------


class DeviceIn(Input):
    """One device: a PKID, or serial number + manufacturer + model, or a hardware hash.

    Values are judged as those of a file. N/A, NULL, `-` and the like count as empty.
    """

    serial_number: str | None = Field(None, max_length=4096)
    manufacturer: str | None = Field(
        None, max_length=4096, description="To the letter as the firmware has it."
    )
    model: str | None = Field(None, max_length=4096, description="To the letter as the firmware has it.")
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
        None, description="For devices that name none. Default: the customer's, then the connection's."
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
    """What the order does or would do; the same for a dry run and the real one."""

    counts: Counts
    portal: bool = Field(
        description="Each batch is a file that a person uploads, and not a call to Microsoft."
    )
    batches: list[BatchPlan]
    problems: list[RowProblem] = Field(description="The first 100 rows with findings.")
    problems_total: int = Field(description="Rows with findings, errors or warnings.")


class OrderOut(Output):
    id: UUID
    reference: str
    purchase_order: str | None
    customer_id: UUID
    platform: str
    portal: bool = Field(description="A person uploads its files: see `portal-files`.")
    group_tag: str
    state: OrderState = Field(description="Computed from the counts; never Microsoft's batch status.")
    counts: Counts
    waiting_for: list[WaitingOut] = Field(
        [],
        description="What holds the order, reasons that need action first; empty when it is over.",
    )
    created_at: Timestamp


class OrderAccepted(OrderOut):
    result: Literal["accepted"] = Field("accepted", description="Tells it apart from `validated`.")
    preview: OrderPreview


class OrderValidated(OrderPreview):
    """The answer to `validate_only`."""

    result: Literal["validated"] = Field("validated", description="Tells it apart from `accepted`.")


class OrderRetried(OrderOut):
    retried: int
    without_hash: int = Field(
        description="Rows whose hash has been deleted meanwhile: send them in a new order."
    )


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
    identity: IdentityKind | None = Field(description="What is sent; null for an invalid row.")
    group_tag: str | None
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    error_code: str | None
    error_detail: str | None
    remedy: str | None = Field(description="What to do about `error_code`.")
    upstream: Upstream = Field(description="Microsoft's own words about this device.")
    findings: list[FindingOut] = Field(description="What the checks said before anything was sent.")
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
    tracking_id: str | None = Field(description="Partner Center's job.")
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
    made_by: UUID | None = Field(description="The API key of the person who recorded it by hand.")


class BatchDetail(BatchOut):
    attempts: list[BatchAttempt] = Field(description="Newest first, at most 200.")


class Batches(PageOf):
    items: list[BatchOut]


# --- service --------------------------------------------------------------------------------------------


class Me(Output):
    partner_id: UUID
    partner_name: str
    partner_role: str
    scopes: list[Scope]
    key: "OwnKey"


class OwnKey(Output):
    prefix: str = Field(description="Names the key in logs and lists. The rest of it is stored nowhere.")
    name: str
    expires_at: Timestamp | None = Field(description="Null: never.")


class Health(Output):
    status: Literal["ok"] = "ok"


class Readiness(Output):
    ready: bool = Field(description="Whether everything below is as it should be.")
    stopping: bool = Field(description="The process has been told to stop and takes no new callers.")
    database: bool
    schema_: str = Field(alias="schema", description="`current`, or what is wrong with the schema.")
    redis: bool | None = Field(description="Null without `?all`.")
    worker: str | None = Field(description="`alive`, or since when none has been seen. Null without `?all`.")

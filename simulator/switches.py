"""Every doubtful or documented behaviour of Microsoft's services, as one table of named switches.

The live service could not be measured, so what the documents leave open (or say twice, differently) is a
switch here and not a line of code elsewhere. A test proves that the README lists each of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

Rate = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[int, Field(ge=0, le=86_400_000)]


def _about(text: str) -> Any:
    return Field(description=text)


@dataclass(frozen=True)
class Switches:
    """The stand-in's present behaviour. Replaced as a whole, never changed in place."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    # --- device upload ---
    location_style: Annotated[
        Literal["header", "absolute", "body", "none"],
        _about(
            "Where an accepted upload names its tracking resource: relative Location header without /v1; "
            "absolute Location; 200 with a link as the body; nowhere"
        ),
    ] = "header"
    max_devices_per_call: Annotated[
        int, Field(ge=1), _about("More devices than this in one call are refused")
    ] = 1000
    max_devices_refusal: Annotated[
        Literal["bad_request", "too_large"],
        _about("Such a call is refused with 400, or as a gateway does with 413 and no JSON"),
    ] = "bad_request"
    refuse_calls_with: Annotated[
        tuple[str, ...], _about("Serial numbers and PKIDs for which the whole call is refused with 400")
    ] = ()
    app_only_create: Annotated[
        bool, _about("Creating a batch with an app-only token is allowed (else 403 with 900329)")
    ] = False
    create_existing_batch: Annotated[
        Literal["conflict", "append", "bad_request"],
        _about("Creating a batch whose id exists: 409, or the devices join it, or 400"),
    ] = "conflict"
    append_missing_batch: Annotated[
        Literal["not_found", "create", "bad_request"],
        _about("Appending to a batch that does not exist: 404, or it is made, or 400"),
    ] = "not_found"
    new_batch_listed_after_s: Annotated[
        float,
        Field(ge=0),
        _about("How long the list of batches does not show a new batch, which is there all the same"),
    ] = 0
    batch_ids_ignore_case: Annotated[bool, _about("'Sales' and 'SALES' are one batch")] = True
    request_id_dedup: Annotated[
        bool, _about("The same MS-RequestId on the same method and path gives the first result again")
    ] = True
    request_id_window_s: Annotated[int, Field(ge=0), _about("How long an MS-RequestId is remembered")] = 600

    # --- every answer ---
    byte_order_mark: Annotated[
        Literal["partner_center", "everywhere", "never"],
        _about(
            "Whose JSON answers begin with a UTF-8 byte order mark: Partner Center's, as recorded answers of "
            "its hosts do; the token service's too; nobody's"
        ),
    ] = "partner_center"

    # --- job status ---
    processing_min_ms: Annotated[Milliseconds, _about("Shortest time from acceptance to finished")] = 100
    processing_max_ms: Annotated[Milliseconds, _about("Longest time from acceptance to finished")] = 400
    queued_share: Annotated[Rate, _about("Share of that time spent as 'queued' before 'processing'")] = 0.3
    status_regress_rate: Annotated[
        Rate, _about("Share of jobs whose status goes from processing back to queued once")
    ] = 0.0
    never_finish_rate: Annotated[Rate, _about("Share of jobs that never finish")] = 0.0
    batch_status_hides_errors: Annotated[
        bool, _about("Batch status is 'finished' although devices failed (else finished_with_errors)")
    ] = True
    device_status_style: Annotated[
        Literal["in-progress", "enum"],
        _about("Device status while the job runs: 'in-progress', or the batch's 'queued'/'processing'"),
    ] = "in-progress"
    device_status_while_running: Annotated[
        bool, _about("devicesStatus lists the devices while the job runs (else an empty list)")
    ] = True
    shuffle_device_status: Annotated[
        bool, _about("devicesStatus comes in another order at every reading")
    ] = False
    success_error_fields: Annotated[
        Literal["omit", "null", "empty"],
        _about("errorCode and errorDescription of a device without error: absent, null, or empty text"),
    ] = "omit"
    status_missing_s: Annotated[
        float, Field(ge=0), _about("How long after the 202 a job's status answers 404")
    ] = 0
    tracking_retention_s: Annotated[
        int, Field(ge=0), _about("A finished job's status answers 404 after this time; 0 keeps it")
    ] = 0

    # --- devices ---
    accept_any_hash: Annotated[
        bool, _about("Hardware hashes are not opened; any text is its own device (for dummy hashes)")
    ] = False
    uuid_splits_devices: Annotated[
        bool, _about("Two hashes of equal maker, model and serial but other SMBIOS UUID are two devices")
    ] = True
    extra_identifiers: Annotated[
        Literal["refuse", "ignore"],
        _about("productKey beside serialNumber without a hash (not a documented combination): 801, or PKID"),
    ] = "refuse"
    oem_knows_all: Annotated[
        bool, _about("Every tuple and PKID is known to OEM data (else only those of /control/oem)")
    ] = True
    oem_unknown: Annotated[tuple[str, ...], _about("Serial numbers and PKIDs unknown to OEM data: 812")] = ()
    oem_unknown_suffix: Annotated[
        str, _about("Serial numbers and PKIDs ending so are unknown to OEM data; empty is off")
    ] = ""
    oem_ambiguous: Annotated[tuple[str, ...], _about("Serial numbers whose tuple is not unique: 813")] = ()
    oem_ambiguous_suffix: Annotated[
        str, _about("Serial numbers ending so have a tuple that is not unique; empty is off")
    ] = ""
    name_806: Annotated[str, _about("errorDescription of 806")] = "ZtdDeviceAlreadyAssigned"
    name_808: Annotated[str, _about("errorDescription of 808")] = "ZtdDeviceAssignedToOtherTenant"
    unnumbered_error_code: Annotated[
        str,
        _about(
            "errorCode of ZtdDeviceDuplicated and StorageError, which no document numbers; empty: no field"
        ),
    ] = ""
    storage_error_rate: Annotated[Rate, _about("Share of devices answered StorageError (transient)")] = 0.0

    # --- collections ---
    devices_count_field: Annotated[
        Literal["devicesCount", "deviceCount", "both"], _about("Name of the count in a batch")
    ] = "devicesCount"
    total_count_of_page: Annotated[
        bool, _about("totalCount counts the page shown (else the whole collection)")
    ] = True

    # --- access ---
    unknown_customer_style: Annotated[
        Literal["forbidden", "not_found"],
        _about("Customer without reseller relationship: 403 with 20002, or 404 with 1000"),
    ] = "forbidden"
    mfa_failure_style: Annotated[
        Literal["challenge", "code", "off"],
        _about("Delegated token without mfa: 401 with a Bearer challenge, 401 with 900421, or accepted"),
    ] = "challenge"
    access_token_lifetime_s: Annotated[int, Field(ge=0), _about("Life of an access token")] = 3599
    refresh_token_lifetime_s: Annotated[int, Field(ge=0), _about("Life of a refresh token")] = 7_776_000
    refresh_token_reusable: Annotated[
        bool, _about("A redeemed refresh token stays valid (else redeeming revokes it at once)")
    ] = True

    # --- weather ---
    throttle_requests: Annotated[
        int, Field(ge=0), _about("Requests allowed in one window before 429; 0 is off")
    ] = 0
    throttle_window_s: Annotated[int, Field(ge=1), _about("Length of the throttling window")] = 60
    throttle_scope: Annotated[
        Literal["partner", "customer"], _about("What is counted: the partner, or partner and customer")
    ] = "partner"
    server_error_rate: Annotated[
        Rate, _about("Share of calls answered 500, 502, 503 or 504 without JSON")
    ] = 0.0
    server_error_after_share: Annotated[
        Rate, _about("Share of those that are answered after the call had its effect")
    ] = 0.0
    drop_rate: Annotated[
        Rate, _about("Share of calls whose connection is dropped, half of them after the effect")
    ] = 0.0
    answer_min_ms: Annotated[Milliseconds, _about("Shortest delay before an answer")] = 0
    answer_max_ms: Annotated[Milliseconds, _about("Longest delay before an answer")] = 0

    # --- notifications ---
    webhook_retry_ms: Annotated[
        Milliseconds, _about("Pause between the 10 attempts to deliver a notification")
    ] = 200
    public_url: Annotated[
        str, _about("Base URL in links and X-MS-Certificate-Url; empty takes the Host the caller used")
    ] = ""

    def __post_init__(self) -> None:
        for name in ("processing", "answer"):
            if getattr(self, f"{name}_min_ms") > getattr(self, f"{name}_max_ms"):
                raise ValueError(f"{name}_min_ms is above {name}_max_ms")


_ADAPTER = TypeAdapter(Switches)

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "instant": {"processing_min_ms": 0, "processing_max_ms": 0},
    "hostile": {
        "processing_min_ms": 200,
        "processing_max_ms": 3000,
        "status_regress_rate": 0.3,
        "device_status_style": "enum",
        "storage_error_rate": 0.01,
        "devices_count_field": "deviceCount",
        "refresh_token_reusable": False,
        "throttle_requests": 300,
        "throttle_window_s": 10,
        "server_error_rate": 0.05,
        "server_error_after_share": 0.5,
        "drop_rate": 0.03,
        "answer_min_ms": 5,
        "answer_max_ms": 80,
    },
}


def patched(current: Switches, patch: dict[str, Any]) -> Switches:
    """The switches with some changed. Raises pydantic.ValidationError on an unknown name or a bad value."""
    return _ADAPTER.validate_python({**dataclasses.asdict(current), **patch})


def described() -> list[dict[str, Any]]:
    """One row per switch: its name, default and meaning, in the order of the table above."""
    schema = _ADAPTER.json_schema()["properties"]
    return [
        {
            "name": field.name,
            "default": field.default,
            "values": schema[field.name].get("enum"),
            "meaning": schema[field.name]["description"],
        }
        for field in dataclasses.fields(Switches)
    ]

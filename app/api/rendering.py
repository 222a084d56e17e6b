"""Stored values into answers: the one place where they become fields."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.api.models import (
    BatchOut,
    BatchPlan,
    ConnectionOut,
    ConsentSummary,
    Counts,
    CustomerOut,
    FindingOut,
    OrderAccepted,
    OrderOut,
    OrderPreview,
    RegistrationOut,
    RowProblem,
    Trouble,
    Upstream,
)
from app.api.waiting_models import WaitingOut
from app.api.webhook_models import DeliveryOut, EndpointOut
from app.domain.attempt import OPEN_DELIVERY
from app.domain.batch import Batch
from app.domain.catalogue import CATALOGUE
from app.domain.connection import Connection
from app.domain.customer import Customer
from app.domain.former_codes import stored
from app.domain.registration import Registration, RegistrationState
from app.domain.subscription import shown_types
from app.domain.waiting import Waiting
from app.domain.webhook import Delivery, Endpoint
from app.services import waiting
from app.services.acceptance import Preview
from app.services.orders import OrderView
from app.services.recall import Recalled

MAX_PROBLEMS = 100


def remedy(code: str | None) -> str | None:
    entry = CATALOGUE.get(code or "")
    return entry.remedy if entry else None


def connection(record: Connection) -> ConnectionOut:
    trouble = None
    if record.trouble_code is not None:
        trouble = Trouble(
            code=record.trouble_code,
            said=record.trouble_said or None,
            since=record.trouble_since,
            # A later release beside this one may have written a code that is not known here.
            remedy=remedy(record.trouble_code) or "",
        )
    return ConnectionOut(
        **same(record, ConnectionOut, but=("has_client_secret", "has_refresh_token", "trouble")),
        has_client_secret=bool(record.client_secret),
        has_refresh_token=record.refresh_token is not None,
        trouble=trouble,
    )


def consent_summary(record: Customer) -> ConsentSummary:
    return ConsentSummary(
        state=record.consent_state,
        since=record.consent_since,
        evidence=record.consent_evidence,
        proved_at=record.consent_proved_at,
        checked_at=record.consent_checked_at,
    )


def customer(record: Customer) -> CustomerOut:
    return CustomerOut(**same(record, CustomerOut, but=("consent",)), consent=consent_summary(record))


def order_fields(view: OrderView) -> dict[str, Any]:
    return {
        **same(view.record, OrderOut, but=("state", "counts", "waiting_for")),
        "state": view.state,
        "counts": Counts.of(view.counts),
        "waiting_for": waiting_for(view.waiting_for),
    }


def waiting_for(reasons: Sequence[Waiting]) -> list[WaitingOut]:
    return [WaitingOut(**waiting.fields(reason)) for reason in reasons]


def order(view: OrderView) -> OrderOut:
    return OrderOut(**order_fields(view))


def preview(found: Preview) -> OrderPreview:
    noted = [(number, row) for number, row in enumerate(found.plan.rows, start=1) if row.findings]
    rows = [
        RowProblem(
            row=number,
            line_ref=row.line_ref,
            valid=row.is_valid,
            findings=[_finding(f.code, f.field, f.detail) for f in row.findings],
        )
        for number, row in noted[:MAX_PROBLEMS]
    ]
    return OrderPreview(
        counts=Counts.of(found.counts),
        portal=found.portal,
        batches=[BatchPlan(group_tag=batch.group_tag, devices=batch.devices) for batch in found.plan.batches],
        problems=rows,
        problems_total=len(noted),
    )


def recalled(found: Recalled) -> OrderAccepted:
    """The answer to an order as it is now."""
    rows = [
        RowProblem(
            row=row.row_number,
            line_ref=row.line_ref,
            valid=row.state != RegistrationState.INVALID,
            findings=[_finding(f["code"], f["field"], f["detail"]) for f in row.findings],
        )
        for row in found.noted
    ]
    now = OrderPreview(
        counts=Counts.of(found.view.counts),
        portal=found.view.record.portal,
        batches=[BatchPlan(group_tag=each.group_tag, devices=each.device_count) for each in found.batches],
        problems=rows,
        problems_total=found.noted_total,
    )
    return OrderAccepted(**order_fields(found.view), preview=now)


def _finding(code: str, field: str, detail: str) -> FindingOut:
    entry = stored(code)
    return FindingOut(
        code=entry.code, severity=entry.severity, field=field, detail=detail, remedy=entry.remedy
    )


def registration(record: Registration) -> RegistrationOut:
    return RegistrationOut(
        **same(record, RegistrationOut, but=("row", "remedy", "upstream", "findings")),
        row=record.row_number,
        remedy=remedy(record.error_code),
        upstream=Upstream(
            code=record.upstream_code,
            name=record.upstream_name,
            device_id=record.upstream_device_id,
        ),
        findings=[_finding(f["code"], f["field"], f["detail"]) for f in record.findings or ()],
    )


def batch_fields(record: Batch, counts: Mapping[str, int], reasons: Sequence[Waiting] = ()) -> dict[str, Any]:
    return {
        **same(record, BatchOut, but=("counts", "waiting_for")),
        "waiting_for": waiting_for(reasons),
        "counts": Counts.of({RegistrationState(state): n for state, n in counts.items()}),
    }


def endpoint_fields(record: Endpoint) -> dict[str, Any]:
    return {**same(record, EndpointOut), "event_types": shown_types(record.event_types)}


def delivery_fields(record: Delivery) -> dict[str, Any]:
    fields = same(record, DeliveryOut)
    if record.state not in OPEN_DELIVERY:
        fields["due_at"] = None
    return fields


def same(record: object, model: type[Any], but: Sequence[str] = ()) -> dict[str, Any]:
    """The model's fields that the value has under the same name."""
    return {name: getattr(record, name) for name in model.model_fields if name not in but}

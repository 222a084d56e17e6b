"""Orders, registrations and batches into answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.api.contract.fields import remedy, same
from app.api.contract.models import WaitingOut
from app.api.orders.models import (
    BatchOut,
    BatchPlan,
    Counts,
    FindingOut,
    OrderAccepted,
    OrderOut,
    OrderPreview,
    RegistrationOut,
    RowProblem,
    Upstream,
)
from app.domain.batch import Batch
from app.domain.connection import ConnectionMode
from app.domain.former_codes import stored
from app.domain.registration import Registration, RegistrationState
from app.domain.waiting import Waiting
from app.services.events import waiting
from app.services.orders.acceptance import Preview
from app.services.orders.orders import OrderView
from app.services.orders.recall import Recalled

MAX_PROBLEMS = 100


def order_fields(view: OrderView) -> dict[str, Any]:
    return {
        **same(view.record, OrderOut, but=("portal", "state", "counts", "waiting_for")),
        "portal": view.record.mode is ConnectionMode.PORTAL,
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
        portal=found.mode is ConnectionMode.PORTAL,
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
        portal=found.view.record.mode is ConnectionMode.PORTAL,
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

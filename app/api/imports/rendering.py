"""Renders imports and vendor profiles as answers."""

from collections.abc import Mapping
from typing import Any

from app.api.contract.fields import same
from app.api.imports.models import (
    ImportColumn,
    ImportCounts,
    ImportCustomer,
    ImportDialect,
    ImportFailure,
    ImportNotice,
    ImportOrder,
    ImportOut,
    ImportPreview,
    ImportProblem,
    ImportProblemCount,
    ImportProgress,
    ImportRow,
    ImportRowProblem,
    ImportTag,
    ProfileOut,
    ProfileSummary,
)
from app.domain import vendor_profile
from app.domain.former_codes import stored
from app.domain.imports import ImportState
from app.domain.staged import StagedRow
from app.domain.vendor_profile import VendorProfile
from app.services.imports.imports import ImportView


def import_(view: ImportView) -> ImportOut:
    record = view.record
    arriving = view.state is ImportState.UPLOADING
    return ImportOut(
        id=record.id,
        state=view.state,
        file_name=record.file_name,
        sha256=None if record.digest is None else record.digest.hex(),
        customer_id=record.customer_id,
        reference=None if arriving else record.reference,
        purchase_order=record.purchase_order,
        group_tag=record.group_tag,
        profile=record.profile_name,
        progress=ImportProgress(
            rows_read=record.rows_read, bytes_read=record.bytes_read, size_bytes=record.size_bytes
        ),
        counts=ImportCounts.of(record.counts),
        dialect=None if record.dialect is None else _dialect(record.dialect),
        preview=None if record.summary is None else _preview(record.summary),
        failure=None
        if record.failure_code is None
        else ImportFailure(
            code=stored(record.failure_code).code,
            detail=record.failure_said,
            remedy=stored(record.failure_code).remedy,
        ),
        orders=[
            ImportOrder(customer_id=order.customer_id, order_id=order.order_id, reference=order.reference)
            for order in view.orders
        ],
        created_at=record.created_at,
        updated_at=record.updated_at,
        expires_at=record.expires_at,
    )


def _dialect(found: Mapping[str, Any]) -> ImportDialect:
    columns = [ImportColumn(**column) for column in found["columns"]]
    return ImportDialect(
        **{name: found[name] for name in ("format", "container", "kind", "encoding", "delimiter")},
        header_row=found["header_row"],
        sheet=found.get("sheet"),
        columns=columns,
        columns_unused=[column.name for column in columns if column.field is None],
        notices=[
            ImportNotice(
                code=entry.code,
                severity=entry.severity,
                column=notice["column"],
                detail=notice["detail"],
                remedy=entry.remedy,
            )
            for notice in found["notices"]
            for entry in (stored(notice["code"]),)
        ],
    )


def _preview(summary: Mapping[str, Any]) -> ImportPreview:
    return ImportPreview(
        batches=summary["batches"],
        changed=summary["changed"],
        customers=[
            ImportCustomer(
                customer_id=customer["customer_id"],
                counts=ImportCounts.of(customer),
                batches=customer["batches"],
                purchase_order=customer["purchase_order"],
            )
            for customer in summary["customers"]
        ],
        customers_total=summary["customers_total"],
        group_tags=[ImportTag(**tag) for tag in summary["group_tags"]],
        group_tags_total=summary["group_tags_total"],
        problems=[
            ImportProblemCount(
                code=entry.code,
                severity=entry.severity,
                title=entry.title,
                remedy=entry.remedy,
                rows=problem["rows"],
                first_rows=problem["first_rows"],
                first_lines=problem.get("first_lines", ()),
            )
            for problem in summary["problems"]
            for entry in (stored(problem["code"]),)
        ],
    )


def row(record: StagedRow) -> ImportRow:
    return ImportRow(
        row=record.row_number,
        problems=[ImportProblem(**_problem(found)) for found in record.findings or ()],
        **same(record, ImportRow, but=("row", "problems")),
    )


def problems(record: StagedRow) -> list[ImportRowProblem]:
    return [
        ImportRowProblem(row=record.row_number, line=record.line, **_problem(found))
        for found in record.findings or ()
    ]


def _problem(found: Mapping[str, Any]) -> dict[str, Any]:
    entry = stored(found["code"])
    return {
        "code": entry.code,
        "severity": entry.severity,
        "column": found.get("column"),
        "field": found["field"] or None,
        "value": found.get("value"),
        "detail": found["detail"],
        "remedy": entry.remedy,
    }


def profile(record: VendorProfile) -> ProfileOut:
    return ProfileOut(**same(record, ProfileOut))


def profile_summary(record: vendor_profile.ProfileSummary) -> ProfileSummary:
    return ProfileSummary(**same(record, ProfileSummary))

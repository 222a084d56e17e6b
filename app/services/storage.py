"""Writing an order's rows as they are planned: batches when they open, rows and hashes chunk by chunk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

from app.db import batches, registrations, tables
from app.db.engine import encode_json, load
from app.db.ids import new_row_ids
from app.db.sql import Record
from app.domain.batch import BatchState
from app.domain.catalogue import Finding
from app.domain.identity import IdentityKind
from app.domain.ids import PartnerId
from app.domain.registration import RegistrationState
from app.runtime import Tx
from app.services.planning import Plan, PlannedRow

_BATCH_COLUMNS = (
    "id",
    "partner_id",
    "order_id",
    "customer_id",
    "connection_id",
    "group_tag",
    "device_count",
    "state",
    "due_at",
    "correlation_id",
    "created_at",
    "updated_at",
)


@dataclass
class OrderStorage:
    """One order's rows on their way into one transaction. The order itself is there already."""

    tx: Tx
    partner_id: PartnerId
    order: Record
    held: bool = field(kw_only=True)
    now: datetime = field(kw_only=True)
    _batch_ids: list[UUID] = field(default_factory=list)
    _stored: int = 0

    async def add(self, plan: Plan, rows: Sequence[PlannedRow]) -> None:
        await self._open_batches(plan)
        ids = new_row_ids(len(rows))
        values = [
            self._row(id, self._stored + n, row) for n, (id, row) in enumerate(zip(ids, rows, strict=True), 1)
        ]
        self._stored += len(rows)
        await registrations.add_many(self.tx.session, values)
        hashes = [
            (id, self.partner_id, row.device.hash.data)
            for id, row in zip(ids, rows, strict=True)
            if row.device.kind is IdentityKind.HARDWARE_HASH and row.device.hash is not None
        ]
        await registrations.add_hashes(self.tx.session, hashes)

    async def close(self, plan: Plan) -> None:
        """After the last row: the batches learn how many devices they have."""
        sizes = [batch.devices for batch in plan.batches]
        await batches.set_sizes(self.tx.session, self.partner_id, self._batch_ids, sizes)

    async def _open_batches(self, plan: Plan) -> None:
        """Those that the plan has opened since. A row is not stored before its batch."""
        opened = plan.batches[len(self._batch_ids) :]
        ids = new_row_ids(len(opened))
        self._batch_ids += ids
        state = BatchState.HELD if self.held else BatchState.QUEUED
        of_order = (self.order["id"], self.order["customer_id"], self.order["connection_id"])
        await load(
            self.tx.session,
            tables.batches,
            _BATCH_COLUMNS,
            [
                (
                    id,
                    self.partner_id,
                    *of_order,
                    batch.group_tag,
                    batch.devices,
                    state.value,
                    self.now,
                    uuid4(),
                    self.now,
                    self.now,
                )
                for id, batch in zip(ids, opened, strict=True)
            ],
        )

    def _row(self, id: UUID, number: int, row: PlannedRow) -> tuple[object, ...]:
        """In the order of `registrations.COLUMNS`."""
        device, is_valid = row.device, row.batch is not None
        error = None if is_valid else next(finding for finding in device.findings if finding.is_error)
        return (
            id,
            self.partner_id,
            self.order["id"],
            self.order["customer_id"],
            self._batch_ids[row.batch] if row.batch is not None else None,
            number,
            row.position if is_valid else None,
            (RegistrationState.QUEUED if is_valid else RegistrationState.INVALID).value,
            device.line_ref,
            row.group_tag,
            device.kind,
            device.search_serial,
            device.manufacturer,
            device.model,
            device.product_key,
            _findings(device.findings) if device.findings else None,
            None if error is None else error.code,
            None if error is None else error.detail,
            self.now,
            self.now,
            None if is_valid else self.now,
        )


def _findings(findings: Sequence[Finding]) -> str:
    return encode_json([{"code": f.code, "field": f.field, "detail": f.detail} for f in findings])

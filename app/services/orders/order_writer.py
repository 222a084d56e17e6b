"""Writes an order's rows as they are planned: each batch when it begins, rows and hashes chunk by chunk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.db import batches, bulk
from app.db.bulk import NewRegistrations
from app.db.engine import encode_json
from app.db.ids import new_row_ids
from app.domain.catalogue import Finding
from app.domain.hold import HoldReason
from app.domain.identity import CheckedDevice, IdentityKind
from app.domain.order import Order
from app.domain.planning import Plan, PlannedRow
from app.kernel.transactions import PartnerTx
from app.services.orders import birth


@dataclass
class OrderStorage:
    """Writes one order's rows in one transaction. The order itself has been stored already."""

    tx: PartnerTx
    order: Order
    holds: frozenset[HoldReason] = field(kw_only=True)
    now: datetime = field(kw_only=True)
    _batch_ids: list[UUID] = field(default_factory=list)
    _stored: int = 0

    async def add(self, plan: Plan, rows: Sequence[PlannedRow]) -> None:
        await self._open_batches(plan)
        ids = new_row_ids(len(rows))
        devices = [row.device for row in rows]
        errors = [None if row.batch is not None else _error(row.device) for row in rows]
        new = NewRegistrations(
            id=ids,
            batch_id=[None if row.batch is None else self._batch_ids[row.batch] for row in rows],
            row_number=range(self._stored + 1, self._stored + len(rows) + 1),
            batch_position=[None if row.batch is None else row.position for row in rows],
            line_ref=[device.line_ref for device in devices],
            group_tag=[row.group_tag for row in rows],
            identity=[device.kind for device in devices],
            serial_number=[device.search_serial for device in devices],
            manufacturer=[device.manufacturer for device in devices],
            model=[device.model for device in devices],
            product_key=[device.product_key for device in devices],
            findings=[
                encode_json([f.as_json() for f in d.findings]) if d.findings else None for d in devices
            ],
            error_code=[None if error is None else error.code for error in errors],
            error_detail=[None if error is None else error.detail for error in errors],
        )
        await bulk.add_registrations(self.tx, self.order, self.now, new)
        self._stored += len(rows)
        hashed = [
            (id, device.hash.data)
            for id, device in zip(ids, devices, strict=True)
            if device.kind is IdentityKind.HARDWARE_HASH and device.hash is not None
        ]
        await bulk.add_hashes(self.tx, hashed)

    async def close(self, plan: Plan) -> None:
        """Writes the number of devices of each batch, after the last row."""
        sizes = [batch.devices for batch in plan.batches]
        await batches.set_sizes(self.tx, self._batch_ids, sizes)

    async def _open_batches(self, plan: Plan) -> None:
        """Stores the batches that the plan has added. A row is not stored before its batch."""
        opened = [(batch.group_tag, batch.devices) for batch in plan.batches[len(self._batch_ids) :]]
        if opened:
            self._batch_ids += await birth.add_batches(
                self.tx, self.order, opened, holds=self.holds, now=self.now
            )


def _error(device: CheckedDevice) -> Finding:
    """The reason why the device is not sent: its first error."""
    return next(finding for finding in device.findings if finding.is_error)

"""The preview of an import: the effect of committing it, counted from its staged rows.

Counted afterwards and not during the reading, so that it agrees with the stored rows. The commit groups the
same rows in the same way.
"""

from typing import Any
from uuid import UUID

from app.db import import_rows
from app.kernel.transactions import PartnerTx

MOST_LISTED = 1000
"""The most customers listed, and the most group tags of all customers together; all are counted."""
FIRST_ROWS = 10
"""The most rows named by number and line for each problem."""


async def summarise(tx: PartnerTx, import_id: UUID) -> dict[str, Any]:
    customers = await import_rows.counts_by_customer(tx, import_id)
    tags = await import_rows.counts_by_tag(tx, import_id)
    problems = await import_rows.counts_by_code(tx, import_id, first=FIRST_ROWS)
    batches: dict[UUID | None, int] = {}
    for row in tags:
        batches[row.customer_id] = batches.get(row.customer_id, 0) + row.batches
    return {
        "rows": sum(row.rows for row in customers),
        "valid": sum(row.valid for row in customers),
        "warning": sum(row.warning for row in customers),
        "invalid": sum(row.invalid for row in customers),
        "changed": sum(row.changed for row in customers),
        "batches": sum(batches.values()),
        "customers_total": len(customers),
        "customers": [
            {
                "customer_id": None if row.customer_id is None else str(row.customer_id),
                "rows": row.rows,
                "valid": row.valid,
                "warning": row.warning,
                "invalid": row.invalid,
                "batches": batches.get(row.customer_id, 0),
                "purchase_order": row.purchase_order,
            }
            for row in customers[:MOST_LISTED]
        ],
        "group_tags_total": len(tags),
        "group_tags": [
            {
                "customer_id": str(row.customer_id),
                "group_tag": row.group_tag,
                "devices": row.devices,
                "batches": row.batches,
            }
            for row in tags[:MOST_LISTED]
        ],
        "problems": [
            {
                "code": row.code,
                "rows": row.rows,
                "first_rows": list(row.first_rows),
                "first_lines": list(row.first_lines),
            }
            for row in problems
        ],
    }

"""Reseals every stored secret with the first secret key, bound to its row.

Needed once for an installation made before values were bound to rows, and after each change of
REGISTRAR_SECRET_KEYS. It may be interrupted at any moment and run again: finished values are skipped. It
holds no lock between steps, and does not overwrite a value that another process has changed meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.db import sealing
from app.db.sealing import SEALED_COLUMNS, SealedColumn, SealedValue
from app.kernel.secrets import Place, SecretError
from app.runtime import Runtime
from app.services.access.idempotency import body_place
from app.services.connections.access import client_secret_place, refresh_token_place
from app.services.webhooks.endpoint_secrets import present_place, previous_place

AT_A_TIME: Final = 200
"""Values in one transaction."""
MAX_NAMED: Final = 100
"""The most rows named whose value does not open; all are counted."""

PLACES: Final[Mapping[tuple[str, str], Callable[..., Place]]] = {
    ("connections", "client_secret"): client_secret_place,
    ("connections", "refresh_token"): refresh_token_place,
    ("webhook_endpoints", "secret"): present_place,
    ("webhook_secrets", "secret"): previous_place,
    ("idempotency_keys", "body"): body_place,
}


@dataclass
class Resealed:
    """The result for one column."""

    table: str
    column: str
    values: int = 0
    current: int = 0
    """Already bound to their row and sealed with the first key."""
    resealed: int = 0
    """Values that were resealed, or in a dry run would be resealed."""
    closed: int = 0
    """Values that do not open with the current keys, or not in this row."""
    closed_rows: list[tuple[str, str]] = field(default_factory=list)
    """Row and reason, for the first of them."""


async def reseal(runtime: Runtime, *, dry_run: bool) -> Sequence[Resealed]:
    """Reseals every value that opens. One that does not is left as it is and reported: somebody has to enter
    it again."""
    if not dry_run:
        async with runtime.system_transaction() as tx:
            await sealing.begin_binding(tx, runtime.now())
        runtime.secrets.binds_to_rows = True
    return [await _reseal_column(runtime, column, dry_run=dry_run) for column in SEALED_COLUMNS]


async def _reseal_column(runtime: Runtime, column: SealedColumn, *, dry_run: bool) -> Resealed:
    found = Resealed(column.table, column.column)
    after: SealedValue | None = None
    while True:
        async with runtime.system_transaction() as tx:
            rows = await sealing.values_after(tx, column, after, AT_A_TIME)
            for row in rows:
                resealed_value = _resealed_value(runtime, column, row, found)
                if resealed_value is None:
                    continue
                if dry_run or await sealing.replace(tx, column, row, resealed_value):
                    found.resealed += 1
        if len(rows) < AT_A_TIME:
            return found
        after = rows[-1]


def _resealed_value(
    runtime: Runtime, column: SealedColumn, row: SealedValue, found: Resealed
) -> bytes | None:
    found.values += 1
    place = PLACES[column.table, column.column](row.partner_id, row.key)
    try:
        plain = runtime.secrets.open(row.sealed, place)
    except SecretError as error:
        found.closed += 1
        if len(found.closed_rows) < MAX_NAMED:
            found.closed_rows.append((str(row.key), str(error)))
        return None
    if runtime.secrets.is_current(row.sealed):
        found.current += 1
        return None
    return runtime.secrets.seal(plain, place)

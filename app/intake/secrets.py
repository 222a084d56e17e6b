"""Product keys and pieces of hashes in a file's cells: found wherever they stand, told, and not kept."""

from collections.abc import Iterator, Sequence

from app.domain.catalogue import Finding
from app.domain.device import Given
from app.domain.masking import HOLDS_KEY_OR_HASH, SHORTEST_SECRET, holds_secret, kept
from app.intake.table import Row


def secrets_of(row: Row, device: Given) -> Iterator[Finding]:
    """What is to be said of cells that are no part of the device; those that are, it answers for itself."""
    for at, cell in enumerate(row.cells):
        if len(cell) >= SHORTEST_SECRET and not _is_of(device, cell) and holds_secret(cell):
            field = next((field for field, value in row.fields.items() if value == cell), "")
            name = next((name for name, value in row.extra.items() if value == cell), None)
            words = HOLDS_KEY_OR_HASH
            if not field:
                words = (
                    f"Column '{name}': {HOLDS_KEY_OR_HASH}" if name else f"Cell {at + 1}: {HOLDS_KEY_OR_HASH}"
                )
            yield Finding("secret_left_out", field, words)


def without_secrets(row: Row) -> list[str]:
    """The row's cells as they may be stored: a hash in its own column only, and no product key."""
    cells = list(row.cells)
    fields: dict[str, str] | None = None
    for at, cell in enumerate(cells):
        if len(cell) >= SHORTEST_SECRET:
            fields = fields or row.fields
            own = next((name for name in ("hardware_hash", "product_key") if fields.get(name) == cell), None)
            cells[at] = kept(cell, own)
    return cells


def kept_of(cells: Sequence[str], fields: Sequence[str | None] = ()) -> list[str]:
    """Cells as they may be given back; `fields` is what their columns are read as, one by one."""
    known = [*fields, *[None] * (len(cells) - len(fields))]
    return [kept(cell, field) for cell, field in zip(cells, known, strict=False)]


def _is_of(device: Given, cell: str) -> bool:
    return cell in (
        device.hardware_hash,
        device.model,
        device.manufacturer,
        device.serial_number,
        device.product_key,
        device.group_tag,
        device.line_ref,
    )

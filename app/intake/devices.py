"""Makes the device of a row and checks it, and keeps secrets in a row's cells from being stored.

Every reader of files (the command line, an import, a dry run) goes through here, so that the same row is the
same device everywhere. A row that could not be split reliably is never valid, however good its values look.
Product keys and pieces of hashes are found in any cell, reported, and not kept.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from app.domain.catalogue import Finding
from app.domain.device import Given
from app.domain.identity import CheckedDevice, Device, Rules, check
from app.domain.masking import HOLDS_KEY_OR_HASH, SHORTEST_SECRET, holds_secret, kept
from app.intake.table import Row

SENT: Final = (
    "serial_number",
    "manufacturer",
    "model",
    "product_key",
    "hardware_hash",
    "group_tag",
    "line_ref",
)
"""The fields of a row that are part of a device."""


def device_of(row: Row, default_group_tag: str | None = None) -> Device:
    """The device as written. Without its own reference, the row's number identifies it."""
    get = row.fields.get
    return Device(
        serial_number=get("serial_number"),
        manufacturer=get("manufacturer"),
        model=get("model"),
        product_key=get("product_key"),
        hardware_hash=get("hardware_hash"),
        group_tag=get("group_tag") or default_group_tag,
        line_ref=get("line_ref") or str(row.number),
    )


def check_row(row: Row, rules: Rules, now: datetime, default_group_tag: str | None = None) -> CheckedDevice:
    """`identity.check` of the row's device. Also invalid if the row itself has an error."""
    device = device_of(row, default_group_tag)
    checked = check(device, rules, now)
    if checked.group_tag is None and default_group_tag is not None and checked.is_valid:
        checked = checked._replace(group_tag=default_group_tag)  # the row's own is a placeholder
    if checked.line_ref is None:
        checked = checked._replace(line_ref=str(row.number))  # the row's own is not kept
    if left_out := tuple(secrets_of(row, device)):
        checked = checked._replace(findings=(*checked.findings, *left_out))
    if checked.is_valid and not row.is_sound:
        return checked._replace(kind=None, keys=())
    return checked


# --- secrets in cells ---------------------------------------------------------------------------


def secrets_of(row: Row, device: Given) -> Iterator[Finding]:
    """Findings about cells outside the device. `identity.check` covers those of the device."""
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
    """The row's cells for storage: hashes only in their own column, and no product keys."""
    cells = list(row.cells)
    fields: dict[str, str] | None = None
    for at, cell in enumerate(cells):
        if len(cell) >= SHORTEST_SECRET:
            fields = fields or row.fields
            own = next((name for name in ("hardware_hash", "product_key") if fields.get(name) == cell), None)
            cells[at] = kept(cell, own)
    return cells


def kept_of(cells: Sequence[str], fields: Sequence[str | None] = ()) -> list[str]:
    """Cells that may be returned. `fields` has the field of each cell's column."""
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

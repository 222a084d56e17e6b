"""From a row of a file to the device that the domain judges: the one place where the two meet.

Whatever reads a file (the command line, an import, a dry run) goes through here, so that the same
row is the same device everywhere. A row that could not be taken apart reliably is never valid,
however good its values look.
"""

from datetime import datetime
from typing import Final

from app.domain.identity import CheckedDevice, Device, Rules, check
from app.intake.secrets import secrets_of
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
    """The device as written. Without a reference of its own it is known by the row's number."""
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
    """`identity.check` of the row's device; invalid as well when the row itself is in error."""
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

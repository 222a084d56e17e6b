"""From a caller's devices to rows that can be stored: checks, group tags, batches. Pure work, no I/O.

A dry run and the real one both end here, so they can not disagree. It is run in a thread: 10,000
devices with hashes are about a quarter of a second of decoding and comparing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app.domain import batch
from app.domain.batch import Plan
from app.domain.catalogue import Finding
from app.domain.identity import CheckedDevice, Device, IdentityKind, Rules, check, mark_duplicates


@dataclass(frozen=True, slots=True)
class PlannedRow:
    device: CheckedDevice
    group_tag: str
    hash_data: bytes | None
    """Without its zero fill; only for valid rows that are sent by hash."""


@dataclass(frozen=True, slots=True)
class PlannedOrder:
    rows: Sequence[PlannedRow]
    batches: Sequence[Plan]

    @property
    def valid(self) -> int:
        return sum(len(plan.rows) for plan in self.batches)

    @property
    def invalid(self) -> int:
        return len(self.rows) - self.valid


def plan_order(
    devices: Sequence[Device],
    *,
    rules: Rules,
    group_tag: str,
    known_tags: Mapping[str, str],
    max_devices: int,
    now: datetime,
) -> PlannedOrder:
    """`group_tag` is for rows that name none; `known_tags` are the customer's, by lower case."""
    checked = mark_duplicates([check(device, rules, now) for device in devices])
    spellings = dict(known_tags)
    rows = [_plan_row(device, group_tag, spellings) for device in checked]
    batches = batch.plan([row.group_tag if row.device.is_valid else None for row in rows], max_devices)
    return PlannedOrder(rows, batches)


def _plan_row(device: CheckedDevice, default_tag: str, spellings: dict[str, str]) -> PlannedRow:
    tag = device.group_tag or default_tag
    if device.is_valid:
        spelling = spellings.setdefault(tag.lower(), tag)
        if spelling != tag:
            finding = Finding(
                "group_tag_case_conflict",
                "group_tag",
                f"Partner Center can not tell {tag!r} from {spelling!r}, which this customer has already.",
            )
            device = replace(device, kind=None, findings=(*device.findings, finding))
    if device.kind is not IdentityKind.HARDWARE_HASH or device.hash is None:
        return PlannedRow(device, tag, None)
    return PlannedRow(device, tag, device.hash.data)

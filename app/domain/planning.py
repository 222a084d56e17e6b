"""The plan of an order: checks a caller's devices and assigns group tags and batches. Pure, no I/O.

Dry runs and real orders both use it, so they cannot disagree. Rows are added in chunks, so that one chunk can
be stored while the next is checked: for an order of 10,000 hashes each takes about a quarter of a second.
`check` is the slow part and belongs in a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from app.domain.batch import Cutting
from app.domain.catalogue import Finding
from app.domain.duplicates import Compared
from app.domain.group_tag import Spellings, tag_of
from app.domain.identity import CheckedDevice, Given, Rules, check


class PlannedRow(NamedTuple):
    device: CheckedDevice
    group_tag: str
    batch: int | None
    """Index into the plan's batches; None for an invalid row."""
    position: int
    """The position within the batch."""


class KeptRow(NamedTuple):
    """What the plan keeps of a row that it has returned. Whole rows of 10,000 hashes would take 10 MB."""

    line_ref: str | None
    group_tag: str
    is_valid: bool
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class PlannedBatch:
    group_tag: str
    devices: int = 0


@dataclass(frozen=True, slots=True)
class OrderRules:
    """The rules for checking an order's rows and dividing them into batches."""

    of_rows: Rules
    max_devices: int
    """The most devices in one batch."""
    group_tag: str = ""
    """The tag for rows that name none; empty while that is not known."""
    one_spelling: bool = True
    """Whether the platform takes one spelling of each group tag."""


class Plan:
    """Assigns rows to batches as they are added; complete after the last row.

    If `late` is not empty then, some rows were wrongly planned as valid: plan the same rows a second time and
    pass `late` to the new plan.
    """

    def __init__(
        self,
        order: OrderRules,
        known_tags: Mapping[str, str],
        now: datetime,
        late: Mapping[int, Finding] | None = None,
    ) -> None:
        """`known_tags`: the customer's tags at Microsoft, by their key. `late`: that of an earlier plan."""
        self.batches: list[PlannedBatch] = []
        self.rows: list[KeptRow] = []
        self.valid = 0
        self.group_tag = order.group_tag
        self._order = order
        self._now = now
        self._compared = Compared(late, lambda row: self.rows[row - 1].line_ref)
        self._spellings = Spellings(known_tags, one_each=order.one_spelling)
        self._cutting = Cutting(order.max_devices)
        self._filling: dict[str, int] = {}
        """The index of the batch that is being filled, by group tag."""

    @property
    def invalid(self) -> int:
        return len(self.rows) - self.valid

    @property
    def late(self) -> dict[int, Finding]:
        """Rows that a later row showed to be duplicates of an earlier one, each with its finding. Rare."""
        return self._compared.late

    def check(self, devices: Sequence[Given]) -> list[CheckedDevice]:
        rules, now = self._order.of_rows, self._now
        return [check(device, rules, now) for device in devices]

    def add(self, checked: Sequence[CheckedDevice], said: Sequence[Sequence[Finding]]) -> list[PlannedRow]:
        """Plans the next rows, in order, comparing them with those before.

        `said`: for each row, the findings from the partner's earlier registrations.
        """
        added = []
        for device, findings in zip(checked, said, strict=True):
            row = self._place(device, findings)
            added.append(row)
            kept = row.device
            self.rows.append(KeptRow(kept.line_ref, row.group_tag, row.batch is not None, kept.findings))
        return added

    def _place(self, device: CheckedDevice, said: Sequence[Finding]) -> PlannedRow:
        tag = tag_of(device.group_tag, self._order.group_tag)
        device = self._compared.add(device, tag)
        if said and device.is_valid:
            device = device.noted(*said)
        if device.is_valid and (conflict := self._spellings.conflict(tag)) is not None:
            device = device.noted(conflict)
        if not device.is_valid:
            return PlannedRow(device, tag, None, 0)
        _, position = self._cutting.place(tag)
        if position == 0:
            self._filling[tag] = len(self.batches)
            self.batches.append(PlannedBatch(tag))
        index = self._filling[tag]
        self.batches[index].devices += 1
        self.valid += 1
        return PlannedRow(device, tag, index, position)

"""The plan of an order: checks, group tags and batches for a caller's devices. Pure, no I/O.

A dry run and the real one both go through here, so they cannot disagree. Rows go through in chunks,
because storing what has been checked can go on while the next chunk is checked: for an order of 10,000
hashes each of the two takes about a quarter of a second. `check` is the heavy part and is for a thread.
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
    """In the batch."""


class KeptRow(NamedTuple):
    """What the plan remembers of a row that has been handed out: of 10,000 hashes it would be 10 MB."""

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
    """What an order's rows are judged by, and how they are cut."""

    of_rows: Rules
    max_devices: int
    """Devices of one batch at most."""
    group_tag: str = ""
    """For rows that name none; empty while that is not known."""


class Plan:
    """Grows with `add`; whole when all rows have gone through.

    If there are `late` ones then, it has judged these too mildly: a second plan of the same rows, which is
    told of them, is right.
    """

    def __init__(
        self,
        order: OrderRules,
        known_tags: Mapping[str, str],
        now: datetime,
        late: Mapping[int, Finding] | None = None,
    ) -> None:
        """`known_tags`: the customer's tags at Microsoft, by their key."""
        self.batches: list[PlannedBatch] = []
        self.rows: list[KeptRow] = []
        self.valid = 0
        self.group_tag = order.group_tag
        self._order = order
        self._now = now
        self._compared = Compared(late, lambda row: self.rows[row - 1].line_ref)
        self._spellings = Spellings(known_tags)
        self._cutting = Cutting(order.max_devices)
        self._filling: dict[str, int] = {}
        """The index of the batch that is being filled, by group tag."""

    @property
    def invalid(self) -> int:
        return len(self.rows) - self.valid

    @property
    def late(self) -> dict[int, Finding]:
        """Rows that turned out later to be an earlier one's device, with what there is to say. Rare."""
        return self._compared.late

    def check(self, devices: Sequence[Given]) -> list[CheckedDevice]:
        rules, now = self._order.of_rows, self._now
        return [check(device, rules, now) for device in devices]

    def add(self, checked: Sequence[CheckedDevice], said: Sequence[Sequence[Finding]]) -> list[PlannedRow]:
        """The next rows, in order, with what the rows before them say about them.

        `said`: what the partner's own books have to say about each.
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

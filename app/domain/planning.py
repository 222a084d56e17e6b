"""The plan of an order: checks, group tags and batches for a caller's devices. Pure, no I/O.

A dry run and the real one both go through here, so they cannot disagree. Rows go through in chunks,
because storing what has been checked can go on while the next chunk is checked: for an order of 10,000
hashes each of the two takes about a quarter of a second. `check` is the heavy part and is for a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from app.domain.batch import Cutting
from app.domain.catalogue import Finding
from app.domain.duplicates import Seen, as_duplicate, mark_duplicates
from app.domain.group_tag import Spellings
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
class Terms:
    """What an order's rows are judged by."""

    rules: Rules
    group_tag: str
    """For rows that name none."""
    known_tags: Mapping[str, str]
    """The customer's tags at Microsoft, by their key."""
    max_devices: int
    now: datetime


@dataclass
class Plan:
    """Grows with `add`; whole when all rows have gone through."""

    terms: Terms
    whole: bool = False
    """All rows come in one piece, so that each is known before the first is placed."""
    batches: list[PlannedBatch] = field(default_factory=list)
    rows: list[KeptRow] = field(default_factory=list)
    valid: int = 0
    _seen: Seen = field(default_factory=Seen)
    _filling: dict[str, int] = field(default_factory=dict)
    """The index of the batch that is being filled, by group tag."""
    _spellings: Spellings = field(init=False)
    _cutting: Cutting = field(init=False)

    def __post_init__(self) -> None:
        self._spellings = Spellings(self.terms.known_tags)
        self._cutting = Cutting(self.terms.max_devices)

    @property
    def invalid(self) -> int:
        return len(self.rows) - self.valid

    @property
    def is_spoilt(self) -> bool:
        """A row that counted as valid turned out later to be the same device as one before it, by way of
        a third that knows both. Rare; all rows must then be planned again."""
        return bool(self._seen.united)

    def check(self, devices: Sequence[Given]) -> list[CheckedDevice]:
        rules, now = self.terms.rules, self.terms.now
        checked = [check(device, rules, now) for device in devices]
        return mark_duplicates(checked, self.terms.group_tag) if self.whole else checked

    def add(self, checked: Sequence[CheckedDevice], said: Sequence[Sequence[Finding]]) -> list[PlannedRow]:
        """The next rows, in order, with what the rows before them say about them.

        `said`: what the partner's own books have to say about each; warnings only.
        """
        added = []
        for device, findings in zip(checked, said, strict=True):
            if findings:
                device = device._replace(findings=(*device.findings, *findings))
            row = self._place(self._compare(device))
            added.append(row)
            kept = row.device
            self.rows.append(KeptRow(kept.line_ref, row.group_tag, row.batch is not None, kept.findings))
        return added

    def _compare(self, device: CheckedDevice) -> CheckedDevice:
        first = self._seen.add(device.keys)
        if first is None:
            return device
        earlier = self.rows[first - 1]
        tags = (earlier.group_tag, device.group_tag or self.terms.group_tag)
        return as_duplicate(device, first, tags, earlier.line_ref)

    def _place(self, device: CheckedDevice) -> PlannedRow:
        tag = device.group_tag or self.terms.group_tag
        if not device.is_valid:
            return PlannedRow(device, tag, None, 0)
        if (conflict := self._spellings.conflict(tag)) is not None:
            device = device._replace(kind=None, findings=(*device.findings, conflict))
            return PlannedRow(device, tag, None, 0)
        _, position = self._cutting.place(tag)
        if position == 0:
            self._filling[tag] = len(self.batches)
            self.batches.append(PlannedBatch(tag))
        index = self._filling[tag]
        self.batches[index].devices += 1
        self.valid += 1
        return PlannedRow(device, tag, index, position)

"""A whole file judged row by row: what an order of it would be, without an order.

The judgement is the service's own: the same check, the same duplicates, the same cutting by group
tag. It is made while the file is read and keeps a few bytes per row, so that a million rows can be
judged on a laptop. What only the service knows (a customer's default tag, tags that exist at
Microsoft) is left open and said so by who asks.
"""

from array import array
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from app.domain.catalogue import Finding
from app.domain.duplicates import Seen
from app.domain.identity import CheckedDevice, IdentityKind, Rules, as_duplicate
from app.domain.order import MAX_DEVICES
from app.intake.devices import check_row
from app.intake.problems import Problem, problems_of
from app.intake.table import Row


class Reviewed(NamedTuple):
    row: Row
    device: CheckedDevice
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the file does not say. Without a default tag, rows without one are counted under None."""

    rules: Rules
    max_devices: int
    """Devices in one batch."""
    group_tag: str | None = None


class Review:
    """Counts while rows go through `judge`; complete when they all have."""

    def __init__(self, terms: Terms, now: datetime) -> None:
        self.rows = 0
        self.orders = 0
        self.valid: Counter[IdentityKind] = Counter()
        self.with_warnings = 0
        """Valid rows with something to be said about them."""
        self.tags: Counter[str | None] = Counter()
        """Valid devices by group tag."""
        self.batches: Counter[str | None] = Counter()
        self._terms = terms
        self._now = now
        self._seen = Seen()
        self._tag_ids: dict[str | None, int] = {}
        self._tags: list[str | None] = []
        self._row_tags = array("I", [0])
        self._spellings: dict[str, str] = {}
        self._part: Counter[str | None] = Counter()

    @property
    def invalid(self) -> int:
        return self.rows - self.valid.total()

    @property
    def late(self) -> list[tuple[int, int]]:
        """Rows judged valid that later turned out to be the same device as an earlier one, and that one."""
        return self._seen.united

    def judge(self, row: Row) -> Reviewed:
        if self.rows % MAX_DEVICES == 0:
            # A longer file becomes several orders, and each of them its own batches.
            self._close_order()
            self.orders += 1
        self.rows += 1
        checked = check_row(row, self._terms.rules, self._now)
        tag = checked.group_tag or self._terms.group_tag
        checked = self._compare(checked, tag)
        if checked.kind is not None:
            self.valid[checked.kind] += 1
            self.with_warnings += bool(checked.findings or row.notices)
            self.tags[tag] += 1
            self._part[tag] += 1
        problems = problems_of(row, checked) if checked.findings or row.notices else ()
        return Reviewed(row, checked, problems)

    def close(self) -> None:
        """After the last row."""
        self._close_order()

    def _compare(self, checked: CheckedDevice, tag: str | None) -> CheckedDevice:
        """The device against those before it."""
        first = self._seen.add(checked.keys)
        number = self._tag_ids.setdefault(tag, len(self._tags))
        if number == len(self._tags):
            self._tags.append(tag)
        self._row_tags.append(number)
        if first is not None:
            return as_duplicate(checked, first, (self._tags[self._row_tags[first]], tag))
        if checked.is_valid and tag is not None:
            spelling = self._spellings.setdefault(tag.lower(), tag)
            if spelling != tag:
                words = f"Partner Center can not tell {tag!r} from {spelling!r}, which an earlier row has."
                finding = Finding("group_tag_case_conflict", "group_tag", words)
                return replace(checked, kind=None, findings=(*checked.findings, finding))
        return checked

    def _close_order(self) -> None:
        for tag, count in self._part.items():
            self.batches[tag] += -(-count // self._terms.max_devices)
        self._part.clear()

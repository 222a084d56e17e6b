"""Judges a whole file row by row: what an order of it would be, without creating one.

It checks rows, finds duplicates and cuts batches as the service does. It works while the file is read and
keeps a few bytes per row, so that a laptop can judge a million rows. What only the service knows (a
customer's default tag, tags that exist at Microsoft) is left open, and the caller says so.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from app.domain.catalogue import Finding
from app.domain.duplicates import Compared
from app.domain.group_tag import tag_key
from app.domain.identity import CheckedDevice, IdentityKind, Rules
from app.domain.masking import quoted
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
    """Counts while rows go through `judge`; complete when they all have.

    If there are `late` ones then, it has judged these too mildly: a second review of the same rows, which is
    told of them, judges all as an import does that marks them at its end.
    """

    def __init__(self, terms: Terms, now: datetime, late: Mapping[int, Finding] | None = None) -> None:
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
        self._late = late or {}
        self._compared = Compared()
        self._spellings: dict[str, str] = {}
        self._part: Counter[str | None] = Counter()

    @property
    def invalid(self) -> int:
        return self.rows - self.valid.total()

    @property
    def late(self) -> dict[int, Finding]:
        """Rows that turned out later to be the same device as an earlier one, with what there is to say."""
        return dict(self._compared.late)

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
        """The device against those before it, and those behind it as far as known."""
        checked = self._compared.add(checked, tag)
        if checked.is_valid and tag is not None:
            spelling = self._spellings.setdefault(tag_key(tag), tag)
            if spelling != tag:
                words = f"The platform cannot tell {quoted(tag)} from {quoted(spelling)} of an earlier row."
                finding = Finding("group_tag_case_conflict", "group_tag", words)
                return checked._replace(kind=None, findings=(*checked.findings, finding))
        if checked.is_valid and self.rows in self._late:
            return checked._replace(kind=None, findings=(*checked.findings, self._late[self.rows]))
        return checked

    def _close_order(self) -> None:
        for tag, count in self._part.items():
            self.batches[tag] += -(-count // self._terms.max_devices)
        self._part.clear()

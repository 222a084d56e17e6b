"""Checks a whole file row by row, without creating an order.

It checks rows, finds duplicates and cuts batches like the service. It works while the file is read and keeps
a few bytes per row, so that a laptop can check a million rows. It leaves open what only the service knows (a
customer's default tag, tags that exist at Microsoft), and the caller says so.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from app.domain.batch import Cutting
from app.domain.catalogue import Finding
from app.domain.duplicates import Compared
from app.domain.group_tag import Spellings, tag_of
from app.domain.identity import CheckedDevice, IdentityKind
from app.domain.order import MAX_DEVICES
from app.domain.planning import OrderRules
from app.intake.devices import check_row
from app.intake.problems import Problem, problems_of
from app.intake.table import Row


class Reviewed(NamedTuple):
    row: Row
    device: CheckedDevice
    problems: tuple[Problem, ...]


class Review:
    """The result, complete when all rows have gone through `judge`.

    If `late` is not empty then, these rows must be judged again: a second review of the same rows, which gets
    `late`, judges all rows as an import does.
    """

    def __init__(self, order: OrderRules, now: datetime, late: Mapping[int, Finding] | None = None) -> None:
        """Without a default tag, rows without one are counted under None."""
        self.rows = 0
        self.orders = 0
        self.valid: Counter[IdentityKind] = Counter()
        self.with_warnings = 0
        """Valid rows with warnings."""
        self.tags: Counter[str | None] = Counter()
        """Valid devices by group tag."""
        self.batches: Counter[str | None] = Counter()
        self._order = order
        self._now = now
        self._compared = Compared(late)
        self._spellings = Spellings(one_each=order.one_spelling)
        self._cutting = Cutting(order.max_devices)

    @property
    def invalid(self) -> int:
        return self.rows - self.valid.total()

    @property
    def late(self) -> dict[int, Finding]:
        """Rows that turned out to be the same device as an earlier one, with their findings."""
        return self._compared.late

    def judge(self, row: Row) -> Reviewed:
        if self.rows % MAX_DEVICES == 0:
            # A longer file becomes several orders, each with its own batches.
            self._cutting = Cutting(self._order.max_devices)
            self.orders += 1
        self.rows += 1
        checked = check_row(row, self._order.of_rows, self._now)
        tag = tag_of(checked.group_tag, self._order.group_tag) or None
        checked = self._compared.add(checked, tag)
        if checked.is_valid and tag is not None and (conflict := self._spellings.conflict(tag)) is not None:
            checked = checked.noted(conflict)
        if checked.kind is not None:
            self.valid[checked.kind] += 1
            self.with_warnings += bool(checked.findings or row.notices)
            self.tags[tag] += 1
            _, position = self._cutting.place(tag)
            self.batches[tag] += position == 0
        problems = problems_of(row, checked) if checked.findings or row.notices else ()
        return Reviewed(row, checked, problems)

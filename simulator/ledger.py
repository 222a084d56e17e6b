"""The ledger of calls: each call in order, and what became of its answer.

Tests compare the product's own records with what really reached the service.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

KEPT = 500_000
"""The most calls that are kept. Older ones are only in the totals."""


@dataclass(slots=True)
class Entry:
    """One call. `outcome` is open, answered, client_gone, dropped_before or dropped_after."""

    number: int
    at: float
    operation: str
    method: str
    path: str
    customer: str | None
    request_id: str
    correlation_id: str
    status: int | None = None
    outcome: str = "open"
    processed: bool = False
    replayed: bool = False
    device_count: int = 0
    fault: str | None = None
    ended: float | None = None

    def view(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Ledger:
    """The calls, oldest first."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=KEPT)
        self.received = 0
        self.by_operation: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.by_outcome: Counter[str] = Counter()
        self.replayed = 0
        self.rows_accepted = 0

    def open(self, at: float, operation: str, method: str, path: str, customer: str | None) -> Entry:
        self.received += 1
        self.by_operation[operation] += 1
        entry = Entry(self.received, at, operation, method, path, customer, "", "")
        self.entries.append(entry)
        return entry

    def close(self, entry: Entry, outcome: str, status: int | None, at: float) -> None:
        entry.outcome, entry.status, entry.ended = outcome, status, at
        self.by_outcome[outcome] += 1
        if status is not None:
            self.by_status[str(status)] += 1
        self.replayed += entry.replayed

    def after(self, number: int, limit: int) -> list[Entry]:
        """Entries with a higher number, at most `limit`."""
        found: list[Entry] = []
        for entry in self.entries:
            if entry.number > number:
                if len(found) == limit:
                    break
                found.append(entry)
        return found

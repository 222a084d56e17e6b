"""The simplest way to cut an order into batches, which the tests compare the real ways with.

The service cuts rows as they stream, in chunks (`domain.planning`) or in SQL (imports, retries).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """A planned batch: its group tag and the indices of its rows in the order."""

    group_tag: str
    rows: tuple[int, ...]


def cut(group_tags: Sequence[str | None], limit: int) -> list[Cut]:
    """Cuts by group tag, then at `limit` devices, in the rows' order. None marks a row that is not sent."""
    by_tag: dict[str, list[int]] = defaultdict(list)
    for index, tag in enumerate(group_tags):
        if tag is not None:
            by_tag[tag].append(index)
    return [
        Cut(tag, tuple(rows[start : start + limit]))
        for tag, rows in by_tag.items()
        for start in range(0, len(rows), limit)
    ]

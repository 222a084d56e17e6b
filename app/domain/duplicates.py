"""Which rows are one device, over a million rows, in a few bytes each.

Keys are kept as 64-bit digests in a table of plain machine words, because a dictionary of the keys
themselves would need a gigabyte. The digest is Python's own keyed hash of a text: nobody can make
two of them collide on purpose, and for four million keys the chance that any two do is one in two
million. Stands alone because a file is checked row by row by several callers, none of whom holds
the rows.
"""

from array import array
from collections.abc import Iterable
from typing import Final

_SMALLEST: Final = 1 << 12
_FULLEST: Final = 0.75
_DIGEST: Final = (1 << 64) - 1


class Seen:
    """Rows by their keys. Rows are counted from 1, in the order in which they are added.

    Rows are one device when they share a key, or when a third one shares a key with each.
    """

    def __init__(self) -> None:
        self.united: list[tuple[int, int]] = []
        """Rows that counted as different devices until a later row showed that they are one: the later
        of the two and the first. A rarity, as it takes three rows that know each other in part."""
        self._slots = _SMALLEST
        self._digests = array("Q", [0]) * self._slots
        self._owners = array("I", [0]) * self._slots
        self._used = 0
        self._first = array("I", [0])

    def add(self, keys: Iterable[str]) -> int | None:
        """The number of the first row that is the same device, None when there is none.

        A row without keys (an invalid one) is counted and is nobody's duplicate.
        """
        row = len(self._first)
        self._first.append(row)
        for key in keys:
            owner = self._claim(hash(key) & _DIGEST or 1, row)
            if owner != row:
                self._unite(owner, row)
        first = self._root(row)
        return None if first == row else first

    def first_of(self, row: int) -> int:
        """The first row, as far as known by now, that is the same device as this one."""
        return self._root(row)

    def _claim(self, digest: int, row: int) -> int:
        """The row that had this key first: the given one if nobody had it."""
        digests, mask = self._digests, self._slots - 1
        at = digest & mask
        while held := digests[at]:
            if held == digest:
                return self._owners[at]
            at = (at + 1) & mask
        digests[at], self._owners[at] = digest, row
        self._used += 1
        if self._used > self._slots * _FULLEST:
            self._grow()
        return row

    def _grow(self) -> None:
        old, owners = self._digests, self._owners
        self._slots *= 2
        digests = self._digests = array("Q", [0]) * self._slots
        self._owners = array("I", [0]) * self._slots
        mask = self._slots - 1
        for place, digest in enumerate(old):
            if digest:
                at = digest & mask
                while digests[at]:
                    at = (at + 1) & mask
                digests[at], self._owners[at] = digest, owners[place]

    def _root(self, row: int) -> int:
        first = self._first
        while first[row] != row:
            first[row] = row = first[first[row]]
        return row

    def _unite(self, one: int, other: int) -> None:
        a, b = self._root(one), self._root(other)
        if a == b:
            return
        earlier, later = min(a, b), max(a, b)
        self._first[later] = earlier
        if later < len(self._first) - 1:
            self.united.append((later, earlier))

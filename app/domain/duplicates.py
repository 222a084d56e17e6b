"""Detects rows that are the same device, among up to a million rows, with a few bytes per row.

Keys are kept as 64-bit digests in an array of machine words, because a dictionary of the keys would need a
gigabyte. The digest is Python's own randomised hash of the text, so nobody can make two keys collide on
purpose. Among four million keys, the chance of any collision is one in two million.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from app.domain.catalogue import Finding
from app.domain.identity import CheckedDevice
from app.domain.masking import quoted

_FEW: Final = 1 << 16
"""Up to this many keys a dictionary is small enough, and several times faster. Orders as JSON have fewer."""
_SMALLEST: Final = 1 << 17
_FULLEST: Final = 0.75
_DIGEST: Final = (1 << 64) - 1


class Seen:
    """Rows by their keys. Rows are numbered from 1, in the order in which they are added.

    Two rows are the same device if they share a key, or if a third row shares a key with each.
    """

    def __init__(self) -> None:
        self.united: list[tuple[int, int]] = []
        """Pairs of rows that counted as different devices until a later row connected them: the later and the
        first of the two. Rare, because it takes three rows that share keys in part."""
        self._few: dict[int, int] | None = {}
        self._slots = self._used = 0
        self._digests, self._owners = array("Q"), array("I")
        self._first = array("I", [0])

    def add(self, keys: Iterable[str]) -> int | None:
        """The number of the first row that is the same device; None if there is none.

        A row without keys (an invalid one) is counted, and is never a duplicate.
        """
        row = len(self._first)
        self._first.append(row)
        # Both return the row that first used the key: the given row if it is new.
        claim = self._few.setdefault if self._few is not None else self._claim
        for key in keys:
            owner = claim(hash(key) & _DIGEST or 1, row)
            if owner != row:
                self._unite(owner, row)
        if self._few is not None and len(self._few) > _FEW:
            self._spread(self._few)
        first = self._root(row)
        return None if first == row else first

    def first_of(self, row: int) -> int:
        """The first of the rows so far that is the same device as this one."""
        return self._root(row)

    def _claim(self, digest: int, row: int) -> int:
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

    def _spread(self, few: dict[int, int]) -> None:
        """Moves the keys from the dictionary into the table."""
        self._few = None
        self._slots = _SMALLEST
        self._digests = array("Q", [0]) * self._slots
        self._owners = array("I", [0]) * self._slots
        for digest, row in few.items():
            self._claim(digest, row)

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


class Compared:
    """Compares devices one by one with those before them, without holding all of them.

    A device may turn out to be a duplicate after it was returned as valid: see `late`.
    """

    def __init__(
        self,
        late: Mapping[int, Finding] | None = None,
        line_ref_of: Callable[[int], str | None] = lambda row: None,
    ) -> None:
        """`late`: from an earlier pass over the same devices. `line_ref_of`: returns a row's line_ref."""
        self._seen = Seen()
        self._known_late = late or {}
        self._line_ref_of = line_ref_of
        self._numbers: dict[str | None, int] = {}
        self._names: list[str | None] = []
        self._tags = array("I", [0])

    def add(self, device: CheckedDevice, group_tag: str | None) -> CheckedDevice:
        """Adds the next device; returns it, marked invalid if an earlier one is the same.

        `group_tag`: its own or the default. While the default is not known (None), tags are not compared.
        """
        first = self._seen.add(device.keys)
        row = len(self._tags)
        number = self._numbers.setdefault(group_tag, len(self._names))
        if number == len(self._names):
            self._names.append(group_tag)
        self._tags.append(number)
        if first is not None:
            return device.noted(self._finding(first, row))
        return device.noted(self._known_late[row]) if row in self._known_late else device

    @property
    def late(self) -> dict[int, Finding]:
        """Rows that a later row showed to be duplicates of an earlier one. Complete after the last device."""
        return {
            row: self._finding(self._seen.first_of(row), row)
            for row, _ in self._seen.united
            if row not in self._known_late
        }

    def _finding(self, first: int, row: int) -> Finding:
        line_ref = self._line_ref_of(first)
        detail = f"The same device as row {first:,}"
        detail += f" (line_ref {quoted(line_ref)})" if line_ref else ""
        theirs, ours = self._names[self._tags[first]], self._names[self._tags[row]]
        if theirs and ours and theirs != ours:
            detail += f", which has the group tag {quoted(theirs)}; this one has {quoted(ours)}."
            return Finding("duplicate_with_other_tag", "group_tag", detail)
        return Finding("duplicate_in_order", "", detail + ".")

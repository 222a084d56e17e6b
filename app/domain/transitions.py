"""Tables of transitions: from which state to which a row may move. Each noun has its own table.

PostgreSQL refuses every other move (migration 0019), also where SQL makes it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

State = TypeVar("State", bound=StrEnum)


class IllegalMove(Exception):
    """A move that the table of transitions does not have. A defect, and no caller's fault."""

    def __init__(self, table: str, old: str, new: str) -> None:
        super().__init__(f"{table}: a row cannot move from {old} to {new}")


def require(table: str, transitions: Mapping[State, frozenset[State]], old: State, new: State) -> None:
    """Raises IllegalMove. To stay is no move."""
    if new is not old and new not in transitions[old]:
        raise IllegalMove(table, old, new)


def sources_of(transitions: Mapping[State, frozenset[State]], new: State) -> frozenset[State]:
    """The states from which `new` may be reached: the guard of an UPDATE of a state."""
    return frozenset(old for old, targets in transitions.items() if new in targets)

"""Tables of transitions: the legal moves between a row's states. Each noun has its own table.

PostgreSQL triggers refuse every other move (migration 0019), also in SQL.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

State = TypeVar("State", bound=StrEnum)


class IllegalMove(Exception):
    """A move that is not in the table of transitions. A bug in Registrar, never the caller's fault."""

    def __init__(self, table: str, old: str, new: str) -> None:
        super().__init__(f"{table}: a row cannot move from {old} to {new}")


def require(table: str, transitions: Mapping[State, frozenset[State]], old: State, new: State) -> None:
    """Raises IllegalMove if the table does not have the move. Staying in a state is no move."""
    if new is not old and new not in transitions[old]:
        raise IllegalMove(table, old, new)


def sources_of(transitions: Mapping[State, frozenset[State]], new: State) -> frozenset[State]:
    """The states from which `new` may be reached, for the guard of an UPDATE."""
    return frozenset(old for old, targets in transitions.items() if new in targets)

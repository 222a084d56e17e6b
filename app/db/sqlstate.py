"""PostgreSQL's code of what went wrong, and the codes that several places tell apart."""

from typing import Final

LOCK_NOT_AVAILABLE: Final = "55P03"
"""A lock was not to be had at once, or within `lock_timeout`."""
DEADLOCK_DETECTED: Final = "40P01"
IS_REMOVED: Final = "RG001"
"""Our own, raised by triggers: a new row for what is being removed (migration 0013)."""
ILLEGAL_MOVE: Final = "RG002"
"""Our own, raised by triggers: a move that a table of transitions does not have (migration 0019)."""


def sqlstate_of(error: BaseException) -> str | None:
    """None where the error is none of PostgreSQL's, such as a connection that has gone."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)

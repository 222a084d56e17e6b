"""PostgreSQL's error codes (SQLSTATE): reading one from an exception, and those used in several places."""

from typing import Final

LOCK_NOT_AVAILABLE: Final = "55P03"
"""A lock was not free at once, or within `lock_timeout`."""
DEADLOCK_DETECTED: Final = "40P01"
IS_REMOVED: Final = "RG001"
"""Our own, raised by triggers: a new row for something that is being removed (migration 0013)."""
ILLEGAL_MOVE: Final = "RG002"
"""Our own, raised by triggers: a move that is not in a table of transitions (migration 0019)."""


def sqlstate_of(error: BaseException) -> str | None:
    """The error's SQLSTATE; None if it did not come from PostgreSQL, such as a closed connection."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)

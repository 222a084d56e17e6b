"""PostgreSQL's code of what went wrong, and the codes that several places tell apart."""

from typing import Final

LOCK_NOT_AVAILABLE: Final = "55P03"
"""A lock was not to be had at once, or within `lock_timeout`."""
DEADLOCK_DETECTED: Final = "40P01"
ILLEGAL_MOVE: Final = "RG001"
"""Our own, raised by triggers: a move that a table of transitions does not have."""


def sqlstate_of(error: BaseException) -> str | None:
    """None where the error is none of PostgreSQL's, such as a connection that has gone."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)

"""Treatment of failing webhook endpoints: fewer deliveries at a time, shorter timeouts, pauses.

A receiver that hangs occupies a lane until the timeout. So the lanes for failing endpoints are limited: for
one endpoint, for one partner, and for all together.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from app.domain.schedule import share_of

WINDOW: Final = 4
"""The most deliveries of one healthy endpoint at a time, over all workers."""
DEGRADED_AFTER: Final = 5
"""Consecutive failed attempts after which an endpoint is degraded (it is still tried)."""
PROBE_TIMEOUT: Final = 5.0
"""Seconds that a degraded endpoint has to answer, except in every FULL_PATIENCE_EVERY-th attempt."""
FULL_PATIENCE_EVERY: Final = 4
"""Every so many attempts get the full timeout, so that a slow receiver that has recovered is noticed."""
FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=5)


class EndpointState(StrEnum):
    ENABLED = "enabled"
    DEGRADED = "degraded"  # failed several times in a row; still tried
    DISABLED = "disabled"


_E = EndpointState

ENDPOINT_TRANSITIONS: dict[EndpointState, frozenset[EndpointState]] = {
    _E.ENABLED: frozenset({_E.DEGRADED, _E.DISABLED}),
    _E.DEGRADED: frozenset({_E.ENABLED, _E.DISABLED}),
    _E.DISABLED: frozenset({_E.ENABLED}),
}


@dataclass(frozen=True, slots=True)
class LaneBounds:
    """The most delivery lanes, over all workers, for each kind of use."""

    one_partner: int
    failing: int
    """For endpoints whose last attempt failed, of all partners together."""
    failing_of_one_partner: int


def lane_bounds(lanes: int) -> LaneBounds:
    """The bounds for so many lanes. One partner never gets the last quarter, however slow its endpoints are,
    so that another partner is served at once. Failing endpoints share a quarter."""
    quarter = max(1, lanes // 4)
    return LaneBounds(
        one_partner=share_of(lanes, 1, kept_free=quarter),
        failing=quarter,
        failing_of_one_partner=share_of(quarter, 1, kept_free=1),
    )


def is_degraded(failures: int) -> bool:
    return failures >= DEGRADED_AFTER


def patience(failures: int, usual: float) -> float:
    """The timeout in seconds of the next attempt, after so many consecutive failures."""
    if not is_degraded(failures) or (failures - DEGRADED_AFTER) % FULL_PATIENCE_EVERY == 0:
        return usual
    return min(usual, PROBE_TIMEOUT)


def pause(failures: int) -> timedelta:
    """The pause of a degraded endpoint after a failed attempt; zero if it is not degraded."""
    if not is_degraded(failures):
        return timedelta(0)
    doublings = min(failures - DEGRADED_AFTER, 10)
    return min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)

"""Limits on failing webhook endpoints."""

from datetime import timedelta

import pytest

from app.domain.endpoint_health import (
    DEGRADED_AFTER,
    LONGEST_PAUSE,
    PROBE_TIMEOUT,
    LaneBounds,
    lane_bounds,
    patience,
    pause,
)


@pytest.mark.parametrize(
    ("lanes", "bounds"),
    [
        (1, LaneBounds(1, 1, 1)),
        (2, LaneBounds(1, 1, 1)),
        (4, LaneBounds(3, 1, 1)),
        (8, LaneBounds(6, 2, 1)),
        (32, LaneBounds(24, 8, 7)),
    ],
)
def test_quarter_of_the_lanes_is_out_of_reach_of_each_partner(lanes: int, bounds: LaneBounds) -> None:
    assert lane_bounds(lanes) == bounds


def test_another_partner_finds_a_lane_from_two_lanes_on() -> None:
    for lanes in range(2, 200):
        bounds = lane_bounds(lanes)
        assert 1 <= bounds.one_partner < lanes
        assert 1 <= bounds.failing_of_one_partner <= bounds.failing < lanes


def test_endpoint_that_keeps_failing_is_waited_for_briefly_and_sometimes_as_long_as_before() -> None:
    usual = 15.0
    assert [patience(failures, usual) for failures in range(DEGRADED_AFTER)] == [usual] * DEGRADED_AFTER
    later = [patience(failures, usual) for failures in range(DEGRADED_AFTER, DEGRADED_AFTER + 9)]
    assert later == [usual, *[PROBE_TIMEOUT] * 3] * 2 + [usual]
    assert patience(DEGRADED_AFTER + 1, 2.0) == 2.0, "never longer than the setting says"


def test_pauses_of_a_degraded_endpoint_grow_to_five_minutes() -> None:
    assert [pause(failures) for failures in range(DEGRADED_AFTER)] == [timedelta(0)] * DEGRADED_AFTER
    grown = [pause(DEGRADED_AFTER + n).total_seconds() for n in range(8)]
    assert grown == [5, 10, 20, 40, 80, 160, 300, 300]
    assert pause(10**9) == LONGEST_PAUSE
